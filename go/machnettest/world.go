//go:build linux && cgo && (amd64 || arm64)

package machnettest

/*
#include <stdlib.h>
#include "machnet_host.h"

// Fails at link time when the archive is not the one this header belongs to.
void (*machnettest_abi_witness)(void) = machnet_host_abi_2;
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"
)

// world is the hosts and the thread that runs them, behind the C functions of machnet_host.h. Its methods may be called at once, free
// alone and last.
type world struct{ net *C.machnet_host_net }

func newWorld(seed uint64, link Link) (world, error) {
	l := cLink(link)
	net := C.machnet_host_new(C.uint64_t(seed), &l)
	if net == nil || C.machnet_host_start(net) != 0 {
		C.machnet_host_free(net)
		return world{}, errors.New("the system gives no thread or no sockets")
	}
	return world{net}, nil
}

func (w world) free() { C.machnet_host_free(w.net) }

// add gives the new host's number; false where the plan is out of bounds or the system refuses.
func (w world) add(ip netip.Addr, o HostOptions) (number int, ok bool) {
	bytes := ip.As4()
	plan := C.machnet_host_plan{
		ip: C.uint32_t(binary.BigEndian.Uint32(bytes[:])), engines: C.uint32_t(o.Engines), mtu: C.uint32_t(o.MTU), conns: C.uint32_t(o.Conns),
	}
	number = int(C.machnet_host_add(w.net, &plan))
	return number, number >= 0
}

// connect gives a socket to attach by; false where the host is dead.
func (w world) connect(host int) (fd uintptr, ok bool) {
	got := C.machnet_host_connect(w.net, C.int(host))
	return uintptr(got), got >= 0
}

// serve attaches whoever speaks over a socket, of which it takes a copy, unless the host is dead.
func (w world) serve(host int, fd uintptr) { C.machnet_host_serve(w.net, C.int(host), C.int(fd)) }

func (w world) kill(host int)         { C.machnet_host_kill(w.net, C.int(host)) }
func (w world) restart(host int) bool { return C.machnet_host_restart(w.net, C.int(host)) == 0 }

func (w world) setLink(from, to int, link Link) {
	l := cLink(link)
	C.machnet_host_set_link(w.net, C.int(from), C.int(to), &l)
}

func (w world) counter(host int, name string) (value int64, ok bool) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	value = int64(C.machnet_host_counter(w.net, C.int(host), text))
	return value, value >= 0
}

func (w world) trace() string {
	// More packets may come between asking for the length and for the lines; the last of them are cut then.
	text := make([]byte, C.machnet_host_trace(w.net, nil, 0)+1)
	length := C.machnet_host_trace(w.net, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
	return string(text[:min(int(length), len(text)-1)])
}

func cLink(l Link) C.machnet_host_link {
	return C.machnet_host_link{
		loss: C.double(l.Loss), duplication: C.double(l.Duplication), reorder: C.double(l.Reorder), corruption: C.double(l.Corruption),
		delay_ns: C.uint64_t(l.Delay), jitter_ns: C.uint64_t(l.Jitter), rate: C.uint64_t(l.Rate),
	}
}
