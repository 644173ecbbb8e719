package setup

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/machnet/machnet/cmd/internal/machine"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What an interface has of the kernel's network, as the commands that give it back.

// address is the command that gives an address back. The metric is that of the route to its subnet.
func address(dev string, a machine.Address, metric int) string {
	words := []string{"ip", "address", "replace"}
	add := func(more ...string) { words = append(words, more...) }
	if a.Peer.IsValid() {
		add(a.Prefix.Addr().String(), "peer", a.Peer.String())
	} else {
		add(a.Prefix.String())
	}
	if a.Broadcast.IsValid() {
		add("broadcast", a.Broadcast.String())
	}
	add("dev", quote(dev), "scope", scope(a.Scope))
	if a.Label != "" && a.Label != dev {
		add("label", quote(a.Label))
	}
	for _, flag := range []struct {
		bit  int
		word string
	}{
		{unix.IFA_F_HOMEADDRESS, "home"}, {unix.IFA_F_MANAGETEMPADDR, "mngtmpaddr"}, {unix.IFA_F_NODAD, "nodad"},
		{unix.IFA_F_NOPREFIXROUTE, "noprefixroute"}, {unix.IFA_F_MCAUTOJOIN, "autojoin"},
	} {
		if a.Flags&flag.bit != 0 {
			add(flag.word)
		}
	}
	if metric > 0 {
		add("metric", fmt.Sprint(metric))
	}
	if a.Valid != machine.Forever {
		add("valid_lft", fmt.Sprint(a.Valid))
	}
	if a.Preferred != machine.Forever {
		add("preferred_lft", fmt.Sprint(a.Preferred))
	}
	return strings.Join(words, " ")
}

func scope(n int) string {
	switch n {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	}
	return fmt.Sprint(n)
}

// kept says whether an address is given back: those of IPv6 that the kernel makes by itself, it makes again.
func (b *builder) kept(a machine.Address) bool {
	if a.Prefix.Addr().Is4() {
		return true
	}
	if a.Flags&unix.IFA_F_TEMPORARY != 0 {
		return false
	}
	mode := b.read("/proc/sys/net/ipv6/conf/" + b.nic.Name + "/addr_gen_mode")
	return !a.Prefix.Addr().IsLinkLocalUnicast() || mode != "0" && mode != "2" // by the MAC address, or by a secret that stays
}

// addressesAndRoutes gives the commands that bring back addresses of the interface, and in these families its routes and lasting neighbours, and the routes
// of others that end with the addresses.
func (b *builder) addressesAndRoutes(addresses []machine.Address, families []int) (string, error) {
	own := map[netip.Addr]machine.Address{}
	for _, a := range addresses {
		own[a.Prefix.Addr()] = a
	}
	var direct, others, permanent []string
	metrics := map[netip.Addr]int{}
	for _, family := range families {
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: 0}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return "", fmt.Errorf("list the routes of the kernel: %w", err)
		}
		for _, r := range all {
			source, _ := netip.AddrFromSlice(r.Src)
			_, ends := own[source.Unmap()]
			if !ends && !b.uses(r) || r.Table == unix.RT_TABLE_LOCAL && r.Protocol == unix.RTPROT_KERNEL {
				continue
			}
			if a, automatic := automatic(r, addresses); automatic {
				usual := map[int]int{netlink.FAMILY_V4: 0, netlink.FAMILY_V6: 256}[family]
				if a.IsValid() && r.Priority != usual {
					metrics[a] = r.Priority
				}
				continue
			}
			command, err := b.route(r, family)
			if err != nil {
				return "", err
			}
			if r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 {
				direct = append(direct, command)
			} else {
				others = append(others, command)
			}
		}
		neighbours, err := netlink.NeighList(b.nic.Index, family)
		if err != nil {
			return "", fmt.Errorf("list the neighbours of %s: %w", b.nic.Name, err)
		}
		for _, n := range neighbours {
			if n.State&netlink.NUD_PERMANENT != 0 && !n.IP.IsMulticast() && len(n.HardwareAddr) > 0 {
				permanent = append(permanent, fmt.Sprintf("ip neighbour replace %s lladdr %s nud permanent dev %s", n.IP, n.HardwareAddr, quote(b.nic.Name)))
			}
		}
	}
	var commands []string
	for _, a := range addresses {
		if b.kept(a) {
			commands = append(commands, address(b.nic.Name, a, metrics[a.Prefix.Addr()]))
		}
	}
	// A gateway must be reachable before the route by it is made.
	return lines(slices.Concat(commands, direct, others, permanent)...), nil
}

// uses says whether a route leaves by the interface.
func (b *builder) uses(r netlink.Route) bool {
	return r.LinkIndex == b.nic.Index || slices.ContainsFunc(r.MultiPath, func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex == b.nic.Index })
}

