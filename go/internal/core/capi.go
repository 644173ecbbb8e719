//go:build linux && cgo && (amd64 || arm64)

package core

// This file is the one place where Go meets C. Nothing here blocks, keeps a Go pointer on the C side, or is called back.

/*
#include <stdlib.h>
#include "machnet.h"

// Fails at link time when the archive is not the one this header belongs to.
void (*machnet_abi_witness)(void) = machnet_abi_3;

// What a message needs is called as package leaf does it: a pointer to the arguments, in which the result comes back.
struct leaf_recv { machnet_channel *ch; machnet_conn conn; void *buf; size_t cap; uint32_t flags; machnet_recv_info *info; int64_t result; };
static void leaf_recv(struct leaf_recv *a) { a->result = machnet_recv_some(a->ch, a->conn, a->buf, a->cap, a->flags, a->info); }

struct leaf_send { machnet_channel *ch; machnet_conn conn; const void *buf; size_t len; uint32_t flags; int64_t result; };
static void leaf_send_some(struct leaf_send *a) { a->result = machnet_send_some(a->ch, a->conn, a->buf, a->len, a->flags); }
static void leaf_send(struct leaf_send *a) { a->result = machnet_send(a->ch, a->conn, a->buf, a->len, a->flags); }

struct leaf_sendv { machnet_channel *ch; machnet_conn conn; const machnet_iovec *iov; size_t count, skip; uint32_t flags; int64_t result; };
static void leaf_sendv(struct leaf_sendv *a) { a->result = machnet_sendv(a->ch, a->conn, a->iov, a->count, a->skip, a->flags); }

struct leaf_poll { machnet_channel *ch; machnet_event *events; size_t most; int64_t result; };
static void leaf_poll(struct leaf_poll *a) { a->result = machnet_poll(a->ch, a->events, a->most); }
static void leaf_poll_tx(struct leaf_poll *a) { a->result = machnet_poll_tx(a->ch, a->events, a->most); }
static void leaf_arm(struct leaf_poll *a) { a->result = machnet_arm(a->ch); }
static void leaf_disarm(struct leaf_poll *a) { machnet_disarm(a->ch); }

enum { LEAF_RECV, LEAF_SEND_SOME, LEAF_SEND, LEAF_SENDV, LEAF_POLL, LEAF_POLL_TX, LEAF_ARM, LEAF_DISARM, LEAVES };
static void *const leaves[LEAVES] = { leaf_recv, leaf_send_some, leaf_send, leaf_sendv, leaf_poll, leaf_poll_tx, leaf_arm, leaf_disarm };
static void *leaf(int i) { return leaves[i]; }

#cgo nocallback machnet_drain
#cgo nocallback machnet_abort
#cgo nocallback machnet_finish
#cgo nocallback machnet_close
#cgo nocallback machnet_reset
#cgo nocallback machnet_accepted
*/
import "C"

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/machnet/machnet/go/internal/leaf"
)

// Lack is what this build lacks to reach a sidecar: nothing.
const Lack = ""

// capi is a channel of the C library. It does no locking: one caller per direction at a time, none after detach.
type capi struct {
	ch       *C.machnet_channel
	rx, tx   leaf.Stack // what the calls of a direction run on
	deliver  ringView
	replies  ringView
	complete ringView
	events   *uint32
	eventsTx *uint32
	down     *uint32
	buf      [eventBatch]C.machnet_event // of poll
	bufTx    [eventBatch]C.machnet_event // of pollTx
	event    Event                       // the one that poll tells of; here, since a local one would be garbage
	eventTx  Event                       // likewise of pollTx
	stats    Stats                       // of the event that poll tells of
}

const eventBatch = 32

// The functions that leaf.Stack calls.
var (
	leafRecv, leafSendSome, leafSend, leafSendv = C.leaf(C.LEAF_RECV), C.leaf(C.LEAF_SEND_SOME), C.leaf(C.LEAF_SEND), C.leaf(C.LEAF_SENDV)
	leafPoll, leafPollTx, leafArm, leafDisarm   = C.leaf(C.LEAF_POLL), C.leaf(C.LEAF_POLL_TX), C.leaf(C.LEAF_ARM), C.leaf(C.LEAF_DISARM)
)

// prepare makes what calls of an attached channel run on, until detach.
func (c *capi) prepare() error {
	if err := c.rx.Make(); err != nil {
		return err
	}
	return c.tx.Make()
}

