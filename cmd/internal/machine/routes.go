package machine

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// DefaultRoute is the interface that packets for everywhere else leave by, and the gateway, of the IPv4 default route that the kernel
// prefers in its main table. The name is "" where there is none.
func (r Root) DefaultRoute() (name string, gateway netip.Addr, err error) {
	best, _, err := defaults(netlink.FAMILY_V4)
	if err != nil || len(best) == 0 {
		return "", netip.Addr{}, err
	}
	link, err := netlink.LinkByIndex(best[0].index)
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("find the interface of the default route: %w", err)
	}
	return link.Attrs().Name, best[0].gateway, nil
}

// DefaultInterfaces are those by which packets for everywhere else leave: those of the IPv4 default routes that the kernel prefers in its main
// table, more than one where they are equal. With orIPv6 and no such route they are those of IPv6.
func (r Root) DefaultInterfaces(orIPv6 bool) ([]string, error) {
	best, _, err := defaults(netlink.FAMILY_V4)
	if err == nil && len(best) == 0 && orIPv6 {
		best, _, err = defaults(netlink.FAMILY_V6)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, route := range best {
		if route.metric != best[0].metric {
			break
		}
		link, err := netlink.LinkByIndex(route.index)
		if err != nil {
			return nil, fmt.Errorf("find the interface of the default route: %w", err)
		}
		names = append(names, link.Attrs().Name)
	}
	return names, nil
}

// gateways are those of the best default route of each interface, by its index.
func gateways() (map[int]netip.Addr, error) {
	main, others, err := defaults(netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	byIndex := map[int]netip.Addr{}
	for _, route := range append(main, others...) {
		if _, better := byIndex[route.index]; !better && route.gateway.IsValid() {
			byIndex[route.index] = route.gateway
		}
	}
	return byIndex, nil
}

type route struct {
	index   int
	gateway netip.Addr
	metric  int
}

// defaults are a family's default routes, best first: those of the main table, and those of others, which only packets use that a rule sends
// there, as a machine with several NICs has one for each.
func defaults(family int) (main, others []route, err error) {
	all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: tableAny}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, nil, fmt.Errorf("list the routes of the kernel: %w", err)
	}
	for _, r := range all {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		hops := []netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
		if len(r.MultiPath) > 0 {
			hops = hops[:0]
			for _, hop := range r.MultiPath {
				hops = append(hops, *hop)
			}
		}
		for _, hop := range hops {
			gateway, _ := netip.AddrFromSlice(hop.Gw)
			one := route{hop.LinkIndex, gateway.Unmap(), r.Priority}
			if hop.LinkIndex == 0 {
				continue // unreachable and the like
			}
			if r.Table == tableMain {
				main = append(main, one)
			} else {
				others = append(others, one)
			}
		}
	}
	byMetric := func(a, b route) int { return a.metric - b.metric }
	slices.SortStableFunc(main, byMetric)
	slices.SortStableFunc(others, byMetric)
	return main, others, nil
}

const (
	tableAny  = 0
	tableMain = 254
)
