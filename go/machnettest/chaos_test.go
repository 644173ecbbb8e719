//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// serveOn echoes on a host, and gives the address.
func serveOn(t *testing.T, h *machnettest.Host) string {
	t.Helper()
	l, err := h.Listen("machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	go echo(l)
	return l.Addr().String()
}

// says sends a word and reads it back, in so much time.
func says(c net.Conn, patience time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return fmt.Errorf("the echo is %q", got)
	}
	return nil
}

// dialFrom dials until it succeeds, as a client does whose server may be starting.
func dialFrom(t *testing.T, h *machnettest.Host, address string) net.Conn {
	t.Helper()
	var c net.Conn
	within(t, "a connection to "+address, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		c, err = h.DialContext(ctx, "machnet", address)
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}

const soon = 100 * time.Millisecond // long enough for a hundred echoes, short enough to wait for in vain

func TestAHostThatRestartsHasItsListenersAgain(t *testing.T) {
	for name, restart := range map[string]func(h *machnettest.Host){
		"killed first": func(h *machnettest.Host) { h.Kill(); h.Restart() },
		"at once":      func(h *machnettest.Host) { h.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			network := machnettest.NewNetwork(t, machnettest.Options{Engines: 2})
			server, client := network.Host(0), network.Host(1)
			address := serveOn(t, server)
			for range 5 { // each life has to be another, or the peer would take its packets for those of the last
				c := dialFrom(t, client, address)
				if err := says(c, 10*time.Second); err != nil {
					t.Fatal(err)
				}
				restart(server)
				// The peer hears of it when it sends, or by silence.
				within(t, "the connection's end", func() bool { return says(c, soon) != nil && !isTimeout(says(c, soon)) })
			}
			if err := says(dialFrom(t, client, address), 10*time.Second); err != nil {
				t.Fatal(err)
			}
			if n := server.Counter("rx_frames"); n == 0 || n > 1000 {
				t.Errorf("rx_frames = %d; want those of the last life", n)
			}
		})
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func TestAPartitionIsSilenceUntilItHeals(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 3})
	a, b, c := network.Host(0), network.Host(1), network.Host(2)
	address := serveOn(t, b)
	ab, cb := dialFrom(t, a, address), dialFrom(t, c, address)
	for name, part := range map[string]func(){
		"both ways": func() { network.Partition(a, b) },
		"requests":  func() { network.PartitionOneWay(a, b) },
		"answers":   func() { network.PartitionOneWay(b, a) },
	} {
		part()
		// A slow link does not heal it.
		network.SetLink(a, b, machnettest.Link{Delay: 20 * time.Microsecond})
		if err := says(ab, soon); !isTimeout(err) {
			t.Errorf("%s: the parted hosts hear each other: %v", name, err)
		}
		if err := says(cb, 10*time.Second); err != nil {
			t.Errorf("%s: the third host: %v", name, err)
		}
		network.Heal()
		// What was sent meanwhile comes now: the rest of the word that nobody waited for, and then ours.
		_ = ab.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.CopyN(io.Discard, ab, 5); err != nil {
			t.Fatalf("%s: after Heal: %v", name, err)
		}
		if err := says(ab, 10*time.Second); err != nil {
			t.Fatalf("%s: after Heal: %v", name, err)
		}
	}
	network.Isolate(b)
	for _, conn := range []net.Conn{ab, cb} {
		if err := says(conn, soon); !isTimeout(err) {
			t.Errorf("an isolated host is heard: %v", err)
		}
	}
	if network.Host(0).Counter("rx_frames") == 0 {
		t.Error("a counter of 0")
	}
}

func TestADialToAPartedHostTimesOut(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{})
	address := serveOn(t, network.Host(1))
	heard := func() int64 { return network.Host(1).Counter("rx_frames") }
	within(t, "the other host has heard that this one is there", func() bool { return heard() == 1 })
	network.Partition(network.Host(0), network.Host(1))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := network.Host(0).DialContext(ctx, "machnet", address); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial: %v, want a timeout", err)
	}
	if n := heard(); n != 1 {
		t.Errorf("the other host has heard of it: %d frames", n)
	}
}

func TestASlowLinkIsSlowInItsDirection(t *testing.T) {
	const delay = 20 * time.Millisecond
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 3})
	a, b, c := network.Host(0), network.Host(1), network.Host(2)
	address := serveOn(t, b)
	ab, cb := dialFrom(t, a, address), dialFrom(t, c, address)
	for name, tc := range map[string]struct {
		slow  func()
		least time.Duration
	}{
		"both ways": {func() { network.SetLink(a, b, machnettest.Link{Delay: delay}) }, 2 * delay},
		"one way":   {func() { network.SetOneWay(b, a, machnettest.Link{}) }, delay},
	} {
		network.SetLink(a, b, machnettest.Link{Delay: delay})
		tc.slow()
		began := time.Now()
		if err := says(ab, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < tc.least {
			t.Errorf("%s: an echo in %v, want %v at least", name, took, tc.least)
		}
	}
	if err := says(cb, 10*time.Second); err != nil {
		t.Error(err)
	}
}

