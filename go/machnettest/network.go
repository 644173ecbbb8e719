package machnettest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Options says what a network is like. The zero Options is two hosts of one engine each, 10 us apart, without faults.
//
// Probabilities are per packet, 0 to 1, and hold for every link; SetLink changes those of single links.
type Options struct {
	// Hosts is how many there are at first, 1 to 254; 0 means 2. The first is 10.0.0.1, the next 10.0.0.2, and so on.
	Hosts int
	// Engines is how many engines, each with a queue of the NIC, a host has, 1 to 128; 0 means 1.
	Engines int
	// Conns is how many connections a channel between a program and its host holds, 1 to 65536; 0 means 256, as in machnetd. Few
	// of them have a program attach more channels early.
	Conns int

	// Loss, Duplication, Reorder and Corruption are how likely it is that a packet is lost, comes twice, is overtaken by
	// later ones, or comes with a byte that is damaged.
	Loss, Duplication, Reorder, Corruption float64
	// Delay is the time from one host to another; 0 means 10 us. Each packet takes up to Jitter longer.
	Delay, Jitter time.Duration
	// Rate is what a link carries, in bits per second; 0 means no limit.
	Rate uint64

	// Seed decides which packets suffer. 0 means what $MACHNETTEST_SEED says, or else one drawn by chance. A test that fails prints it.
	Seed uint64
}

// Link says how a link treats packets; its fields are as in Options. The zero Link takes 10 us and is faultless.
type Link struct {
	Loss, Duplication, Reorder, Corruption float64
	Delay, Jitter                          time.Duration
	Rate                                   uint64
}

// HostOptions says what a host is like that is added to a network. The zero HostOptions is one as NewNetwork makes them.
type HostOptions struct {
	// Addr is an IPv4 address that no other host has; the zero Addr means the next one, 10.0.0.N for the N-th host.
	Addr netip.Addr
	// Engines and Conns are as in Options; 0 means what the network's Options say.
	Engines, Conns int
	// MTU is the largest IP packet in bytes, 1 to 65535 as far as it leaves a packet 1 to 9216 bytes to carry; 0 means 1500.
	MTU int
}

// Network is hosts in this process, and the links between them, in real time: one thread runs them all, which sleeps when nothing
// happens. It may be used by many goroutines at once.
type Network struct {
	t    testing.TB
	opts Options

	life  sync.RWMutex // close takes the write lock, so that nothing vanishes under a call
	world world
	over  bool

	mu    sync.Mutex // of what follows; may be held while life is taken
	hosts []*Host
	links map[way]Link
	cut   map[way]bool
}

// way is one direction between two hosts, by their numbers.
type way struct{ from, to int }

// ErrClosed is why attaching fails, and why stacks end, once a network is closed. It wraps net.ErrClosed.
var ErrClosed = fmt.Errorf("machnettest: the network is closed: %w", net.ErrClosed)

// NewNetwork makes hosts and the network between them. It is closed when the test ends; if the test has failed then, the seed and the last packets with
// their fates are printed. Where the options are out of bounds, or this package cannot work because there is no cgo or the system is none
// that Machnet knows (see machnet.ErrUnsupported), the test fails at once.
//
// Cleanups run in the reverse order of their registration: what a test registers after this call, such as the end of its servers, comes
// before the network's. A check for leaked goroutines has to be registered before.
func NewNetwork(t testing.TB, o Options) *Network {
	t.Helper()
	if o.Hosts == 0 {
		o.Hosts = 2
	}
	if o.Engines == 0 {
		o.Engines = 1
	}
	link, err := o.link().checked()
	switch {
	case err != nil:
		t.Fatalf("machnettest: a network whose links have %v", err)
	case o.Hosts < 1 || o.Hosts > mostHosts:
		t.Fatalf("machnettest: a network of %d hosts: it has 1 to %d", o.Hosts, mostHosts)
	}
	if o.Seed, err = seed(o.Seed); err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(o.Seed, link)
	if err != nil {
		t.Fatalf("machnettest: make a network: %v", err)
	}
	n := &Network{t: t, opts: o, world: w, links: make(map[way]Link), cut: make(map[way]bool)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("machnettest: the seed is %d; $MACHNETTEST_SEED or Options.Seed give it again. The last packets:\n%s", o.Seed, n.Trace())
		}
		n.Close()
	})
	for range o.Hosts {
		n.AddHost(HostOptions{})
	}
	return n
}

