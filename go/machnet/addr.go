package machnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
)

// network is the one name that this package's functions take where package net takes "tcp".
const network = "machnet"

// Addr is an end of a Machnet connection: the IPv4 address of a sidecar and a Machnet port, which has nothing to do with
// UDP or TCP ports of the same number.
type Addr struct {
	// IP is the sidecar's address. The zero Addr and 0.0.0.0 mean "the local sidecar's" where one listens or dials.
	IP netip.Addr
	// Port is 1 to 65535; 0 asks Listen for a free one.
	Port uint16
}

// Network returns "machnet".
func (a *Addr) Network() string { return network }

// String returns the address as "10.0.0.1:7000", or ":7000" when it has no IP.
func (a *Addr) String() string {
	if a == nil {
		return "<nil>"
	}
	host := ""
	if a.IP.IsValid() {
		host = a.IP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port)))
}

// opAddr is a as the field of a net.OpError, where a typed nil would print as an address.
func (a *Addr) opAddr() net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// ResolveAddr turns "10.0.0.2:7000", "host:7000" or ":7000" into an Addr, asking the net.DefaultResolver about names. The
// network must be "machnet". A name with several IPv4 addresses gives the first; IPv6 is not spoken.
func ResolveAddr(network, address string) (*Addr, error) {
	return resolve(context.Background(), "resolve", network, address)
}

func resolve(ctx context.Context, op, netw, address string) (*Addr, error) {
	fail := func(err error) (*Addr, error) {
		return nil, &net.OpError{Op: op, Net: netw, Err: err}
	}
	if netw != network {
		return fail(net.UnknownNetworkError(netw))
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return fail(&net.AddrError{Err: "the port of a Machnet address is a number from 0 to 65535", Addr: address})
	}
	a := &Addr{Port: uint16(port)}
	if host == "" {
		return a, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); !ip.Is4() {
			return fail(&net.AddrError{Err: "Machnet speaks IPv4 only", Addr: address})
		}
		a.IP = ip
		return a, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return fail(err)
	}
	if len(found) == 0 {
		return fail(errors.New("lookup " + host + ": no IPv4 address"))
	}
	a.IP = found[0].Unmap()
	return a, nil
}

// hostOrder is the IP as the C API takes it; 0 for none.
func (a *Addr) hostOrder() uint32 {
	if !a.IP.IsValid() {
		return 0
	}
	b := a.IP.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func addrFrom(ip uint32, port uint16) *Addr {
	return &Addr{IP: netip.AddrFrom4([4]byte{byte(ip >> 24), byte(ip >> 16), byte(ip >> 8), byte(ip)}), Port: port}
}