// automatic says whether the kernel makes a route by itself: with an address, which is returned, or when the link is up or a router tells.
func automatic(r netlink.Route, addresses []machine.Address) (netip.Addr, bool) {
	if r.Family == netlink.FAMILY_V6 && (r.Protocol == unix.RTPROT_RA || r.Table == unix.RT_TABLE_LOCAL) {
		return netip.Addr{}, true
	}
	if r.Protocol != unix.RTPROT_KERNEL || r.Dst == nil || r.Gw != nil {
		return netip.Addr{}, false
	}
	ones, _ := r.Dst.Mask.Size()
	to, _ := netip.AddrFromSlice(r.Dst.IP)
	destination := netip.PrefixFrom(to.Unmap(), ones)
	for _, a := range addresses {
		subnet := a.Prefix
		if a.Peer.IsValid() {
			subnet = a.Peer
		}
		if a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 && subnet.Masked() == destination {
			return a.Prefix.Addr(), true
		}
	}
	return netip.Addr{}, to.Is6() && (to.IsLinkLocalUnicast() || to.IsMulticast())
}

// route is the command that gives a route back.
func (b *builder) route(r netlink.Route, family int) (string, error) {
	if r.Encap != nil || r.MPLSDst != nil || r.NewDst != nil || slices.ContainsFunc(r.MultiPath, func(hop *netlink.NexthopInfo) bool { return hop.Encap != nil || hop.NewDst != nil }) {
		return "", fmt.Errorf("it has a route that encapsulates packets (%v), which machnet setup could not bring back; remove the route first", r)
	}
	words := []string{"ip", "route", "replace"}
	if family == netlink.FAMILY_V6 {
		// The kernel refuses one whose source is an address that is still being looked for on the link.
		words = []string{"retry", "ip", "-6", "route", "replace"}
	}
	add := func(more ...string) { words = append(words, more...) }
	if kind := map[int]string{unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast"}[r.Type]; kind != "" {
		add(kind)
	}
	destination := "default"
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			destination = r.Dst.String()
		}
	}
	add(destination)
	if r.Tos > 0 {
		add("tos", fmt.Sprintf("%#x", r.Tos))
	}
	if len(r.MultiPath) == 0 {
		hop, err := hop(r.Gw, r.Via, r.LinkIndex, r.Flags)
		if err != nil {
			return "", err
		}
		add(hop...)
	}
	add("table", fmt.Sprint(cmp.Or(r.Table, unix.RT_TABLE_MAIN)), "proto", fmt.Sprint(int(r.Protocol)))
	if family == netlink.FAMILY_V4 {
		add("scope", scope(int(r.Scope)))
	}
	if r.Src != nil {
		add("src", r.Src.String())
	}
	if r.Priority > 0 {
		add("metric", fmt.Sprint(r.Priority))
	}
	add(metrics(r)...)
	for _, h := range r.MultiPath {
		hop, err := hop(h.Gw, h.Via, h.LinkIndex, h.Flags)
		if err != nil {
			return "", err
		}
		add("nexthop")
		add(hop...)
		add("weight", fmt.Sprint(h.Hops+1))
	}
	return strings.Join(words, " "), nil
}

// hop is where a route leads to next.
func hop(gateway net.IP, via netlink.Destination, index, flags int) ([]string, error) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("find the interface of a route: %w", err)
	}
	var words []string
	switch v := via.(type) {
	case *netlink.Via:
		words = append(words, "via", map[int]string{netlink.FAMILY_V4: "inet", netlink.FAMILY_V6: "inet6"}[v.AddrFamily], v.Addr.String())
	default:
		if gateway != nil {
			words = append(words, "via", gateway.String())
		}
	}
	words = append(words, "dev", quote(link.Attrs().Name))
	if flags&unix.RTNH_F_ONLINK != 0 {
		words = append(words, "onlink")
	}
	return words, nil
}

// metrics are the words for what a route says of the connections that take it.
func metrics(r netlink.Route) []string {
	var words []string
	add := func(name string, value int, locked bool) {
		if value > 0 && locked {
			name += " lock"
		}
		if value > 0 {
			words = append(words, name, fmt.Sprint(value))
		}
	}
	add("mtu", r.MTU, r.MTULock)
	add("window", r.Window, false)
	add("rtt", r.Rtt, false)
	add("rttvar", r.RttVar, false)
	add("ssthresh", r.Ssthresh, false)
	add("cwnd", r.Cwnd, false)
	add("advmss", r.AdvMSS, false)
	add("reordering", r.Reordering, false)
	add("hoplimit", r.Hoplimit, false)
	add("initcwnd", r.InitCwnd, false)
	add("rto_min", r.RtoMin, r.RtoMinLock)
	add("initrwnd", r.InitRwnd, false)
	add("quickack", r.QuickACK, false)
	add("fastopen_no_cookie", r.FastOpenNoCookie, false)
	if r.Features&unix.RTAX_FEATURE_ECN != 0 {
		words = append(words, "features", "ecn")
	}
	if r.Congctl != "" {
		words = append(words, "congctl", r.Congctl)
	}
	return words
}