// mostHosts is how many MAC addresses of the simulated NICs there are.
const mostHosts = 254

// seed is the one that counts.
func seed(asked uint64) (uint64, error) {
	text := os.Getenv(seedVariable)
	if asked != 0 || text == "" {
		for asked == 0 {
			asked = rand.Uint64()
		}
		return asked, nil
	}
	given, err := strconv.ParseUint(text, 10, 64)
	if err != nil || given == 0 {
		return 0, fmt.Errorf("machnettest: $%s is %q; it is a number from 1 to %d, or empty for one by chance", seedVariable, text, uint64(1<<64-1))
	}
	return given, nil
}

const seedVariable = "MACHNETTEST_SEED"

func (o Options) link() Link {
	return Link{
		Loss: o.Loss, Duplication: o.Duplication, Reorder: o.Reorder, Corruption: o.Corruption,
		Delay: o.Delay, Jitter: o.Jitter, Rate: o.Rate,
	}
}

// checked is the link with its defaults, or what is out of bounds.
func (l Link) checked() (Link, error) {
	for name, p := range map[string]float64{"Loss": l.Loss, "Duplication": l.Duplication, "Reorder": l.Reorder, "Corruption": l.Corruption} {
		if !(p >= 0 && p <= 1) { // so that NaN is none
			return l, fmt.Errorf("%s %v, which is a probability, 0 to 1", name, p)
		}
	}
	if l.Delay < 0 || l.Jitter < 0 || l.Delay > longestDelay || l.Jitter > longestDelay {
		return l, fmt.Errorf("the Delay %v and the Jitter %v: each is 0 to %v", l.Delay, l.Jitter, longestDelay)
	}
	if l.Delay == 0 {
		l.Delay = usualDelay
	}
	return l, nil
}

const (
	usualDelay   = 10 * time.Microsecond
	longestDelay = time.Hour
)

// Host is the host of this number: 0 is the first, 10.0.0.1. One that there is not is a mistake of the test, and panics.
func (n *Network) Host(number int) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number < 0 || number >= len(n.hosts) {
		panic(fmt.Sprintf("machnettest: host %d of a network of %d, which are numbered from 0", number, len(n.hosts)))
	}
	return n.hosts[number]
}

// AddHost adds a host to a network that runs. Options that are out of bounds fail the test.
func (n *Network) AddHost(o HostOptions) *Host {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if o.Engines == 0 {
		o.Engines = n.opts.Engines
	}
	if o.Conns == 0 {
		o.Conns = n.opts.Conns
	}
	if !o.Addr.IsValid() {
		o.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(len(n.hosts) + 1)})
	}
	h := &Host{network: n, ip: o.Addr}
	err := o.check(n.hosts)
	if err == nil {
		err = n.with(func(w world) error {
			var ok bool
			if h.number, ok = w.add(o.Addr, o); !ok {
				return errors.New("the number of Conns or the MTU is out of bounds, or the system gives no descriptors")
			}
			return nil
		})
	}
	if err != nil {
		n.t.Fatalf("machnettest: add a host with %+v: %v", o, err)
	}
	n.hosts = append(n.hosts, h)
	return h
}

func (o HostOptions) check(others []*Host) error {
	for _, h := range others {
		if h.ip == o.Addr {
			return errors.New("another host has the address")
		}
	}
	switch {
	case len(others) == mostHosts:
		return fmt.Errorf("there are %d hosts, the most", mostHosts)
	case !o.Addr.Is4():
		return errors.New("the address is no IPv4 address")
	case o.Engines < 1 || o.Engines > 128:
		return errors.New("a host has 1 to 128 engines")
	case o.Conns < 0 || o.Conns > 65536:
		return errors.New("a channel has 1 to 65536 connections")
	case o.MTU < 0 || o.MTU > 65535:
		return errors.New("the MTU is 1 to 65535 bytes")
	}
	return nil
}

