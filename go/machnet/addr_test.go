package machnet

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestResolveAddr(t *testing.T) {
	for name, tc := range map[string]struct {
		network, address string
		want             Addr
		text             string
	}{
		"numeric":          {"machnet", "10.0.0.2:7000", Addr{netip.MustParseAddr("10.0.0.2"), 7000}, "10.0.0.2:7000"},
		"no host is local": {"machnet", ":7000", Addr{Port: 7000}, ":7000"},
		"any port":         {"machnet", ":0", Addr{}, ":0"},
		"mapped IPv4":      {"machnet", "[::ffff:10.0.0.2]:1", Addr{netip.MustParseAddr("10.0.0.2"), 1}, "10.0.0.2:1"},
		"name":             {"machnet", "localhost:9", Addr{netip.MustParseAddr("127.0.0.1"), 9}, "127.0.0.1:9"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ResolveAddr(tc.network, tc.address)
			if err != nil || *got != tc.want || got.String() != tc.text || got.Network() != "machnet" {
				t.Fatalf("ResolveAddr(%q, %q) = %v (%s), %v; want %v", tc.network, tc.address, got, got.Network(), err, tc.want)
			}
		})
	}
}

func TestResolveAddrRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ network, address string }{
		"another network": {"tcp", "10.0.0.2:7000"},
		"no port":         {"machnet", "10.0.0.2"},
		"a named port":    {"machnet", "10.0.0.2:http"},
		"port too large":  {"machnet", "10.0.0.2:65536"},
		"negative port":   {"machnet", "10.0.0.2:-1"},
		"IPv6":            {"machnet", "[2001:db8::1]:7000"},
		"nothing":         {"machnet", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ResolveAddr(tc.network, tc.address)
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Fatalf("ResolveAddr(%q, %q) = %v, %v; want a *net.OpError", tc.network, tc.address, a, err)
			}
		})
	}
}

func TestAddrTravelsAsANumber(t *testing.T) {
	a := &Addr{IP: netip.MustParseAddr("10.1.2.3"), Port: 4}
	if n := a.hostOrder(); n != 0x0a010203 {
		t.Errorf("hostOrder of %v = %#x, want 0x0a010203", a, n)
	}
	if back := addrFrom(0x0a010203, 4); *back != *a {
		t.Errorf("addrFrom(0x0a010203, 4) = %v, want %v", back, a)
	}
	if n := new(Addr).hostOrder(); n != 0 {
		t.Errorf("hostOrder of no IP = %#x, want 0", n)
	}
}
