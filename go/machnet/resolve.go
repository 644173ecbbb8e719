package machnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ResolveAddr turns "10.0.0.2:7000", "host:7000" or ":7000" into an Addr, asking net.DefaultResolver about names. The network must be
// "machnet", else the error wraps net.UnknownNetworkError. A name with several IPv4 addresses gives the first; a Dialer, given the name,
// tries them all. Errors wrap *net.AddrError for an address that cannot be (no port, a port that is no number from 0 to 65535, IPv6), and
// *net.DNSError for a name that is not found, or has IPv6 addresses alone.
func ResolveAddr(network, address string) (*Addr, error) {
	addrs, err := resolve(context.Background(), nil, "resolve", network, address)
	if err != nil {
		return nil, err
	}
	return &addrs[0], nil
}

// resolve gives the addresses that an address in words means, at least one, in the resolver's order; a nil resolver is the default one.
func resolve(ctx context.Context, r *net.Resolver, op, netw, address string) ([]Addr, error) {
	fail := func(err error) ([]Addr, error) {
		return nil, &net.OpError{Op: op, Net: netw, Err: err}
	}
	if netw != network {
		return fail(net.UnknownNetworkError(netw))
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return fail(&net.AddrError{Err: "the port of a Machnet address is a number from 0 to 65535", Addr: address})
	}
	port := uint16(number)
	if host == "" {
		return []Addr{{Port: port}}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); !ip.Is4() {
			return fail(&net.AddrError{Err: "Machnet speaks IPv4 only", Addr: address})
		}
		return []Addr{{IP: ip, Port: port}}, nil
	}
	if r == nil {
		r = net.DefaultResolver
	}
	found, err := r.LookupNetIP(ctx, "ip4", host)
	if err != nil || len(found) == 0 {
		return fail(whyNotFound(ctx, r, host, err))
	}
	addrs := make([]Addr, len(found))
	for i, ip := range found {
		addrs[i] = Addr{IP: ip.Unmap(), Port: port}
	}
	return addrs, nil
}

// whyNotFound is why a name has no IPv4 address: err, unless it has IPv6 addresses.
func whyNotFound(ctx context.Context, r *net.Resolver, host string, err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) && !dns.IsNotFound {
		return err // the answer is not known
	}
	six, _ := r.LookupNetIP(ctx, "ip6", host)
	if len(six) == 0 {
		if err == nil {
			err = &net.DNSError{Err: "no IPv4 address", Name: host, IsNotFound: true}
		}
		return err
	}
	texts := make([]string, len(six))
	for i, ip := range six {
		texts[i] = ip.String()
	}
	return &net.DNSError{
		Err:  "Machnet speaks IPv4 only, and the name has only IPv6 addresses (" + strings.Join(texts, ", ") + "); give it an A record",
		Name: host, IsNotFound: true,
	}
}

// dialSerial dials the addresses one after the other until one answers, as net.Dialer does. The first error is the one that is told: who
// gave a name mostly meant its first address.
func (d *Dialer) dialSerial(ctx context.Context, addrs []Addr) (*Conn, error) {
	var first error
	for i := range addrs {
		part, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			// Not where it is the same, so that the caller's limit keeps its cause.
			if partEnd := partialDeadline(time.Now(), end, len(addrs)-i); partEnd.Before(end) {
				part, cancel = context.WithDeadline(ctx, partEnd)
			}
		}
		c, err := d.DialMachnet(part, &addrs[i])
		cancel()
		if err == nil {
			return c, nil
		}
		if ctx.Err() == context.Canceled || first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// leastPart is the least time that an address has, of several, while there is as much.
const leastPart = 2 * time.Second

// partialDeadline is when to give up the first of so many addresses that have until end together.
func partialDeadline(now, end time.Time, addresses int) time.Time {
	left := end.Sub(now)
	if part := max(left/time.Duration(addresses), leastPart); part < left {
		return now.Add(part)
	}
	return end
}

// refuseLoopback refuses an address that leads to the kernel of this machine, whatever network the sidecar is on.
func refuseLoopback(a *Addr, sidecar netip.Addr) error {
	if !a.IP.IsLoopback() {
		return nil
	}
	return &localError{
		fmt.Sprintf("%v leads to this machine's kernel, where no Machnet listens; dial %s", a.IP, ownAddr(a, sidecar)), syscall.EHOSTUNREACH,
	}
}

// explainLocal says, of a dial that got no answer, that the address is one of this machine's kernel, if it is. refuseLoopback has said so already.
func explainLocal(a *Addr, sidecar netip.Addr, err error, interfaces func() ([]net.Addr, error)) error {
	silent := errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, context.DeadlineExceeded)
	if !silent || a.IP.IsLoopback() || a.hostOrder() == 0 || a.IP.Unmap() == sidecar {
		return err
	}
	addrs, lookErr := interfaces()
	if lookErr != nil {
		return err // there is nothing to add to the error of the dial
	}
	for _, other := range addrs {
		if n, ok := other.(*net.IPNet); ok && n.IP.Equal(a.IP.AsSlice()) {
			return &localError{fmt.Sprintf("%v; %v is an address of this machine's kernel, and another sidecar's at most; to reach this machine's, dial %s",
				err, a.IP, ownAddr(a, sidecar)), err}
		}
	}
	return err
}

// ownAddr is how to dial a port of this machine's sidecar.
func ownAddr(a *Addr, sidecar netip.Addr) string {
	return fmt.Sprintf("%q or %q", (&Addr{Port: a.Port}).String(), (&Addr{IP: sidecar, Port: a.Port}).String())
}

// localError says of an address that it is this machine's own, and is the error that it explains.
type localError struct {
	text string
	err  error
}

func (e *localError) Error() string { return e.text }
func (e *localError) Unwrap() error { return e.err }
func (e *localError) Timeout() bool {
	timeout, ok := e.err.(interface{ Timeout() bool })
	return ok && timeout.Timeout()
}
func (e *localError) Temporary() bool { return e.Timeout() }
