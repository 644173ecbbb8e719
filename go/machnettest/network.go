//go:build linux && cgo && (amd64 || arm64)

package machnettest

/*
#include <stdlib.h>
#include "machnet_host.h"

// Fails at link time when the archive is not the one this header belongs to.
void (*machnettest_abi_witness)(void) = machnet_host_abi_1;
*/
import "C"

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/machnet/machnet/go/machnet"
)

// Link says how the links between hosts treat packets. Probabilities are per packet, 0 to 1. The zero Link is
// faultless, and takes 10 us.
type Link struct {
	Loss, Duplication, Reorder, Corruption float64
	Delay                                  time.Duration // 0 means 10 us
	Jitter                                 time.Duration // up to so much longer
	Rate                                   uint64        // bits per second; 0 means no limit
}

// Network is a network of hosts in this process, running in real time. It may be used by many goroutines at once.
type Network struct {
	mu  sync.RWMutex // Close takes the write lock, so that nothing vanishes under a call
	net *C.machnet_host_net
}

// Host is one host of a network: a sidecar without a process of its own.
type Host struct {
	network *Network
	number  C.int
	ip      netip.Addr
}

// ErrClosed is what the methods of a network return after its Close. It wraps net.ErrClosed, so that the stacks of its hosts end.
var ErrClosed = fmt.Errorf("machnettest: the network is closed: %w", net.ErrClosed)

// New makes a network without hosts and starts it. The seed decides which packets suffer.
func New(seed uint64, link Link) (*Network, error) {
	l := link.c()
	host := C.machnet_host_new(C.uint64_t(seed), &l)
	if host == nil || C.machnet_host_start(host) != 0 {
		C.machnet_host_free(host)
		return nil, errors.New("machnettest: the system gives no thread or sockets for a network")
	}
	return &Network{net: host}, nil
}

func (l Link) c() C.machnet_host_link {
	delay := l.Delay
	if delay == 0 {
		delay = 10 * time.Microsecond
	}
	return C.machnet_host_link{
		loss: C.double(l.Loss), duplication: C.double(l.Duplication), reorder: C.double(l.Reorder),
		corruption: C.double(l.Corruption), delay_ns: C.uint64_t(delay), jitter_ns: C.uint64_t(l.Jitter), rate: C.uint64_t(l.Rate),
	}
}

// AddHost adds a host with an IPv4 address of its own and 1 to 128 engines.
func (n *Network) AddHost(ip netip.Addr, engines int) (*Host, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.net == nil {
		return nil, ErrClosed
	}
	if !ip.Is4() || engines < 1 || engines > 128 {
		return nil, fmt.Errorf("machnettest: add host %v with %d engines: an IPv4 address and 1 to 128 engines are wanted", ip, engines)
	}
	bytes := ip.As4()
	plan := C.machnet_host_plan{ip: C.uint32_t(binary.BigEndian.Uint32(bytes[:])), engines: C.uint32_t(engines)}
	number := C.machnet_host_add(n.net, &plan)
	if number < 0 {
		return nil, fmt.Errorf("machnettest: add host %v: the address is taken, or there are 255 hosts", ip)
	}
	return &Host{network: n, number: number, ip: ip}, nil
}

// SetLink changes how all links treat packets from now on.
func (n *Network) SetLink(link Link) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.net == nil {
		return ErrClosed
	}
	l := link.c()
	C.machnet_host_set_links(n.net, &l)
	return nil
}

// Trace gives the last packets and their fates, a line each, with the seed: what a failing test should print.
func (n *Network) Trace() string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.net == nil {
		return ""
	}
	// More packets may come between asking for the length and for the lines; the last of them are cut then.
	text := make([]byte, C.machnet_host_trace(n.net, nil, 0)+1)
	length := C.machnet_host_trace(n.net, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
	return string(text[:min(int(length), len(text)-1)])
}

// Close ends all hosts, as if their processes were killed. It may be called more than once.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	C.machnet_host_free(n.net)
	n.net = nil
	return nil
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.ip }

// Attach attaches to the host, as machnet.Attach does to a sidecar.
func (h *Host) Attach(ctx context.Context) (*machnet.Stack, error) {
	return machnet.Attach(ctx, machnet.Config{Connect: h.connect})
}

// connect gives a socket to the host, as machnet.Config.Connect does.
func (h *Host) connect(context.Context) (*os.File, error) {
	h.network.mu.RLock()
	defer h.network.mu.RUnlock()
	if h.network.net == nil {
		return nil, ErrClosed
	}
	fd := int(C.machnet_host_connect(h.network.net, h.number))
	if fd < 0 {
		return nil, fmt.Errorf("%v was killed: %w", h.ip, machnet.ErrNoSidecar)
	}
	return os.NewFile(uintptr(fd), "machnettest"), nil
}

// Kill ends the host as a killed process ends: its applications' connections fail at once, its peers hear nothing.
func (h *Host) Kill() error {
	h.network.mu.RLock()
	defer h.network.mu.RUnlock()
	if h.network.net == nil {
		return ErrClosed
	}
	C.machnet_host_kill(h.network.net, h.number)
	return nil
}

// Counter gives one of the host's counters (docs/metrics.md lists them), summed over its engines.
func (h *Host) Counter(name string) (int64, error) {
	h.network.mu.RLock()
	defer h.network.mu.RUnlock()
	if h.network.net == nil {
		return 0, ErrClosed
	}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	value := int64(C.machnet_host_counter(h.network.net, h.number, text))
	if value < 0 {
		return 0, fmt.Errorf("machnettest: counter %q: there is none of this name", name)
	}
	return value, nil
}
