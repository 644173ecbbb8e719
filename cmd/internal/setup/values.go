package setup

import (
	"fmt"
	"net/netip"
)

// setting is a key of machnetd's configuration, and what it is to be: a string or an int64.
type setting struct {
	section, key string
	value        any
}

// settings are those that the setup gives the sidecar.
func (b *builder) settings(w way) ([]setting, error) {
	ip, err := b.address(w)
	if err != nil {
		return nil, err
	}
	mtu, err := b.mtu(w)
	if err != nil {
		return nil, err
	}
	all := []setting{{"host", "ip", ip.String()}}
	if gateway := b.gateway(); gateway.IsValid() {
		all = append(all, setting{"host", "gateway", gateway.String()})
	} else if ip.Bits() == 32 {
		return nil, fmt.Errorf("the address %s has nobody on its link, and the kernel knows no gateway by %s; name it: --gateway ADDRESS", ip, b.nic.Name)
	} else {
		b.note("the kernel knows no gateway by %s: the sidecar will reach its own subnet only, unless you name one (--gateway ADDRESS)", b.nic.Name)
	}
	switch {
	case w == sockets:
		all = append(all, setting{"nic", "xdp", b.nic.Name})
	case w == frames:
		all = append(all, setting{"nic", "vdev", "net_af_packet0,iface=" + b.nic.Name})
	case w == netvsc || b.nic.Driver == "mana":
		// Hyper-V's device has no PCI address, and MANA's may have several interfaces.
		all = append(all, setting{"nic", "mac", b.nic.MAC.String()})
	default:
		all = append(all, setting{"nic", "pci", b.nic.PCI})
	}
	all = append(all, setting{"nic", "mtu", int64(mtu)})
	engines, err := b.engines(w)
	if err != nil {
		return nil, err
	}
	if engines > 0 {
		all = append(all, setting{"engines", "count", int64(engines)})
	}
	return all, nil
}

// address is the sidecar's.
func (b *builder) address(w way) (netip.Prefix, error) {
	own, has := b.nic.IPv4()
	switch ip := b.o.IP; {
	case w == sockets && !ip.IsValid():
		held := ""
		if has {
			held = " and its address " + own.Prefix.Addr().String()
		}
		return ip, fmt.Errorf("with --xdp the kernel keeps %s%s, and the sidecar needs an address of its own there (in a cloud a secondary private address of this NIC); name it: --ip ADDRESS/PREFIX", b.nic.Name, held)
	case w == sockets && has && own.Prefix.Addr() == ip.Addr():
		return ip, fmt.Errorf("--ip %s is the kernel's own address on %s, by which others reach it; with --xdp the sidecar needs another (in a cloud a secondary private address of this NIC)", ip, b.nic.Name)
	case ip.IsValid():
		return ip, nil
	case !has:
		return ip, fmt.Errorf("it has no IPv4 address that the sidecar could have; name one: --ip ADDRESS/PREFIX")
	case own.Peer.IsValid():
		return netip.PrefixFrom(own.Prefix.Addr(), own.Peer.Bits()), nil
	}
	return own.Prefix, nil
}

// gateway is the sidecar's; invalid where none is known.
func (b *builder) gateway() netip.Addr {
	if b.o.Gateway.IsValid() {
		return b.o.Gateway
	}
	return b.nic.Gateway
}

// engines are how many the configuration is to say; 0: nothing. An AF_XDP socket serves one receive queue, and what comes by a queue without
// one is the kernel's: there have to be as many of either.
func (b *builder) engines(w way) (int, error) {
	queues := max(b.nic.RxQueues, 1) // a driver that does not say has one
	switch {
	case w != sockets:
		return b.o.Engines, nil
	case b.o.Engines == 0 && queues > mostEngines:
		return 0, fmt.Errorf("it has %d receive queues, and machnetd has at most %d engines, one for each; give it fewer (ethtool -L %s combined %d)", queues, mostEngines, b.nic.Name, mostEngines)
	case b.o.Engines == 0:
		return queues, nil
	case b.o.Engines != queues:
		return 0, fmt.Errorf("--engines %d, and %s has %d receive queues: with --xdp each needs an engine, or what comes by the others never reaches the sidecar; make them as many (ethtool -L %s combined %d, or rx %d where it counts them apart), or leave --engines out",
			b.o.Engines, b.nic.Name, queues, b.nic.Name, b.o.Engines, b.o.Engines)
	}
	return queues, nil
}

// mostEngines is the most that machnetd takes.
const mostEngines = 64

// mtu is the sidecar's, in bytes: the kernel's, within what machnetd takes.
func (b *builder) mtu(w way) (int, error) {
	most := 9001
	if w == sockets {
		most = xdpMTU
	}
	if b.nic.MTU < 576 {
		return 0, fmt.Errorf("its MTU is %d, and machnetd takes 576 to 9001; raise it (ip link set dev %s mtu 1500)", b.nic.MTU, b.nic.Name)
	}
	if b.nic.MTU > most {
		b.note("the sidecar's MTU is %d, the most that it takes with --%s; the kernel's on %s is %d", most, flagOf(b.o.Backend), b.nic.Name, b.nic.MTU)
	}
	return min(b.nic.MTU, most), nil
}

// xdpMTU is the most that machnetd takes with --xdp: a frame has to fit a page with what the kernel keeps there.
const xdpMTU = 4096 - 256 - 14
