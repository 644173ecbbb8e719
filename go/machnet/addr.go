package machnet

import (
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

// check is nil, or why nothing can be dialled or listened on at a.
func (a *Addr) check() error {
	if a == nil {
		return &net.AddrError{Err: "missing address"}
	}
	if a.IP.IsValid() && !a.IP.Unmap().Is4() {
		return &net.AddrError{Err: "Machnet speaks IPv4 only", Addr: a.String()}
	}
	return nil
}

// checkPeer refuses what cannot be dialled, too.
func (a *Addr) checkPeer() error {
	if err := a.check(); err != nil {
		return err
	}
	switch ip := a.IP.Unmap(); {
	case a.Port == 0:
		return &net.AddrError{Err: "port 0 cannot be dialled", Addr: a.String()}
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return &net.AddrError{Err: "a multicast or broadcast address cannot be dialled", Addr: a.String()}
	}
	return nil
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