// ringView is where a ring shows, without a call, that it has something.
type ringView struct {
	slots  unsafe.Pointer
	head   *uint32
	mask   uint32
	stride uint32
}

func (r *ringView) ready() bool {
	head := atomic.LoadUint32(r.head)
	return atomic.LoadUint32((*uint32)(unsafe.Add(r.slots, uintptr(head&r.mask)*uintptr(r.stride)))) == head+1
}

func viewOf(v C.machnet_ring_view) ringView {
	return ringView{slots: unsafe.Pointer(v.slots), head: (*uint32)(unsafe.Pointer(v.head)), mask: uint32(v.mask), stride: uint32(v.stride)}
}

// attachBegin starts to attach; finish with attachStep, and give back with detach, also after an error of that.
func (c *capi) attachBegin(o Options) Code {
	options := C.machnet_options{engine: C.int32_t(o.Engine - 1), group: C.uint32_t(o.Group)}
	if o.Engine <= 0 {
		options.engine = C.MACHNET_ANY_ENGINE
	}
	if o.UseFD {
		fd, err := dupCloexec(o.FD)
		if err != nil {
			return Invalid
		}
		return Code(C.machnet_attach_fd(C.int(fd), &options, &c.ch))
	}
	path := C.CString(o.Socket)
	defer C.free(unsafe.Pointer(path))
	return Code(C.machnet_attach_begin(path, &options, &c.ch))
}

func (c *capi) attachStep() Code {
	code := Code(C.machnet_attach_step(c.ch))
	if code != OK {
		return code
	}
	var v C.machnet_wait_view_t
	if code := Code(C.machnet_wait_view(c.ch, &v)); code != OK {
		return code
	}
	c.deliver, c.replies, c.complete = viewOf(v.deliver), viewOf(v.replies), viewOf(v.complete)
	c.events, c.eventsTx = (*uint32)(unsafe.Pointer(v.events)), (*uint32)(unsafe.Pointer(v.events_tx))
	c.down = (*uint32)(unsafe.Pointer(v.down))
	return OK
}

// errorText is the sentence about the last error.
func (c *capi) errorText() string {
	if c.ch == nil {
		return ""
	}
	var text [C.MACHNET_ERROR_TEXT_MAX]C.char
	n := C.machnet_error_text(c.ch, &text[0], C.MACHNET_ERROR_TEXT_MAX)
	return C.GoStringN(&text[0], C.int(n))
}

func codeText(code Code) string {
	return C.GoString(C.machnet_strerror(C.int(code)))
}

func failureText(e *Event) string {
	event := C.machnet_event{kind: C.uint32_t(e.Kind), code: C.int32_t(e.Code), limit: C.uint32_t(e.Limit)}
	var text [C.MACHNET_ERROR_TEXT_MAX]C.char
	n := C.machnet_event_text(&event, &text[0], C.MACHNET_ERROR_TEXT_MAX)
	return C.GoStringN(&text[0], C.int(n))
}

func (c *capi) socket() int   { return int(C.machnet_socket(c.ch)) }
func (c *capi) doorbell() int { return int(C.machnet_doorbell(c.ch)) }

func (c *capi) info() Info {
	var i C.machnet_info_t
	C.machnet_info(c.ch, &i)
	return Info{
		IP: uint32(i.ip), Engine: uint32(i.engine), MTU: uint32(i.mtu), UnitSize: uint32(i.unit_size), Units: uint32(i.units),
		UnitsPerConn: uint32(i.units_per_conn), Conns: uint32(i.conns), Channel: uint32(i.channel_version), ABI: uint32(i.abi),
	}
}

func (c *capi) detach() {
	C.machnet_detach(c.ch)
	c.ch = nil
	c.rx.Free()
	c.tx.Free()
}

// ready: anything for rx calls.
func (c *capi) ready() bool {
	return c.deliver.ready() || c.replies.ready() || atomic.LoadUint32(c.events) != 0 || atomic.LoadUint32(c.down) != 0
}

// readyTx: anything for pollTx.
func (c *capi) readyTx() bool {
	return c.complete.ready() || atomic.LoadUint32(c.eventsTx) != 0
}

// hasEvents: poll would give events that have already left the rings.
func (c *capi) hasEvents() bool   { return atomic.LoadUint32(c.events) != 0 }
func (c *capi) hasEventsTx() bool { return atomic.LoadUint32(c.eventsTx) != 0 }

