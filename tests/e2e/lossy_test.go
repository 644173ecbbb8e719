package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns/relay"
	"github.com/machnet/machnet/go/machnet"
)

// Whatever a link does to frames, an application finds every message once, in order, and whole.
func TestMessagesArriveOnceInOrderAndWhole(t *testing.T) {
	t.Run("memif", func(t *testing.T) {
		onAnyLink(t)
		folder := shortTempDir(t)
		exchangeAll(t, newPairOn(t, folder, memifWire(folder)))
	})
	for name, drop := range map[string]float64{"1 % lost": 0.01, "5 % lost": 0.05} {
		t.Run(name, func(t *testing.T) {
			onAnyLink(t)
			path := relay.Path{Loss: drop, Copies: 0.01, Reorder: 0.02, ReorderBy: 500 * time.Microsecond}
			w, r := relayedWire(t, path, rand.Uint64())
			p := newPairOn(t, shortTempDir(t), w)
			if exchangeAll(t, p); t.Failed() {
				return
			}
			var arrived, lost, copied, overtaken int64
			for _, way := range r.Counts() {
				arrived, lost, copied, overtaken = arrived+way.Arrived, lost+way.Lost, copied+way.Copied, overtaken+way.Overtaken
			}
			a, b := p.a.counters(t), p.b.counters(t)
			t.Logf("the relay: %+v", r.Counts())
			t.Logf("A: %v\nB: %v", a, b)
			if share := float64(lost) / float64(arrived); share < drop*0.8 || share > drop*1.2 {
				t.Errorf("%d of %d frames were dropped, want %g of them", lost, arrived, drop)
			}
			if copied < arrived/200 || overtaken < arrived/200 {
				t.Errorf("of %d frames %d came twice and %d were overtaken, want 1 %% and 2 %%", arrived, copied, overtaken)
			}
			for _, name := range []string{"flow_retransmitted", "flow_duplicates", "flow_out_of_order"} {
				if a[name]+b[name] == 0 {
					t.Errorf("the sidecars count no %s", name)
				}
			}
		})
	}
}

func exchangeAll(t *testing.T, p *pair) {
	for _, senders := range []int{1, 4, 16, 64} {
		for _, size := range []int{0, 64, 1424, 1425, 32 << 10, 1 << 20, machnet.MaxMessage} {
			if senders*size > 64<<20 {
				continue // many send, and some send much: both at once only takes longer
			}
			ok := t.Run(fmt.Sprintf("%d x %d B", senders, size), func(t *testing.T) {
				exchange(t, p, senders, size)
			})
			if !ok {
				return // what is wrong once is wrong again, in minutes
			}
		}
	}
}

// exchange has so many applications on host A send messages of one size to one application on host B, all at once.
func exchange(t *testing.T, p *pair, senders, size int) {
	const budget = 1 << 20 // bytes from one sender, where a message is not larger
	count := max(1, min(100, budget/max(1, size)))
	l := listen(t, p.b.attach(t))
	patterns := longPattern()
	// Messages of one size differ by where in the pattern they begin, and that by sender and place.
	message := func(sender, place int) []byte {
		at := (sender*count + place) * 7
		return patterns[at : at+size]
	}
	var all sync.WaitGroup
	for sender := range senders {
		stack := p.a.attach(t)
		all.Go(func() {
			d := machnet.Dialer{Stack: stack, Timeout: time.Minute}
			nc, err := d.Dial("machnet", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			c := nc.(*machnet.Conn)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
			err = c.Send(binary.LittleEndian.AppendUint32(nil, uint32(sender)))
			for place := 0; place < count && err == nil; place++ {
				err = c.Send(message(sender, place))
			}
			if err := errors.Join(err, c.CloseWrite()); err != nil {
				t.Errorf("sender %d: %v", sender, err)
				return
			}
			// The end of the other direction is the receiver's word that it has everything.
			if m, err := c.Recv(t.Context()); err != io.EOF {
				t.Errorf("sender %d: %d bytes, %v; want EOF", sender, len(m.Bytes()), err)
			}
		})
	}
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	for range senders {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
			break
		}
		all.Go(func() {
			c := nc.(*machnet.Conn)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
			if err := takeAll(t, c, count, message); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// longPattern has room for messages of any size that begin at different places.
var longPattern = sync.OnceValue(func() []byte { return pattern(machnet.MaxMessage + 1<<16) })

func takeAll(t *testing.T, c *machnet.Conn, count int, message func(sender, place int) []byte) error {
	first, err := c.Recv(t.Context())
	if err != nil || len(first.Bytes()) != 4 {
		return fmt.Errorf("who sends: %d bytes, %w", len(first.Bytes()), err)
	}
	sender := int(binary.LittleEndian.Uint32(first.Bytes()))
	first.Release()
	for place := range count {
		want := message(sender, place)
		m, err := c.Recv(t.Context())
		if err != nil {
			return fmt.Errorf("sender %d, message %d of %d: %w", sender, place, count, err)
		}
		if !bytes.Equal(m.Bytes(), want) {
			return fmt.Errorf("sender %d, message %d of %d: %d bytes that are not the %d sent", sender, place, count, len(m.Bytes()), len(want))
		}
		m.Release()
	}
	if m, err := c.Recv(t.Context()); err != io.EOF {
		return fmt.Errorf("sender %d, after %d messages: %d bytes, %v; want EOF", sender, count, len(m.Bytes()), err)
	}
	return nil
}
