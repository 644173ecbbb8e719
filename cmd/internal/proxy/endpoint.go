package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/machnet/machnet/go/machnet"
)

// Endpoint is where connections come from or go to: "tcp://HOST:PORT", "unix://PATH" or "machnet://HOST:PORT".
type Endpoint struct {
	network string // as packages net and machnet call it
	address string
}

// ParseListen reads where to listen. Without a HOST that is all addresses of this machine, or the sidecar's; PORT 0 is any that is free.
func ParseListen(text string) (Endpoint, error) { return parse(text, false) }

// ParseTo reads where to connect to.
func ParseTo(text string) (Endpoint, error) { return parse(text, true) }

func parse(text string, dial bool) (Endpoint, error) {
	network, address, ok := strings.Cut(text, "://")
	if !ok || (network != "tcp" && network != "unix" && network != "machnet") {
		return Endpoint{}, fmt.Errorf("%q: tcp://HOST:PORT, machnet://HOST:PORT or unix://PATH is wanted", text)
	}
	e := Endpoint{network, address}
	if network == "unix" {
		if !strings.HasPrefix(address, "/") {
			return Endpoint{}, fmt.Errorf("%q: an absolute path is wanted, like unix:///run/name.sock", text)
		}
		return e, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%q: HOST:PORT is wanted, like %s://10.0.0.2:6379", text, network)
	}
	least := 0
	if dial {
		least = 1
		if host == "" {
			return Endpoint{}, fmt.Errorf("%q: which host? An address or a name is wanted, like %s://10.0.0.2:%s", text, network, port)
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil && network == "machnet" && (ip.IsLoopback() || !ip.Is4() || dial && ip.IsUnspecified()) {
		return Endpoint{}, fmt.Errorf("%q: no sidecar has the address %v; the IPv4 address of one is wanted, like machnet://10.0.0.2:%s", text, ip, port)
	}
	if n, err := strconv.Atoi(port); err != nil || n < least || n > 65535 {
		return Endpoint{}, fmt.Errorf("%q: port %q is no number from %d to 65535", text, port, least)
	}
	return e, nil
}

func (e Endpoint) String() string { return e.network + "://" + e.address }

// IsMachnet tells whether a sidecar is needed for it.
func (e Endpoint) IsMachnet() bool { return e.network == "machnet" }

func (e Endpoint) listen(ctx context.Context, s *machnet.Stack) (net.Listener, error) {
	if e.IsMachnet() {
		return (&machnet.ListenConfig{Stack: s}).Listen(ctx, e.network, e.address)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, e.network, e.address)
	if errors.Is(err, syscall.EADDRINUSE) && e.isAbandoned(ctx) && os.Remove(e.address) == nil {
		return lc.Listen(ctx, e.network, e.address)
	}
	return l, err
}

// isAbandoned tells whether this is the socket of a process that was killed, which leaves its file.
func (e Endpoint) isAbandoned(ctx context.Context) bool {
	if e.network != "unix" {
		return false
	}
	if file, err := os.Lstat(e.address); err != nil || file.Mode().Type() != os.ModeSocket { // connect(2) refuses any other file in the same way
		return false
	}
	c, err := new(net.Dialer).DialContext(ctx, e.network, e.address)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func (e Endpoint) dial(ctx context.Context, s *machnet.Stack) (stream, error) {
	var c net.Conn
	var err error
	if e.IsMachnet() {
		c, err = (&machnet.Dialer{Stack: s}).DialContext(ctx, e.network, e.address)
	} else {
		c, err = new(net.Dialer).DialContext(ctx, e.network, e.address)
	}
	if err != nil {
		return nil, err
	}
	return c.(stream), nil
}
