package machnet

import (
	"sync"
	"sync/atomic"
	"time"
)

// deadline is the time limit of one direction of a Conn, or of a Listener. Setting it is cheap, since net/http does so for
// every request, and no timer exists until one is set in the future.
type deadline struct {
	// expired is true from the moment the limit passes until another is set.
	expired atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	set   uint64 // counts calls, so that a timer that fires late knows it was replaced
}

// setTo replaces the limit; the zero time takes it away. wake is called when the limit passes, at once if it is in the past.
func (d *deadline) setTo(t time.Time, wake func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if t.IsZero() {
		d.expired.Store(false)
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired.Store(true)
		wake()
		return
	}
	d.expired.Store(false)
	mine := d.set
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		current := d.set == mine
		if current {
			d.expired.Store(true)
		}
		d.mu.Unlock()
		if current {
			wake()
		}
	})
}

// stop forgets the limit for good; it leaves expired as it is.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