func eventOf(e *C.machnet_event) Event {
	return Event{
		Kind: EventKind(e.kind), Code: Code(e.code), Conn: uint64(e.conn), ID: uint32(e.id),
		LocalIP: uint32(e.local_ip), RemoteIP: uint32(e.remote_ip), LocalPort: uint16(e.local_port), RemotePort: uint16(e.remote_port),
		Limit: uint32(e.limit),
	}
}

// poll empties the rings of the receive direction. A negative result is a code.
func (c *capi) poll(each func(*Event)) Code {
	for {
		a := C.struct_leaf_poll{ch: c.ch, events: &c.buf[0], most: eventBatch}
		c.rx.Call(leafPoll, unsafe.Pointer(&a))
		n := int(a.result)
		if n < 0 {
			return Code(n)
		}
		for i := range n {
			c.event = eventOf(&c.buf[i])
			if c.event.Kind == EvStats {
				c.takeStats(&c.event)
			}
			each(&c.event)
		}
		if n < eventBatch {
			return OK
		}
	}
}

// pollTx takes returned tokens.
func (c *capi) pollTx(each func(*Event)) Code {
	for {
		a := C.struct_leaf_poll{ch: c.ch, events: &c.bufTx[0], most: eventBatch}
		c.tx.Call(leafPollTx, unsafe.Pointer(&a))
		n := int(a.result)
		if n < 0 {
			return Code(n)
		}
		for i := range n {
			c.eventTx = eventOf(&c.bufTx[i])
			each(&c.eventTx)
		}
		if n < eventBatch {
			return OK
		}
	}
}

func (c *capi) arm() bool {
	a := C.struct_leaf_poll{ch: c.ch}
	c.rx.Call(leafArm, unsafe.Pointer(&a))
	return a.result == 1
}

func (c *capi) disarm() {
	a := C.struct_leaf_poll{ch: c.ch}
	c.rx.Call(leafDisarm, unsafe.Pointer(&a))
}

func (c *capi) drain() Code { return Code(C.machnet_drain(c.ch)) }

func count(n C.int64_t) (int, Code) {
	if n < 0 {
		return 0, Code(n)
	}
	return int(n), OK
}

func (c *capi) recv(conn uint64, p []byte, mode RecvMode, info *RecvInfo) (int, Code) {
	var i C.machnet_recv_info
	a := C.struct_leaf_recv{ch: c.ch, conn: C.machnet_conn(conn), buf: bytesAt(p), cap: C.size_t(len(p)), flags: C.uint32_t(mode), info: &i}
	c.rx.Call(leafRecv, unsafe.Pointer(&a))
	runtime.KeepAlive(p)
	info.Length, info.Offset, info.Flags = uint32(i.message_len), uint32(i.offset), uint32(i.flags)
	return count(a.result)
}

// sendSome sends p as one message, or as the rest of one; it may take a part.
func (c *capi) sendSome(conn uint64, p []byte, mode SendMode) (int, Code) {
	return c.send(leafSendSome, conn, p, C.uint32_t(mode))
}

// trySend sends p as one message, or nothing of it.
func (c *capi) trySend(conn uint64, p []byte) Code {
	_, code := c.send(leafSend, conn, p, C.MACHNET_DONTWAIT)
	return code
}

func (c *capi) send(fn unsafe.Pointer, conn uint64, p []byte, flags C.uint32_t) (int, Code) {
	a := C.struct_leaf_send{ch: c.ch, conn: C.machnet_conn(conn), buf: bytesAt(p), len: C.size_t(len(p)), flags: flags}
	c.tx.Call(fn, unsafe.Pointer(&a))
	runtime.KeepAlive(p)
	return count(a.result)
}

// bytesAt is where p is for C, nil if it is empty.
func bytesAt(p []byte) unsafe.Pointer {
	if len(p) == 0 {
		return nil
	}
	return unsafe.Pointer(unsafe.SliceData(p))
}

