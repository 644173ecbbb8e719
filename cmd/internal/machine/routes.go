package machine

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// DefaultRoute is the interface that packets for everywhere else leave by, and the gateway, of the IPv4 default route that the kernel
// prefers. The name is "" where there is none.
func (r Root) DefaultRoute() (name string, gateway netip.Addr, err error) {
	best, err := defaults()
	if err != nil || len(best) == 0 {
		return "", netip.Addr{}, err
	}
	link, err := netlink.LinkByIndex(best[0].index)
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("find the interface of the default route: %w", err)
	}
	return link.Attrs().Name, best[0].gateway, nil
}

// gateways are those of the best default route of each interface, by its index.
func gateways() (map[int]netip.Addr, error) {
	routes, err := defaults()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]netip.Addr{}
	for _, route := range routes {
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

// defaults are the IPv4 default routes of all tables but the kernel's own, best first: the main table's by their metrics, then others, which
// only packets use that a rule sends there.
func defaults() ([]route, error) {
	all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: tableAny}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the routes of the kernel: %w", err)
	}
	var main, others []route
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
	return append(main, others...), nil
}

const (
	tableAny  = 0
	tableMain = 254
)
