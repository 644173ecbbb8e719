package control

// Counters are counters and gauges by name: those of docs/metrics.md, without the prefix and the suffix that Prometheus wants. nil is a
// count that the driver of this NIC does not keep.
type Counters map[string]*uint64

// Get returns a counter's value, and whether it is counted here.
func (c Counters) Get(name string) (value uint64, counted bool) {
	if n := c[name]; n != nil {
		return *n, true
	}
	return 0, false
}

// Statistics are what the sidecar counts.
type Statistics struct {
	Machnetd string   `json:"machnetd"` // its version
	PID      int      `json:"pid"`
	Uptime   uint64   `json:"uptime_s"` // seconds
	IP       string   `json:"ip"`
	Engines  []Engine `json:"engines"`
	Port     Port     `json:"port"`
}

// About is who a sidecar is: its settings in force, and its NIC as it was opened.
type About struct {
	Machnetd string   `json:"machnetd"` // its version
	PID      int      `json:"pid"`
	DPDK     string   `json:"dpdk"`    // such as "DPDK 24.11.8"
	Channel  int      `json:"channel"` // the version of the channel, which applications must have, too
	Settings Settings `json:"settings"`
	NIC      NIC      `json:"nic"`
}

// Settings are those of docs/configuration.md, as they are in force.
type Settings struct {
	IP              string    `json:"ip"`
	Prefix          int       `json:"prefix"`  // bits of the subnet
	Gateway         *string   `json:"gateway"` // nil: none
	NIC             [2]string `json:"nic"`     // the key that chooses it, such as "pci", and the value
	MTU             int       `json:"mtu"`
	Descriptors     int       `json:"descriptors"`
	ChecksumOffload bool      `json:"checksum_offload"`
	Engines         int       `json:"engines"`
	Cores           []int     `json:"cores"` // one per engine, or empty
	Idle            string    `json:"idle"`
	Exclusive       bool      `json:"exclusive"`
	UDPPorts        [2]int    `json:"udp_ports"` // first and last
	Reverse         string    `json:"reverse"`
	Hugepages       bool      `json:"hugepages"`
	MemoryMiB       int       `json:"memory_mib"`
	Socket          string    `json:"socket"`
}

// NIC is what a sidecar's NIC is and can do.
type NIC struct {
	Driver      string `json:"driver"`
	MAC         string `json:"mac"`
	MTU         int    `json:"mtu"`
	Queues      int    `json:"queues"`
	Descriptors int    `json:"descriptors"` // of a receive ring
	TxChecksum  bool   `json:"tx_checksum"` // it computes those of what is sent
	RxChecksum  bool   `json:"rx_checksum"` // it verifies those of what is received
	Interrupts  bool   `json:"interrupts"`  // it can wake an engine that sleeps
}

// Engine is what one engine counts. Names that begin with flow_ are sums over its connections.
type Engine struct {
	Engine   int      `json:"engine"`
	Counters Counters `json:"counters"`
	Queue    Counters `json:"queue"` // of its queue pair of the NIC
}

// Port is what the NIC counts.
type Port struct {
	Driver   string   `json:"driver"`
	State    string   `json:"state"` // "up", "link-down", "resetting": it is being started again, or "gone": the device was taken away
	Counters Counters `json:"counters"`
}

// HealthState is how the sidecar is.
type HealthState struct {
	Healthy bool           `json:"healthy"` // no engine is stalled
	Engines []EngineHealth `json:"engines"`
	NIC     NICHealth      `json:"nic"`
}

// EngineHealth is how one engine is.
type EngineHealth struct {
	Engine int    `json:"engine"`
	State  string `json:"state"`   // "running", "asleep" until there is something to do, or "stalled"
	Late   uint64 `json:"late_ns"` // of a stalled one: since when its loop should have moved
}

// NICHealth is how the NIC is.
type NICHealth struct {
	Driver string `json:"driver"`
	State  string `json:"state"` // "up", "link-down", "resetting" or "gone"
}

