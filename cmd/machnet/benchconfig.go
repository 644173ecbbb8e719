package main

import (
	"slices"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/netns"
)

// benchConfig is a benchmark as asked for.
type benchConfig struct {
	link       string
	kernel     string   // the link of the kernel's transports
	backends   []string // of the sidecars, with --link veth
	transports []string
	sizes      []int
	conns      []int // of one client process
	inflights  []int // messages on each connection
	buffered   bool  // rows with several in flight come a second time, buffered
	rounds     int
	duration   time.Duration // of one round of one arm
	rate       float64
	throughput bool    // for the table and its preset; the rows hold the same
	loss       float64 // percent of the frames that the link drops
	local      string  // socket of a running sidecar; "" starts our own
	remote     string  // host:port of `machnet echo` behind another sidecar
	remoteIP   string  // host:port of `machnet echo` over the kernel's TCP and UDP
	verbose    bool
}

// Links join the two hosts of a benchmark.
const (
	linkMemif = "memif"
	linkLocal = "local" // none: both applications use one sidecar
	linkVeth  = "veth"
)

// What joins the hosts for the kernel's transports.
const (
	kernelLoopback = "loopback"
	kernelVeth     = "veth"
	kernelFrames   = "frames" // veth, without segmentation offload
)

// check refuses what cannot be measured. What was not given is the default, and --kernel still empty, so that an error names what the
// user gave; hence those about the link come first.
func (c *benchConfig) check(linkGiven bool) error {
	udp := c.has("udp")
	if err := checkRounds(c.rounds, c.duration); err != nil {
		return err
	}
	switch {
	case c.link != linkMemif && c.link != linkLocal && c.link != linkVeth:
		return usagef("--link %q: use memif, local or veth", c.link)
	case c.kernel != "" && c.kernel != kernelLoopback && c.kernel != kernelVeth && c.kernel != kernelFrames:
		return usagef("--kernel %q: use loopback, veth or frames", c.kernel)
	case (c.local == "") != (c.remote == ""):
		return usagef("--local and --remote go together: a running sidecar's socket, and the echo to reach through it")
	case linkGiven && c.local != "":
		return usagef("--link %s starts sidecars of its own; leave --local and --remote out", c.link)
	case !(c.loss >= 0 && c.loss <= 50) || c.loss > 0 && c.loss < 100*netns.LeastLoss:
		return usagef("--loss %v: percent of the frames, 0 to 50; the least above 0 is %v", c.loss, 100*netns.LeastLoss)
	case c.loss > 0 && c.link != linkVeth:
		return usagef("--loss %v: only with --link veth, where the kernel can drop frames of every transport alike", c.loss)
	case c.loss > 0 && udp:
		return usagef("--loss %v with udp: nothing sends a lost datagram again, so the client's wait of a second would be measured; use machnet and tcp", c.loss)
	case c.link != linkVeth && c.backends != nil:
		return usagef("--backend %s: only with --link veth, whose devices can be reached in several ways", strings.Join(c.backends, ","))
	case c.backends != nil && !c.has("machnet"):
		return usagef("--backend %s is how the sidecars reach their devices; use it with machnet in --transport", strings.Join(c.backends, ","))
	case c.kernel != "" && c.local != "":
		return usagef("--kernel %s: with --local the kernel's link is whatever leads to --remote-kernel; leave --kernel out", c.kernel)
	case (c.kernel == kernelVeth || c.kernel == kernelFrames) && c.link == linkLocal:
		return usagef("--kernel %s: only with --link memif or veth, which make two hosts", c.kernel)
	case c.kernel == kernelLoopback && c.link == linkVeth:
		return usagef("--kernel loopback: the hosts of --link veth are two network namespaces; use veth or frames")
	case c.kernel == kernelVeth && c.loss > 0:
		return usagef("--kernel veth: --loss would drop 64 KiB of TCP at once; use frames")
	case c.remoteIP != "" && (c.remote == "" || !c.has("tcp") && !udp):
		return usagef("--remote-kernel is measured beside --local and --remote, with tcp or udp in --transport")
	case c.local != "" && c.remoteIP == "" && !c.has("machnet"):
		return usagef("--transport %s: through --local goes machnet; tcp and udp need --remote-kernel", strings.Join(c.transports, ","))
	case !(c.rate == 0 || c.rate >= 1 && c.rate <= 10e6):
		return usagef("--rate %v: 1 to 10000000 messages a second, or 0 for a closed loop", c.rate)
	case c.rate > 0 && c.throughput:
		return usagef("--rate with --throughput: an open loop has the throughput of its rate; use one of them")
	case c.mostConns() > 1 && udp:
		return usagef("--connections %d with udp: what finds the server's one socket full is lost; use machnet and tcp", c.mostConns())
	case c.mostConns() > 1 && c.rate > 0:
		return usagef("--connections %d with --rate: an open loop has one connection; leave one of them out", c.mostConns())
	case c.rate > 0 && udp:
		return usagef("--rate with udp: a lost datagram has no latency; use machnet and tcp")
	case udp && slices.Min(c.sizes) > largestDatagram:
		return usagef("--size %d with udp: a datagram holds at most %d bytes; use a smaller size too, or machnet and tcp", slices.Min(c.sizes), largestDatagram)
	}
	return nil
}

// readBackends reads the flag's list, each of which may be there once.
func readBackends(list string) ([]string, error) {
	names := strings.Split(list, ",")
	for i, name := range names {
		if name != backendPacket && name != backendXDP || slices.Contains(names[:i], name) {
			return nil, usagef("--backend %q: use %s, %s or both with a comma between", list, backendPacket, backendXDP)
		}
	}
	return names, nil
}

// cases lists what every arm runs, a row of the table each.
func (c benchConfig) cases() []driveOrder {
	var cases []driveOrder
	inflights := c.inflights
	if c.rate > 0 {
		inflights = []int{1} // an open loop has as many in flight as are due
	}
	for _, conns := range c.conns {
		for _, inflight := range inflights {
			for _, size := range c.sizes {
				p := load.Params{Size: size, Inflight: inflight, Rate: c.rate, Warmup: c.duration / 10, Duration: c.duration}
				cases = append(cases, driveOrder{Params: p, Connections: conns})
				if inflight > 1 && c.buffered && c.rate == 0 {
					p.Buffered = true
					cases = append(cases, driveOrder{Params: p, Connections: conns})
				}
			}
		}
	}
	return cases
}

func (c benchConfig) mostConns() int { return slices.Max(c.conns) }

// buffer is what a server of streams reads at a time.
func (c benchConfig) buffer() int {
	return load.BufferSize(slices.Max(c.sizes), slices.Max(c.inflights), c.mostConns())
}

// mostBenchConnections is how many connections a client may have: below TCP's 28 000 ports from one address to one server.
const mostBenchConnections = 20000

// largestDatagram is the largest message measured over UDP, in bytes: a datagram holds less than 64 KiB.
const largestDatagram = 60 << 10

func (c benchConfig) has(transport string) bool {
	return slices.Contains(c.transports, transport)
}
