package core

import "time"

// Code is what the C API returns: 0 or one of the negative MACHNET_E* codes of machnet.h.
type Code int32

// The codes of machnet.h; a test compares the numbers.
const (
	OK           Code = 0
	Again        Code = -1
	Closed       Code = -2
	Refused      Code = -3
	TimedOut     Code = -4
	Reset        Code = -5
	InUse        Code = -6
	NetDown      Code = -7
	TooBig       Code = -8
	Version      Code = -9
	NoSidecar    Code = -10
	NotPermitted Code = -11
	Invalid      Code = -12
	Busy         Code = -13
	NoBuffers    Code = -14
	Aborted      Code = -15
	EOF          Code = -16
	MsgSize      Code = -17
	Unreachable  Code = -18
	Canceled     Code = -19
	BadAddr      Code = -20
	Protocol     Code = -21
	Finished     Code = -22
	NotAttached  Code = -23
	System       Code = -24
	Interrupted  Code = -25
	Forked       Code = -26

	FullConns      Code = -30
	FullEngine     Code = -31
	FullListeners  Code = -32
	FullPorts      Code = -33
	PeerFullConns  Code = -34
	PeerFullEngine Code = -35
	Ending         Code = -36
	PeerEnding     Code = -37

	// Unsupported is this package's own: built without cgo, or for another system.
	Unsupported Code = -1000
)

// EventKind is a MACHNET_EVENT_* of machnet.h.
type EventKind uint32

// The events of machnet.h.
const (
	EvListening     EventKind = 1
	EvListenFailed  EventKind = 2
	EvUnlistened    EventKind = 3
	EvConnected     EventKind = 4
	EvConnectFailed EventKind = 5
	EvAccepted      EventKind = 6
	EvReadable      EventKind = 7
	EvWritable      EventKind = 8
	EvClosed        EventKind = 9
	EvStats         EventKind = 10
)

// Event is one machnet_event.
type Event struct {
	Kind       EventKind
	Code       Code
	Conn       uint64
	ID         uint32
	LocalIP    uint32
	RemoteIP   uint32
	LocalPort  uint16
	RemotePort uint16
	Limit      uint32 // of EvConnectFailed and EvListenFailed: how many there may be of what is full
	Stats      *Stats // of EvStats with Code OK; valid until the handler returns
}

// Stats is machnet_stats_t: what the sidecar knows of a connection, or knew when that ended.
type Stats struct {
	SRTT, RTTVar                      time.Duration // 0: no sample yet
	BytesSent, BytesReceived          uint64        // payload, those sent again not counted
	UnitsSent, UnitsReceived          uint64        // those sent again not counted
	Retransmitted                     uint64        // units sent again
	Timeouts                          uint32        // retransmission timeouts
	Window                            uint32        // congestion window, units
	InFlight                          uint32        // units sent and not acknowledged
	Queued                            uint32        // units not acknowledged, sent or not
	Credit                            uint32        // units that the peer has room for beyond those sent
	Granted                           uint32        // units that the peer was promised room for
	Engine                            uint16        // from 0
	UDPSource, UDPDestination         uint16        // of our direction; 0 for a peer on this host
	PeerUDPSource, PeerUDPDestination uint16        // of the peer's direction, as last seen; 0: not known
	Stage                             Stage
	Waits                             Waits
	Pairing                           Pairing
	Reason                            Code // by which it ended; OK while it has not, and after a clean end
}

// Stage is how far a connection is.
type Stage uint8

// The MACHNET_STAGE_* of machnet.h.
const (
	StageOpening Stage = 0
	StageOpen    Stage = 1
	StageClosing Stage = 2 // this end has finished sending
	StageOver    Stage = 3
)

// Waits is why what is queued of a connection does not go now.
type Waits uint8

// The MACHNET_WAITS_* of machnet.h.
const (
	WaitsNot     Waits = 0
	WaitsWindow  Waits = 1 // for acknowledgements
	WaitsCredit  Waits = 2 // for the peer to promise room
	WaitsPacing  Waits = 3
	WaitsNextHop Waits = 4 // for the next hop's address
	WaitsTurn    Waits = 5 // for the NIC, or other connections
)

// Pairing is whether the UDP ports of a connection lead to the queue that its peer wants.
type Pairing uint8

// The MACHNET_PAIRING_* of machnet.h.
const (
	PairingNone       Pairing = 0 // the peer is on this host
	PairingVerified   Pairing = 1
	PairingSearching  Pairing = 2
	PairingUnverified Pairing = 3
	PairingGivenUp    Pairing = 4
)

// Sharing says with whom a listener shares its port.
type Sharing uint32

// The flags of machnet_listen_begin.
const (
	ReusePort Sharing = 512  // with listeners of this user that say so, too
	Group     Sharing = 1024 // with those of this application that say so, too
)

// The special periods of machnet_keepalive.
const (
	KeepAliveDefault uint32 = 1<<32 - 1
	KeepAliveNever   uint32 = 0
)

// RecvMode is how a receive treats the ends of messages.
type RecvMode uint32

const (
	// Stream gives bytes as they come.
	Stream RecvMode = 0
	// Message begins only a message that fits the buffer, else MsgSize.
	Message RecvMode = 1
	// One gives bytes of the current message only.
	One RecvMode = 2
)

// SendMode is how a send takes up a message.
type SendMode uint32

const (
	// Start begins a message, whatever there is room for.
	Start SendMode = 0
	// Continue goes on with the message that an earlier send began.
	Continue SendMode = 1
	// Whole begins a message only when all of it can go, unless other connections hold so much that this may never be.
	Whole SendMode = 2
)

// RecvInfo is machnet_recv_info.
type RecvInfo struct {
	Length uint32 // of the whole message that the last byte belongs to, or that was refused
	Offset uint32 // bytes of that message read before this call
	Flags  uint32 // Begin, End, More
}

// The flags of a RecvInfo.
const (
	Begin uint32 = 1
	End   uint32 = 2
	More  uint32 = 4
)

// Info is machnet_info_t.
type Info struct {
	IP           uint32
	Engine       uint32
	MTU          uint32
	UnitSize     uint32
	Units        uint32
	UnitsPerConn uint32
	Conns        uint32
	Channel      uint32 // version of the channel spoken
	ABI          uint32
}

// Options say where and how to attach.
type Options struct {
	Socket string // path of the control socket
	FD     int    // with UseFD, a connected SOCK_SEQPACKET socket, of which a copy is made
	UseFD  bool
	Engine int    // from 1; 0 is any
	Group  uint32 // what all channels of one application say; 0: this channel is an application of its own
}
