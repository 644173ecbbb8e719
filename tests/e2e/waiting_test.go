package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// pingPong makes one round trip over c, whose other end echoes.
func pingPong(t testing.TB, c net.Conn, p []byte) {
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
}

// echoes is a connection whose other end, on the other host, echoes.
func echoes(t *testing.T) *machnet.Conn {
	a, b := twoHosts(t)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{b}, make([]byte, 64<<10)) }()
	return a
}

func TestAnEchoMakesNoGarbage(t *testing.T) {
	c := echoes(t)
	p := make([]byte, 64)
	pingPong(t, c, p)
	if n := testing.AllocsPerRun(200, func() { pingPong(t, c, p) }); n >= 1 {
		t.Errorf("an echo makes %v allocations, want none", n)
	}
}

// A call through cgo tells Go's scheduler, and may wake its monitor thread; what a message needs is called otherwise (how often:
// go/machnettest/calls_test.go). An echo is four messages: out and in at both ends, which are in this process.
func TestAMessageGoesPastCgoAndTakesNoMemory(t *testing.T) {
	for name, tc := range map[string]struct{ conns, echoes int }{
		"one connection":   {1, 200},
		"many connections": {64, 50},
	} {
		t.Run(name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // so that both ends may look at their rings
			p := sharedPair(t)
			from, to := p.a.attach(t), p.b.attach(t)
			var conns []*machnet.Conn
			for range tc.conns {
				c, end := connect(t, from, to)
				go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{end}, struct{ io.Reader }{end}, make([]byte, 4<<10)) }()
				conns = append(conns, c)
			}
			var calls, objects float64
			for deadline := time.Now().Add(patience); ; {
				var before, after runtime.MemStats
				start := make(chan struct{})
				var ready, done sync.WaitGroup
				for _, c := range conns {
					ready.Add(1)
					done.Go(func() {
						b := make([]byte, 64)
						pingPong(t, c, b) // the first sleep of a connection makes what it sleeps in
						ready.Done()
						<-start
						for range tc.echoes {
							pingPong(t, c, b)
						}
					})
				}
				ready.Wait()
				runtime.ReadMemStats(&before)
				called := runtime.NumCgoCall()
				close(start)
				done.Wait()
				called = runtime.NumCgoCall() - called
				runtime.ReadMemStats(&after)
				n := float64(tc.conns * tc.echoes)
				calls, objects = float64(called)/n, float64(after.Mallocs-before.Mallocs)/n
				if calls < 0.1 && objects < 0.1 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("an echo takes %.2f calls through cgo and %.2f allocations lately, want none", calls, objects)
				}
			}
		})
	}
}

func TestWaitingLeavesProcessorsToOtherGoroutines(t *testing.T) {
	for name, procs := range map[string]int{"one P": 1, "two Ps": 2} {
		t.Run(name, func(t *testing.T) {
			c := echoes(t)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			var ticks atomic.Int32
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 100 {
					time.Sleep(time.Millisecond)
					ticks.Add(1)
				}
			}()
			p := make([]byte, 64)
			began := time.Now()
			for range 1000 { // at least so many, so that the yielding keeps succeeding
				pingPong(t, c, p)
			}
			for ticks.Load() < 100 {
				pingPong(t, c, p)
				if time.Since(began) > 20*time.Second {
					t.Fatalf("a goroutine that sleeps 1 ms at a time came to its turn %d times in %v of echoes", ticks.Load(), time.Since(began))
				}
			}
			<-done
		})
	}
}