// sendParts sends the parts as one message, from the byte skip on.
func (c *capi) sendParts(conn uint64, parts [][]byte, skip int) (int, Code) {
	var few [8]C.machnet_iovec
	iov := few[:0]
	var pinner runtime.Pinner
	defer pinner.Unpin()
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		base := unsafe.SliceData(p)
		pinner.Pin(base) // C may see a Go pointer inside Go memory only while that is pinned
		iov = append(iov, C.machnet_iovec{base: (*C.uint8_t)(base), len: C.size_t(len(p))})
	}
	var flags C.uint32_t
	if skip > 0 {
		flags = C.MACHNET_SEND_CONTINUE
	}
	a := C.struct_leaf_sendv{ch: c.ch, conn: C.machnet_conn(conn), iov: unsafe.SliceData(iov), count: C.size_t(len(iov)), skip: C.size_t(skip), flags: flags}
	c.tx.Call(leafSendv, unsafe.Pointer(&a))
	runtime.KeepAlive(iov)
	return count(a.result)
}

func (c *capi) abort(conn uint64) Code  { return Code(C.machnet_abort(c.ch, C.machnet_conn(conn))) }
func (c *capi) finish(conn uint64) Code { return Code(C.machnet_finish(c.ch, C.machnet_conn(conn))) }
func (c *capi) close(conn uint64) Code  { return Code(C.machnet_close(c.ch, C.machnet_conn(conn))) }
func (c *capi) reset(conn uint64) Code  { return Code(C.machnet_reset(c.ch, C.machnet_conn(conn))) }

func (c *capi) unacked(conn uint64) (int, Code) {
	return count(C.machnet_unacked(c.ch, C.machnet_conn(conn)))
}

func (c *capi) keepAlive(conn uint64, afterMS uint32) Code {
	return Code(C.machnet_keepalive(c.ch, C.machnet_conn(conn), C.uint32_t(afterMS)))
}

func (c *capi) askStats(conn uint64) (uint32, Code) {
	var id C.uint32_t
	code := C.machnet_stats_begin(c.ch, C.machnet_conn(conn), &id)
	return uint32(id), Code(code)
}

// takeStats gives an EvStats its answer.
func (c *capi) takeStats(e *Event) {
	var s C.machnet_stats_t
	if e.Code == OK {
		e.Code = Code(C.machnet_stats_take(c.ch, C.uint32_t(e.ID), &s))
	}
	if e.Code != OK {
		return
	}
	c.stats = Stats{
		SRTT: time.Duration(s.srtt_ns), RTTVar: time.Duration(s.rtt_var_ns),
		BytesSent: uint64(s.bytes_sent), BytesReceived: uint64(s.bytes_received),
		UnitsSent: uint64(s.units_sent), UnitsReceived: uint64(s.units_received),
		Retransmitted: uint64(s.retransmitted), Timeouts: uint32(s.timeouts),
		Window: uint32(s.window), InFlight: uint32(s.in_flight), Queued: uint32(s.queued),
		Credit: uint32(s.credit), Granted: uint32(s.granted), Engine: uint16(s.engine),
		UDPSource: uint16(s.udp_source), UDPDestination: uint16(s.udp_destination),
		PeerUDPSource: uint16(s.peer_udp_source), PeerUDPDestination: uint16(s.peer_udp_destination),
		Stage: Stage(s.stage), Waits: Waits(s.waits), Pairing: Pairing(s.pairing), Reason: Code(s.reason),
	}
	e.Stats = &c.stats
}

func (c *capi) listen(ip uint32, port uint16, backlog int, sharing Sharing) (uint32, Code) {
	var id C.uint32_t
	code := C.machnet_listen_begin(c.ch, C.uint32_t(ip), C.uint16_t(port), C.uint32_t(backlog), C.uint32_t(sharing), &id)
	return uint32(id), Code(code)
}

func (c *capi) unlisten(id uint32) Code { return Code(C.machnet_unlisten(c.ch, C.uint32_t(id))) }

func (c *capi) accepted(conn uint64) Code {
	return Code(C.machnet_accepted(c.ch, C.machnet_conn(conn)))
}

func (c *capi) dial(ip uint32, port, localPort uint16, timeoutMS uint32) (uint32, Code) {
	var id C.uint32_t
	request := C.machnet_dial_t{ip: C.uint32_t(ip), port: C.uint16_t(port), local_port: C.uint16_t(localPort), timeout_ms: C.uint32_t(timeoutMS)}
	code := C.machnet_dial_begin(c.ch, &request, &id)
	return uint32(id), Code(code)
}

func (c *capi) cancelDial(id uint32) Code { return Code(C.machnet_dial_cancel(c.ch, C.uint32_t(id))) }
