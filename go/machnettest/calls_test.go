//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/machnet/machnet/go/internal/leaf"
	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// An echo is four messages: out and in at both ends, which are in this process. Each takes one call of C, however many goroutines wait; what the
// one that looks at the rings does for the others comes once for all of them, and so do sleeps, of which there are more on a busy machine.
func TestAMessageTakesOneCallOfC(t *testing.T) {
	for name, tc := range map[string]struct {
		conns, echoes int
		most          float64 // calls of C an echo
	}{
		"one connection":   {1, 200, 4.2},
		"many connections": {64, 50, 5},
	} {
		t.Run(name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // so that both ends may look at their rings
			_, _, near, far := hosts(t, machnettest.Options{})
			var conns []*machnet.Conn
			for range tc.conns {
				c, end := connection(t, near, far, "10.0.0.2")
				go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{end}, struct{ io.Reader }{end}, make([]byte, 4<<10)) }()
				conns = append(conns, c)
			}
			var calls float64
			for deadline := time.Now().Add(20 * time.Second); ; {
				var count atomic.Int64
				leaf.CountIn(&count)
				pingPongs(t, conns, tc.echoes)
				leaf.CountIn(nil)
				if calls = float64(count.Load()) / float64(tc.conns*tc.echoes); calls >= 3.9 && calls <= tc.most {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("an echo takes %.2f calls of C lately, want four, and at most %.1f", calls, tc.most)
				}
			}
		})
	}
}

// pingPongs has each connection make so many echoes, all at once.
func pingPongs(t *testing.T, conns []*machnet.Conn, echoes int) {
	var done sync.WaitGroup
	for _, c := range conns {
		done.Add(1)
		go func() {
			defer done.Done()
			b := make([]byte, 64)
			for range echoes {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, b); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	done.Wait()
}

// Garbage collections, which stop every goroutine, the profiler's signals and those that preempt meet threads that are in C on a stack that the
// runtime knows nothing of.
func TestCollectionsAndSignalsMeetCallsOfC(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	profile, err := os.CreateTemp(t.TempDir(), "profile")
	if err != nil {
		t.Fatal(err)
	}
	defer profile.Close()
	if err := pprof.StartCPUProfile(profile); err != nil {
		t.Skip(err) // go test -cpuprofile
	}
	defer pprof.StopCPUProfile()
	_, _, near, far := hosts(t, machnettest.Options{})
	var conns []*machnet.Conn
	for range 8 {
		c, end := connection(t, near, far, "10.0.0.2")
		go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{end}, struct{ io.Reader }{end}, make([]byte, 64<<10)) }()
		conns = append(conns, c)
	}
	var garbage atomic.Pointer[[]byte]
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				fresh := make([]byte, 64<<10)
				garbage.Store(&fresh)
				runtime.GC()
			}
		}
	}()
	var writing sync.WaitGroup
	for _, c := range conns {
		sent := make([]byte, 256<<10)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		writing.Add(2)
		go func() {
			defer writing.Done()
			if _, err := c.Write(sent); err != nil {
				t.Error(err)
			}
		}()
		go func() {
			defer writing.Done()
			got := deep(40, func() []byte { // a stack that has to grow and to move
				b := make([]byte, len(sent))
				_, err := io.ReadFull(c, b)
				if err != nil {
					t.Error(err)
				}
				return b
			})
			if string(got) != string(sent) {
				t.Error("what came back is not what was sent")
			}
		}()
	}
	writing.Wait()
	pingPongs(t, conns, 50)
	close(stop)
	<-stopped
}

// deep calls f below so many frames of half a KiB.
func deep(frames int, f func() []byte) []byte {
	var filling [512]byte
	if frames > 0 {
		b := deep(frames-1, f)
		runtime.KeepAlive(&filling)
		return b
	}
	return f()
}

// A request may tell the other end of its process what to look at. `go test -race` fails this one if the detector does not know that who receives a message
// does so after it was sent.
func TestWhoReceivesSeesWhatTheSenderWroteBefore(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	c, end := connection(t, near, far, "10.0.0.2")
	const messages = 100
	var about [messages]int
	done := make(chan int)
	go func() {
		sum, b := 0, make([]byte, 1)
		for i := range about {
			if _, err := io.ReadFull(end, b); err != nil {
				t.Error(err)
				break
			}
			sum += about[i]
		}
		done <- sum
	}()
	for i := range about {
		about[i] = i
		if _, err := c.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	if sum := <-done; sum != messages*(messages-1)/2 {
		t.Errorf("the receiver saw a sum of %d", sum)
	}
}