// Beside threads that keep every core busy, who looks meets a hog before long, and says so.
func TestHogsAreMetAndCounted(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	a, b := connect(t, from, to)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{b}, make([]byte, 64<<10)) }()
	for range runtime.NumCPU() {
		hog := exec.Command("/bin/sh", "-c", "while :; do :; done")
		hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // the hog dies with the thread
		defer runtime.UnlockOSThread()
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = hog.Process.Kill(), hog.Wait() }()
	}
	before := from.Waits()
	b64 := make([]byte, 64)
	for deadline := time.Now().Add(patience); ; {
		pingPong(t, a, b64)
		now := from.Waits()
		if now.HogAlarms > before.HogAlarms {
			if now.Hogged <= before.Hogged || now.CoreWait <= before.CoreWait {
				t.Errorf("a hog was met, but the times are %+v, and were %+v", now, before)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no hog was met, with one on each core: %+v", now)
		}
	}
}

func TestColdWaitersAreServedBesideAHotOne(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	hot, hotEnd := connect(t, from, to)
	go func() { _, _ = io.Copy(struct{ io.Writer }{hotEnd}, struct{ io.Reader }{hotEnd}) }()
	cold, coldEnd := connect(t, to, from) // coldEnd waits in the same stack as hot
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for b := make([]byte, 64); ; {
			select {
			case <-stop:
				return
			default:
				pingPong(t, hot, b)
			}
		}
	}()
	var took []time.Duration
	echo := make(chan time.Time, 1)
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := coldEnd.Read(b); err != nil {
				close(echo)
				return
			}
			echo <- time.Now()
		}
	}()
	for range 100 {
		time.Sleep(time.Millisecond)
		began := time.Now()
		if _, err := cold.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-echo:
			took = append(took, at.Sub(began))
		case <-time.After(10 * time.Second):
			t.Fatal("a cold waiter was forgotten")
		}
	}
	close(stop)
	<-stopped
	slices.Sort(took)
	t.Logf("a cold reader hears after %v (p50), %v (worst)", took[50], took[99])
	if took[50] > 50*time.Millisecond {
		t.Errorf("half of the messages to a cold reader took more than %v", took[50])
	}
}

func TestAnIdleApplicationSleeps(t *testing.T) {
	c := echoes(t)
	p := make([]byte, 64)
	for range 100 {
		pingPong(t, c, p)
	}
	go func() { _, _ = c.Read(make([]byte, 1)) }()
	time.Sleep(50 * time.Millisecond)
	before := cpu(t)
	time.Sleep(500 * time.Millisecond)
	if used := cpu(t) - before; used > 25*time.Millisecond {
		t.Errorf("waiting for 500 ms took %v of processor time", used)
	}
}

func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestManyWaitersHoldNoThreads(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	for range 100 {
		a, _ := connect(t, from, to)
		go func() { _, _ = a.Read(make([]byte, 1)) }()
	}
	time.Sleep(50 * time.Millisecond)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) > 40 {
		t.Errorf("%d threads while 100 goroutines wait", len(threads))
	}
}

func TestDetachingDeliversWhatWasWritten(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	a, b := connect(t, from, to)
	data := pattern(200_000)
	go func() {
		_, _ = a.Write(data)
		_ = a.Close()
		_ = from.Close()
	}()
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(data), err)
	}
}

func TestTheDefaultStackIsThatOfTheEnvironment(t *testing.T) {
	p := newPair(t)
	t.Setenv("MACHNET_SOCKET", p.a.socket)
	s, err := machnet.Default()
	if err != nil {
		t.Fatal(err)
	}
	l, err := machnet.Listen("machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := machnet.Dial("machnet", l.Addr().String()); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if again, err := machnet.Default(); err != nil || again != s {
		t.Errorf("a second Default gave another stack, or %v", err)
	}
	p.a.kill()
	p.a.restart(t)
	until(t, "the listener is back", func() error {
		c, err := machnet.Dial("machnet", l.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if again, err := machnet.Default(); err != nil || again != s {
		t.Errorf("Default after the sidecar's death: another stack, or %v", err)
	}
	_ = s.Close()
	t.Setenv("MACHNET_SOCKET", p.b.socket)
	anew, err := machnet.Default()
	if err != nil || anew == s {
		t.Fatalf("Default after Close: the old stack, or %v", err)
	}
	_ = anew.Close()
}
