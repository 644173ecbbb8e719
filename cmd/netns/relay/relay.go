package relay

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/cmd/netns"
)

// Relay passes frames between two devices of a namespace, both ways, in a thread of its own.
type Relay struct {
	ends    [2]*socket
	lanes   [2]*lane // the first from the first device to the second
	wake    int      // an eventfd
	path    atomic.Pointer[Path]
	closing atomic.Bool
	done    chan struct{}
	err     error // why it ended by itself; valid once done is closed
}

// Start begins to pass frames between two devices of a namespace; the nil namespace is that of this process. The same seed makes the dice fall alike.
func Start(n *netns.Namespace, one, other string, p Path, seed uint64) (*Relay, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	r := &Relay{wake: -1, done: make(chan struct{})}
	err := n.Do(func() (err error) {
		for i, device := range []string{one, other} {
			if r.ends[i], err = openSocket(device); err != nil {
				return err
			}
			r.lanes[i] = newLane(p, seed, uint64(i))
		}
		r.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		return err
	})
	if err != nil {
		r.release()
		return nil, fmt.Errorf("relay between %s and %s: %w", one, other, err)
	}
	go func() {
		defer close(r.done)
		runtime.LockOSThread() // and never unlocked: its timer slack goes with the thread
		r.err = r.run()
	}()
	return r, nil
}

// Set has the relay do something else from now on, to frames that come from now on.
func (r *Relay) Set(p Path) error {
	if err := p.Check(); err != nil {
		return err
	}
	r.path.Store(&p)
	r.ring()
	return nil
}

// Counts is what was done so far, from the first device to the second and the other way.
func (r *Relay) Counts() [2]Counts {
	var all [2]Counts
	for i, l := range r.lanes {
		l.missed.Add(r.ends[i].missed())
		all[i] = l.counts()
	}
	return all
}

// Close ends the relay: what is on its way is gone. It returns why the relay had ended before, or nil.
func (r *Relay) Close() error {
	r.closing.Store(true)
	r.ring()
	<-r.done
	r.release()
	return r.err
}

// Done is closed when the relay has ended.
func (r *Relay) Done() <-chan struct{} { return r.done }

func (r *Relay) ring() {
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (r *Relay) release() {
	for _, s := range r.ends {
		if s != nil {
			_ = unix.Close(s.fd)
		}
	}
	if r.wake >= 0 {
		_ = unix.Close(r.wake)
	}
}

// run takes what has come, sends what is due, and sleeps when there is neither. One thread does all of it: frames keep their order without
// locks, and a relay that is bound to a core has it.
func (r *Relay) run() error {
	// The kernel lets sleepers oversleep by 50 us to save wakes; a path's delays are shorter than that.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	began := time.Now()
	scratch := make([]byte, longestFrame)
	for !r.closing.Load() {
		if p := r.path.Swap(nil); p != nil {
			for _, l := range r.lanes {
				l.path = *p
			}
		}
		idle := true
		for i, l := range r.lanes {
			from, to := r.ends[i], r.ends[1-i]
			for range burst {
				n, err := from.receive(scratch)
				if err != nil {
					return err
				}
				if n == 0 {
					break
				}
				idle = false
				if answer := l.take(int64(time.Since(began)), scratch[:n]); answer != nil {
					if _, err := from.send(answer); err != nil {
						return err
					}
				}
			}
			for now := int64(time.Since(began)); ; {
				f := l.poll(now)
				if f == nil {
					break
				}
				sent, err := to.send(f.bytes)
				if err != nil {
					return err
				}
				l.done(f, sent)
			}
		}
		if idle {
			if err := r.sleep(began); err != nil {
				return err
			}
		}
	}
	return nil
}

// burst is how many frames are taken from one end before the other end and what is due have their turn.
const burst = 32

// sleep returns when a frame has come, one is due, or the relay was rung for.
func (r *Relay) sleep(began time.Time) error {
	var timeout *unix.Timespec
	for _, l := range r.lanes {
		at, ok := l.next()
		if !ok {
			continue
		}
		left := unix.NsecToTimespec(max(0, at-int64(time.Since(began))))
		if timeout == nil || left.Nano() < timeout.Nano() {
			timeout = &left
		}
	}
	fds := []unix.PollFd{{Fd: int32(r.ends[0].fd), Events: unix.POLLIN}, {Fd: int32(r.ends[1].fd), Events: unix.POLLIN}, {Fd: int32(r.wake), Events: unix.POLLIN}}
	_, err := unix.Ppoll(fds, timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for frames: %w", err)
	}
	if fds[2].Revents != 0 {
		_, _ = unix.Read(r.wake, make([]byte, 8))
	}
	return nil
}
