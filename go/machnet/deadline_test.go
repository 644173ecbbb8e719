//go:build go1.25

package machnet

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// All of this runs in synctest's virtual time.

func TestADeadlineInThePastWakesAtOnce(t *testing.T) {
	var d deadline
	var wakes atomic.Int32
	d.setTo(time.Now().Add(-time.Second), func() { wakes.Add(1) })
	if !d.expired.Load() || wakes.Load() != 1 {
		t.Fatalf("expired %v, woken %d times; want true, once", d.expired.Load(), wakes.Load())
	}
	d.setTo(time.Time{}, func() { wakes.Add(1) })
	if d.expired.Load() || wakes.Load() != 1 {
		t.Fatalf("after the zero time: expired %v, woken %d times; want false, once", d.expired.Load(), wakes.Load())
	}
}

func TestADeadlineInTheFutureWakesThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		var wakes atomic.Int32
		d.setTo(time.Now().Add(time.Second), func() { wakes.Add(1) })
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if d.expired.Load() || wakes.Load() != 0 {
			t.Fatalf("before: expired %v, woken %d times", d.expired.Load(), wakes.Load())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !d.expired.Load() || wakes.Load() != 1 {
			t.Fatalf("after: expired %v, woken %d times; want true, once", d.expired.Load(), wakes.Load())
		}
	})
}

func TestAnotherDeadlineReplacesTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		var wakes atomic.Int32
		wake := func() { wakes.Add(1) }
		d.setTo(time.Now().Add(time.Second), wake)
		d.setTo(time.Now().Add(time.Hour), wake)
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.expired.Load() || wakes.Load() != 0 {
			t.Fatalf("the first still counts: expired %v, woken %d times", d.expired.Load(), wakes.Load())
		}
		d.stop()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if d.expired.Load() || wakes.Load() != 0 {
			t.Fatalf("a stopped one counts: expired %v, woken %d times", d.expired.Load(), wakes.Load())
		}
	})
}
