package main

import (
	"slices"

	"github.com/machnet/machnet/cmd/netns"
)

// The devices of each host with --link veth, and beside kernelDevice one of the same name as each back end of the sidecars, which has no
// address: the kernel would answer, too.
const (
	kernelDevice = "kernel0"
	linkMTU      = 1500
)

// What moves a sidecar's frames through the kernel's devices.
const (
	backendPacket = "af_packet"
	backendXDP    = "af_xdp"
)

// over is the host with the sidecar of this back end.
func (h *host) over(backend string) *host {
	other := *h
	other.backend = backend
	switch backend {
	case backendPacket:
		other.device = []string{"--vdev", "net_af_packet0,iface=" + backend}
	case backendXDP:
		other.device = []string{"--xdp", backend}
	}
	return &other
}

// layLinks gives each host a network of its own, with a link for the kernel's transports, and with --link veth another one of the same
// kind for the sidecars of each back end. With loss these links lead through a third namespace whose kernel drops frames.
func (r *rig) layLinks(a, b *host, c benchConfig) error {
	var middle *netns.Namespace
	networks := []**netns.Namespace{&a.network, &b.network}
	if c.loss > 0 {
		networks = append(networks, &middle)
	}
	for _, n := range networks {
		made, err := netns.New()
		if err != nil {
			return err
		}
		*n, r.networks = made, append(r.networks, made)
	}
	devices := []string{kernelDevice}
	if c.link == linkVeth {
		devices = slices.Concat(devices, c.backends)
	}
	for _, device := range devices {
		one, other := netns.End{Namespace: a.network, Device: device}, netns.End{Namespace: b.network, Device: device}
		if err := layLink(one, other, middle, c.loss); err != nil {
			return err
		}
	}
	for _, h := range []*host{a, b} {
		h.kernelIP = map[string]string{"A": "10.78.0.1", "B": "10.78.0.2"}[h.name]
		end := netns.End{Namespace: h.network, Device: kernelDevice}
		if err := end.Address(h.kernelIP + "/24"); err != nil {
			return err
		}
		if c.kernel == kernelFrames {
			if err := end.CutInFrames(); err != nil {
				return err
			}
		}
	}
	return nil
}

func layLink(one, other netns.End, middle *netns.Namespace, loss float64) error {
	if loss == 0 {
		return netns.Veth(one, other, linkMTU)
	}
	towardsA, towardsB := "a-"+one.Device, "b-"+other.Device
	if err := netns.Veth(one, netns.End{Namespace: middle, Device: towardsA}, linkMTU); err != nil {
		return err
	}
	if err := netns.Veth(other, netns.End{Namespace: middle, Device: towardsB}, linkMTU); err != nil {
		return err
	}
	return middle.Forward(towardsA, towardsB, loss/100)
}
