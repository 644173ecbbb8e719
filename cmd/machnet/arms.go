package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/machnet/machnet/cmd/internal/procs"
	"github.com/machnet/machnet/cmd/netns"
)

// Links join the two hosts of a benchmark.
const (
	linkMemif = "memif"
	linkLocal = "local" // none: both applications use one sidecar
	linkVeth  = "veth"
)

// What joins the hosts for the kernel's transports.
const (
	kernelLoopback = "loopback"
	kernelVeth     = "veth"
	kernelFrames   = "frames" // veth, without segmentation offload
)

// Placements. With own, host A's application and sidecar share one core and host B's the other; TCP's client and
// server have a core each. With same, both processes are on one core: where kernel TCP does best.
const (
	placementOwn    = "own"
	placementSame   = "same"
	placementAsIs   = "unbound"
	placementEngine = "engine alone" // the sidecar has a core to itself, both applications share the other
)

// host is one of the two hosts of a benchmark.
type host struct {
	name     string
	ip       string           // Machnet's
	kernelIP string           // of the kernel's transports
	device   []string         // flags of machnetd
	network  *netns.Namespace // nil: this machine's
	core     int
}

// hosts are the two hosts, on a link of their own that nothing else can see.
func (r *rig) hosts(c benchConfig) (a, b *host, err error) {
	cores, err := procs.Cores()
	if err != nil {
		return nil, nil, err
	}
	a = &host{name: "A", ip: "10.77.0.1", kernelIP: "127.0.0.1", core: cores[0]}
	b = &host{name: "B", ip: "10.77.0.2", kernelIP: "127.0.0.1", core: cores[len(cores)-1]}
	if c.kernel != kernelLoopback {
		if err := r.layLinks(a, b, c); err != nil {
			asked := "--kernel " + c.kernel
			if c.link == linkVeth {
				asked = "--link veth"
			}
			return nil, nil, fmt.Errorf("%s: %w", asked, err)
		}
	}
	if c.link != linkVeth {
		socket := filepath.Join(r.folder, "memif.sock")
		a.device, b.device = []string{"--memif", "server:" + socket}, []string{"--memif", "client:" + socket}
	}
	return a, b, nil
}

// build starts the sidecars and the arms.
func (r *rig) build(ctx context.Context, c benchConfig) error {
	if c.local != "" {
		return r.buildRemote(ctx, c)
	}
	a, b, err := r.hosts(c)
	if err != nil {
		return err
	}
	if c.has("machnet") {
		if err := r.buildMachnet(ctx, c, a, b); err != nil {
			return err
		}
	}
	for _, transport := range []string{"tcp", "udp"} {
		if !c.has(transport) {
			continue
		}
		client, server := endpoint{transport: transport, network: a.network}, endpoint{transport: transport, network: b.network}
		placements := []string{placementOwn, placementSame}
		if c.link == linkLocal {
			placements = placements[1:]
		}
		for _, placement := range placements {
			clientCore := a.core
			if placement == placementSame {
				clientCore = b.core
			}
			arm := &arm{transport: transport, placement: placement, wait: "netpoll"}
			if err := r.startArm(ctx, arm, server, client, b.kernelIP+":0", "", b.core, clientCore); err != nil {
				return err
			}
		}
	}
	return nil
}

// machnetWait is how the processes of a Machnet arm wait, with the default settings that the bench uses.
const machnetWait = "sidecar adaptive, application yields 50 us, or up to 300 us where waits are that long, then parks"

func (r *rig) buildMachnet(ctx context.Context, c benchConfig, a, b *host) error {
	sa, err := r.startSidecar(ctx, a)
	if err != nil {
		return err
	}
	sb, placement, clientCore := sa, placementEngine, b.core
	if c.link != linkLocal {
		if sb, err = r.startSidecar(ctx, b); err != nil {
			return err
		}
		placement, clientCore = placementOwn, a.core
	}
	client := endpoint{transport: "machnet", socket: sa.socket, network: a.network}
	server := endpoint{transport: "machnet", socket: sb.socket, network: b.network}
	arm := &arm{transport: "machnet", placement: placement, wait: machnetWait}
	return r.startArm(ctx, arm, server, client, sb.ip+":7000", "", b.core, clientCore)
}

// buildRemote measures through sidecars that run already.
func (r *rig) buildRemote(ctx context.Context, c benchConfig) error {
	for _, transport := range c.transports {
		addr, e := c.remote, endpoint{transport: transport, socket: c.local}
		if transport != "machnet" {
			addr = c.remoteIP
		}
		if addr == "" {
			continue
		}
		a := &arm{transport: transport, placement: placementAsIs, wait: "as configured"}
		if err := r.startArm(ctx, a, e, e, "", addr, -1, -1); err != nil {
			return err
		}
	}
	return nil
}