// Channel is one attachment of an application.
type Channel struct {
	Channel     uint64 `json:"channel"`
	Engine      int    `json:"engine"`
	Application uint64 `json:"application"` // the same for all channels of one application, and for no other while the sidecar runs
	PID         int    `json:"pid"`
	UID         uint32 `json:"uid"`
	State       string `json:"state"` // "attached", or "draining": its application has left, and what it sent is being delivered
	Connections int    `json:"connections"`
	Listeners   int    `json:"listeners"`
	Units       Units  `json:"units"`
}

// Listener is one row of the listeners.
type Listener struct {
	Port      int    `json:"port"`
	Channel   uint64 `json:"channel"`
	Engine    int    `json:"engine"`
	PID       int    `json:"pid"`
	UID       uint32 `json:"uid"`
	ReusePort bool   `json:"reuse_port"` // other listeners of this user may have the port, too
	Group     bool   `json:"group"`      // other listeners of this application may, on its other channels
	Backlog   int    `json:"backlog"`    // connections that may wait at a time
	Waiting   int    `json:"waiting"`    // connections that the application has not taken
}

// Units are packets of a channel's memory.
type Units struct {
	Total     int `json:"total"`     // in each direction
	Submitted int `json:"submitted"` // sent by the application and not yet acknowledged
	Delivered int `json:"delivered"` // received and not yet given back by the application
	Reserved  int `json:"reserved"`  // promised to peers that may send
}

// Connection is one row of the connections.
type Connection struct {
	Engine     int     `json:"engine"`
	Connection string  `json:"connection"` // names it in a question to this engine
	Channel    *uint64 `json:"channel"`    // nil: its application has left
	Local      string  `json:"local"`      // IP:port
	Peer       string  `json:"peer"`       // IP:port
	State      string  `json:"state"`      // "opening", "open" or "closing"
	Origin     string  `json:"origin"`     // "dialled" or "accepted"
	Queued     uint64  `json:"queued"`     // units submitted and not yet acknowledged
	InFlight   uint64  `json:"in_flight"`  // of these, sent
	RTT        *uint64 `json:"rtt_ns"`     // smoothed; nil: nothing was measured yet
}

// State is all that an engine knows of one connection.
type State struct {
	Connection
	Window      uint64   `json:"window"`         // units that congestion control lets be in flight
	UnitSize    int      `json:"unit_size"`      // most payload of a packet, bytes
	Credit      uint64   `json:"credit"`         // units that the peer has room for beyond those sent
	Promised    uint64   `json:"promised"`       // units that the peer was promised room for
	Waits       *string  `json:"waits"`          // what the peer waits for before it may send: "reader", "units" or "receive ring"; nil: nothing
	Timeout     uint64   `json:"timeout_ns"`     // after so long without an acknowledgement, what is in flight is sent again
	NextHop     *string  `json:"next_hop"`       // IP; nil: the peer is on this host, or there is none yet
	NextHopMAC  *string  `json:"next_hop_mac"`   // nil: not known, or the peer is on this host
	LocalPort   int      `json:"local_udp_port"` // of the packets to the peer
	PeerPort    int      `json:"peer_udp_port"`  // likewise
	Pair        *string  `json:"pair"`           // whether these lead to the peer's right queue: "verified", "searching", "unverified" or "given up"; nil: the peer is on this host
	PeerQueue   *int     `json:"peer_queue"`     // the receive queue on which the peer wants our packets; nil: it has not said yet
	Misdirected uint64   `json:"misdirected"`    // packets of the peer that came on another queue than ours
	Counters    Counters `json:"counters"`
}

// Peer is another host, or this one where it is connected to itself.
type Peer struct {
	IP          string  `json:"ip"`
	NextHop     *string `json:"next_hop"` // IP of the host on the link that packets for it go to: itself, or the gateway; nil: none, or this host
	MAC         *string `json:"mac"`      // of the next hop
	State       string  `json:"state"`    // of the next hop: "fixed", "known", "asking", "unreachable" or "unknown"; or "local"
	Connections int     `json:"connections"`
	Heard       *uint64 `json:"heard_ns_ago"` // nil: nothing was heard from it yet
}
