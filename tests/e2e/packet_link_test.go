package e2e

import (
	"fmt"
	"testing"
	"time"
)

// The state of an af_packet port is that of the kernel's device, whatever its driver says; and an idle engine goes on sleeping when the device is
// set down, which leaves an error on its socket.
func TestADeviceThatIsSetDownIsSeenAndKeepsNobodyAwake(t *testing.T) {
	w := newVethWire(t, 1500)
	t.Cleanup(w.close)
	s, err := startSidecar(shortTempDir(t), "10.0.0.2", w.b, "--idle", "adaptive")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	is := func(state string) {
		t.Helper()
		until(t, "the port is "+state, func() error {
			if now := s.stats(t).Port.State; now != state {
				return fmt.Errorf("it is %s", now)
			}
			return nil
		})
	}
	set := func(how string) {
		t.Helper()
		if err := w.b.namespace.Run("ip", "link", "set", "dev", device, how); err != nil {
			t.Fatal(err)
		}
	}
	is("up")
	set("down")
	is("link-down")
	// Awake, it would sleep and be woken some ten thousand times meanwhile; it looks ten times a second.
	until(t, "the engine sleeps", func() error {
		before := s.counters(t)["sleeps"]
		time.Sleep(500 * time.Millisecond)
		if woken := s.counters(t)["sleeps"] - before; woken > 200 {
			return fmt.Errorf("woken %d times in half a second", woken)
		}
		return nil
	})
	set("up")
	is("up")
}