func TestALinkOfARateCarriesNoMore(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Rate: 100e6})
	c := dialFrom(t, network.Host(0), serveOn(t, network.Host(1)))
	began := time.Now()
	go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("a mebibyte at 100 Mbit/s in %v, which takes 84 ms", took)
	}
}

// Programs that know nothing of tests, and use the package's own functions, find the host by the environment.
func TestTheSocketOfAHostServesPackageLevelFunctions(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{})
	server, client := network.Host(0), network.Host(1)
	address := serveOn(t, server)
	t.Setenv("MACHNET_SOCKET", client.Socket())
	stack, err := machnet.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	dial := func() error {
		c, err := machnet.Dial("machnet", address)
		if err != nil {
			return err
		}
		defer c.Close()
		if got := c.LocalAddr().(*machnet.Addr).IP; got != client.Addr() {
			t.Errorf("dialled from %v, want %v", got, client.Addr())
		}
		return says(c, 10*time.Second)
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	client.Kill()
	within(t, "the end of the sidecar", func() bool { return errors.Is(dial(), syscall.ENETDOWN) })
	if _, err := machnet.Attach(t.Context(), machnet.Config{Socket: client.Socket()}); !errors.Is(err, machnet.ErrNoSidecar) {
		t.Errorf("attach to a killed host: %v, want ErrNoSidecar", err)
	}
	client.Restart()
	if err := dial(); err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	socket := client.Socket()
	network.Close()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket of a closed network: %v, want that it is gone", err)
	}
}