// with does something with the world, or says that it is gone.
func (n *Network) with(what func(w world) error) error {
	n.life.RLock()
	defer n.life.RUnlock()
	if n.over {
		return ErrClosed
	}
	return what(n.world)
}

// SetLink changes how packets fare between two hosts from now on, in both directions. A partition goes on.
func (n *Network) SetLink(a, b *Host, link Link) {
	n.t.Helper()
	n.SetOneWay(a, b, link)
	n.SetOneWay(b, a, link)
}

// SetOneWay is SetLink for the packets from one host to the other; what comes back fares as before.
func (n *Network) SetOneWay(from, to *Host, link Link) {
	n.t.Helper()
	n.change(from, to, func(w way) error {
		link, err := link.checked()
		if err == nil {
			n.links[w] = link
		}
		return err
	})
}

// Partition loses everything between two hosts from now on, in both directions, until Heal. Nobody is told: what is sent waits, and after
// two to three seconds of silence connections end with ETIMEDOUT, as they do in the field.
func (n *Network) Partition(a, b *Host) {
	n.t.Helper()
	n.PartitionOneWay(a, b)
	n.PartitionOneWay(b, a)
}

// PartitionOneWay loses everything from one host to the other; what comes back arrives.
func (n *Network) PartitionOneWay(from, to *Host) {
	n.t.Helper()
	n.change(from, to, func(w way) error {
		n.cut[w] = true
		return nil
	})
}

// Isolate is Partition between a host and each of the others.
func (n *Network) Isolate(h *Host) {
	n.t.Helper()
	n.mu.Lock()
	all := append([]*Host(nil), n.hosts...)
	n.mu.Unlock()
	for _, other := range all {
		if other != h {
			n.Partition(h, other)
		}
	}
}

// Heal ends all partitions. Links are again as they were, or as SetLink has made them meanwhile.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	cut := n.cut
	n.cut = make(map[way]bool)
	for w := range cut {
		n.apply(w)
	}
}

// change notes something about one direction and has it hold.
func (n *Network) change(from, to *Host, what func(w way) error) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if from == to || from.network != n || to.network != n {
		panic("machnettest: a link is between two hosts of its network; within one host there is none")
	}
	w := way{from.number, to.number}
	if err := what(w); err != nil {
		n.t.Errorf("machnettest: the link from %v to %v: %v", from.ip, to.ip, err)
		return
	}
	n.apply(w)
}

// apply has the world treat packets as was noted. mu is held.
func (n *Network) apply(w way) {
	link, ok := n.links[w]
	if !ok {
		link, _ = n.opts.link().checked()
	}
	if n.cut[w] {
		link.Loss = 1
	}
	_ = n.with(func(world world) error { // of a network that is closed nothing is left to change
		world.setLink(w.from, w.to, link)
		return nil
	})
}

// Seed is the seed that decides which packets suffer.
func (n *Network) Seed() uint64 { return n.opts.Seed }

// Trace is the last packets and their fates, a line each; empty once the network is closed.
func (n *Network) Trace() (lines string) {
	_ = n.with(func(w world) error {
		lines = w.trace()
		return nil
	})
	return lines
}

// Close closes the stacks of all hosts, and ends the hosts. NewNetwork has the test do it at its end; before that it is for whoever wants
// to see that nothing is left. It may be called more than once.
func (n *Network) Close() {
	n.mu.Lock()
	hosts := n.hosts
	n.mu.Unlock()
	for _, h := range hosts {
		h.close()
	}
	n.life.Lock()
	defer n.life.Unlock()
	if !n.over {
		n.over = true
		n.world.free()
	}
}