func TestEveryProgramOfAHostHasAStackOfItsOwn(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{})
	host := network.Host(0)
	other, err := host.Attach(t.Context(), machnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if own := host.Stack(); host.Stack() != own || own == other {
		t.Error("Stack gives one stack, and Attach another")
	}
	l, err := (&machnet.ListenConfig{Stack: other}).Listen(t.Context(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	go echo(l)
	if err := says(dialFrom(t, host, l.Addr().String()), 10*time.Second); err != nil {
		t.Error(err)
	}
	network.Close()
	for _, s := range []*machnet.Stack{other, host.Stack()} {
		if !errors.Is(s.Err(), net.ErrClosed) {
			t.Errorf("the stack of a closed network: %v, want net.ErrClosed", s.Err())
		}
	}
	if _, err := host.Attach(t.Context(), machnet.Config{}); !errors.Is(err, machnettest.ErrClosed) {
		t.Errorf("attach to a closed network: %v, want ErrClosed", err)
	}
}

// failing stands in for a test that may fail.
type failing struct {
	testing.TB
	said     strings.Builder
	failed   bool
	cleanups []func()
}

func (f *failing) Helper()                 {}
func (f *failing) Failed() bool            { return f.failed }
func (f *failing) Cleanup(what func())     { f.cleanups = append(f.cleanups, what) }
func (f *failing) Logf(s string, a ...any) { fmt.Fprintf(&f.said, s+"\n", a...) }
func (f *failing) Errorf(s string, a ...any) {
	f.failed = true
	f.Logf(s, a...)
}
func (f *failing) Fatal(a ...any) {
	f.Errorf("%s", fmt.Sprint(a...))
	panic(f)
}
func (f *failing) Fatalf(s string, a ...any) { f.Fatal(fmt.Sprintf(s, a...)) }

// of runs a test to its end and gives what it has said.
func (f *failing) of(t *testing.T, test func()) string {
	t.Helper()
	func() {
		defer func() {
			if r := recover(); r != nil && r != f {
				panic(r)
			}
		}()
		test()
	}()
	for i := len(f.cleanups); i > 0; i-- {
		f.cleanups[i-1]()
	}
	return f.said.String()
}

func TestATestThatFailsPrintsTheSeedAndThePackets(t *testing.T) {
	test := func(fails bool) string {
		f := &failing{TB: t}
		return f.of(t, func() {
			network := machnettest.NewNetwork(f, machnettest.Options{Seed: 4711})
			if network.Seed() != 4711 {
				t.Errorf("the seed is %d", network.Seed())
			}
			if err := says(dialFrom(t, network.Host(0), serveOn(t, network.Host(1))), 10*time.Second); err != nil {
				t.Error(err)
			}
			if fails {
				f.Errorf("something is wrong")
			}
		})
	}
	if said := test(true); !strings.Contains(said, "MACHNETTEST_SEED") || !strings.Contains(said, "seed 4711") || strings.Count(said, "10.0.0.1") < 4 {
		t.Errorf("a test that fails says %q", said)
	}
	if said := test(false); said != "" {
		t.Errorf("a test that passes says %q", said)
	}
}

// The n-th packet from one host to another has the fate that the seed gives it, whatever it carries and whenever it is sent.
func TestTheSeedDecidesWhichPacketsSuffer(t *testing.T) {
	fates := func(seed uint64) string {
		network := machnettest.NewNetwork(t, machnettest.Options{Seed: seed, Loss: 0.3})
		defer network.Close()
		c := dialFrom(t, network.Host(0), serveOn(t, network.Host(1)))
		for range 10 {
			if err := says(c, 20*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		fates := []byte{}
		for line := range strings.Lines(network.Trace()) {
			switch {
			case strings.Contains(line, " 0 > 1  sent") || strings.Contains(line, " 0 > *  sent"):
				fates = append(fates, '-')
			case strings.Contains(line, " 0 > 1  LOST"):
				fates[len(fates)-1] = 'x'
			}
		}
		return string(fates)
	}
	one, again, other := fates(7), fates(7), fates(8)
	most := min(len(one), len(again), len(other))
	if most < 10 || one[:most] != again[:most] || !strings.Contains(one[:most], "x") {
		t.Errorf("with one seed packets fare %s and %s", one, again)
	}
	if one[:most] == other[:most] {
		t.Errorf("with another seed they fare the same: %s", other)
	}
}

func TestTheSeedComesFromTheEnvironmentOrByChance(t *testing.T) {
	seed := func() uint64 { return machnettest.NewNetwork(t, machnettest.Options{}).Seed() }
	t.Setenv("MACHNETTEST_SEED", "")
	if one, other := seed(), seed(); one == other || one == 0 || other == 0 {
		t.Errorf("seeds by chance: %d and %d", one, other)
	}
	t.Setenv("MACHNETTEST_SEED", "18446744073709551615")
	if got := seed(); got != math.MaxUint64 {
		t.Errorf("the seed is %d", got)
	}
	for _, wrong := range []string{"0", "x", "-1"} {
		t.Setenv("MACHNETTEST_SEED", wrong)
		f := &failing{TB: t}
		if said := f.of(t, func() { machnettest.NewNetwork(f, machnettest.Options{}) }); !strings.Contains(said, `"`+wrong+`"`) {
			t.Errorf("with %q: %q", wrong, said)
		}
	}
}

func TestWhatIsOutOfBoundsFailsTheTestWithItsValue(t *testing.T) {
	network := func(o machnettest.Options) func(f *failing) {
		return func(f *failing) { machnettest.NewNetwork(f, o) }
	}
	host := func(o machnettest.HostOptions) func(f *failing) {
		return func(f *failing) { machnettest.NewNetwork(f, machnettest.Options{}).AddHost(o) }
	}
	for want, test := range map[string]func(f *failing){
		"of -1 hosts":    network(machnettest.Options{Hosts: -1}),
		"of 255 hosts":   network(machnettest.Options{Hosts: 255}),
		"Loss 1.5":       network(machnettest.Options{Loss: 1.5}),
		"Corruption NaN": network(machnettest.Options{Corruption: math.NaN()}),
		"Delay -1s":      network(machnettest.Options{Delay: -time.Second}),
		"Engines:129":    network(machnettest.Options{Engines: 129}),
		"Conns:65537":    network(machnettest.Options{Conns: 65537}),
		"another host":   host(machnettest.HostOptions{Addr: netip.MustParseAddr("10.0.0.2")}),
		"IPv4":           host(machnettest.HostOptions{Addr: netip.MustParseAddr("::1")}),
		"MTU:1":          host(machnettest.HostOptions{MTU: 1}),
		"MTU:65536":      host(machnettest.HostOptions{MTU: 65536}),
		"Reorder 2": func(f *failing) {
			n := machnettest.NewNetwork(f, machnettest.Options{})
			n.SetLink(n.Host(0), n.Host(1), machnettest.Link{Reorder: 2})
		},
		`"no such counter"`: func(f *failing) { machnettest.NewNetwork(f, machnettest.Options{}).Host(0).Counter("no such counter") },
		"was killed": func(f *failing) {
			h := machnettest.NewNetwork(f, machnettest.Options{}).Host(0)
			h.Kill()
			h.Stack()
		},
	} {
		f := &failing{TB: t}
		if said := f.of(t, func() { test(f) }); !f.failed || !strings.Contains(said, want) {
			t.Errorf("want a failure that names %q, got %q", want, said)
		}
	}
}

func TestTheMostHostsThereAre(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Hosts: 254})
	if err := says(dialFrom(t, network.Host(0), serveOn(t, network.Host(253))), 10*time.Second); err != nil {
		t.Error(err)
	}
	if got := network.Host(253).Addr().String(); got != "10.0.0.254" {
		t.Errorf("the last host is %s", got)
	}
}
