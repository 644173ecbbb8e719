package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Params says what to send over each connection.
type Params struct {
	Size     int           // bytes of a frame, MinSize to MaxSize
	Inflight int           // frames outstanding at most; 1 or more
	Buffered bool          // frames go through a buffered writer, flushed when nothing is waiting to be read
	Gap      time.Duration // the client sleeps so long between an echo and its next frame, in a closed loop of one goroutine
	Rate     float64       // frames a second of an open loop; 0 is a closed loop
	Warmup   time.Duration // not measured, at the start; longer where the echoes of all that is in flight take longer
	Duration time.Duration // measured
	Resend   bool          // the transport may lose frames: after a second without one, send anew
	Messages bool          // frames are taken as messages, by ReadMessage, and not from a stream of bytes
}

// MessageConn is a connection that keeps the bounds of what was written, as Machnet's does.
type MessageConn interface {
	net.Conn
	ReadMessage(p []byte) (int, error)
}

// Result is what one run measured. Latencies are nanoseconds.
type Result struct {
	Messages int64   // echoes completed while measuring
	All      int64   // echoes completed, the warm-up's too: what the CPU time of the whole run is divided by
	Seconds  float64 // time measured
	Lost     int64   // frames given up (only where Resend)
	Latency  *hdrhistogram.Histogram
}

// NewHistogram holds 1 ns to 100 s in three significant digits.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 100_000_000_000, 3) }

// Drive sends frames over the connections as p says, each from a goroutine of its own, and measures the round trips. In a closed loop a frame
// goes when an echo has come back; with a rate it goes when it is due, and its latency counts from then (no coordinated omission).
func Drive(conns []net.Conn, p Params) (*Result, error) {
	switch {
	case len(conns) < 1:
		return nil, errors.New("no connection to send over")
	case p.Size < MinSize || p.Size > MaxSize:
		return nil, fmt.Errorf("size %d: a frame is %d to %d bytes", p.Size, MinSize, MaxSize)
	case p.Inflight < 1:
		return nil, fmt.Errorf("inflight %d: at least one message is in flight", p.Inflight)
	case p.Messages && p.Size > LargestWindow/p.Inflight:
		return nil, fmt.Errorf("%d messages of %d bytes in flight: at most %d bytes", p.Inflight, p.Size, LargestWindow)
	case p.Gap > 0 && (p.Inflight > 1 || p.Rate > 0):
		return nil, fmt.Errorf("a gap of %v with %d in flight at %g/s: it is between messages that follow each other", p.Gap, p.Inflight, p.Rate)
	case p.Rate > 0 && len(conns) > 1:
		return nil, fmt.Errorf("an open loop over %d connections: it has one", len(conns))
	}
	r := newRun(p, len(conns))
	buffer := BufferSize(p.Size, p.Inflight, len(conns))
	drivers := make([]*driver, len(conns))
	for i, conn := range conns {
		drivers[i] = newDriver(r, &r.parts[i%len(r.parts)], conn, buffer)
		if messages, ok := conn.(MessageConn); p.Messages && ok {
			drivers[i].messages = messages
		} else if p.Messages {
			return nil, fmt.Errorf("messages over %T: it is a stream of bytes", conn)
		}
	}
	r.begin = time.Now()
	if err := driveAll(drivers); err != nil {
		return nil, err
	}
	return r.result(), nil
}

// driveAll returns when every driver has ended. The first that fails stops the others, which may wait for echoes that never come.
func driveAll(drivers []*driver) error {
	if len(drivers) == 1 {
		return drivers[0].drive() // in the caller's goroutine: nothing may change for the one connection that most figures are of
	}
	var (
		ended sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, d := range drivers {
		ended.Go(func() {
			if err := d.drive(); err != nil {
				once.Do(func() {
					first = err
					for _, other := range drivers {
						_ = other.conn.SetDeadline(time.Now())
					}
				})
			}
		})
	}
	ended.Wait()
	return first
}

// LargestWindow is how many bytes of messages may be in flight where one goroutine both writes and reads: what a connection of Machnet's takes
// in each direction without waiting for a reader.
const LargestWindow = 256 << 10

// BufferSize is what to buffer of a connection, in bytes: what is in flight on it where there are many, since 10 000 buffers that suit
// the one connection of most measurements would take gigabytes.
func BufferSize(size, inflight, conns int) int {
	const least = 512
	if conns <= 1 || size > bufferSize/inflight {
		return bufferSize
	}
	return max(size*inflight, least)
}

// driver sends frames over one connection.
type driver struct {
	*run
	part  *part
	conn  net.Conn
	frame []byte
	echo  []byte
	in    *bufio.Reader
	out   *bufio.Writer // where p.Buffered

	messages MessageConn // where p.Messages
}

func newDriver(r *run, p *part, conn net.Conn, buffer int) *driver {
	d := &driver{run: r, part: p, conn: conn, frame: newFrame(r.p.Size, r.p.Buffered), echo: make([]byte, r.p.Size)}
	d.in = bufio.NewReaderSize(conn, buffer)
	if r.p.Buffered {
		d.out = bufio.NewWriterSize(conn, buffer)
	}
	return d
}

func (d *driver) drive() error {
	switch {
	case d.p.Rate > 0:
		return d.open()
	case d.p.Size*d.p.Inflight <= bufferSize || d.p.Resend || d.p.Messages: // datagrams never block the writer, nor does LargestWindow
		return d.closed()
	}
	// A window larger than the transport's buffers would fill both directions and stop: read beside writing.
	return d.closedBesideReader()
}

func (d *driver) send() error {
	if d.p.Buffered {
		_, err := d.out.Write(d.frame)
		return err
	}
	_, err := d.conn.Write(d.frame)
	return err
}

// receive takes one echo and checks it.
func (d *driver) receive() error {
	if d.messages != nil {
		if n, err := d.messages.ReadMessage(d.echo); err != nil {
			return err
		} else if n != len(d.frame) {
			return fmt.Errorf("an echo of %d bytes of a frame of %d", n, len(d.frame))
		}
		return d.check()
	}
	if d.p.Buffered && d.in.Buffered() < d.p.Size && d.out.Buffered() > 0 {
		if err := d.out.Flush(); err != nil {
			return err
		}
	}
	if d.p.Resend {
		if err := d.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(d.in, d.echo); err != nil {
		return err
	}
	return d.check()
}

// check says whether an echo is ours: its header, but for the place, and its end.
func (d *driver) check() error {
	if string(d.echo[:5]) != string(d.frame[:5]) || d.p.Size > MinSize && d.echo[d.p.Size-1] != d.frame[d.p.Size-1] {
		return fmt.Errorf("echo differs from what was sent: % x, sent % x", d.echo[:MinSize], d.frame[:MinSize])
	}
	return nil
}

// closed keeps Inflight frames outstanding from one goroutine.
func (d *driver) closed() error {
	sent := make([]time.Time, d.p.Inflight) // by place in the window
	sendAt := func(place int, now time.Time) error {
		sent[place] = now
		setPlace(d.frame, place)
		return d.send()
	}
	for i := range sent {
		if err := sendAt(i, time.Now()); err != nil {
			return err
		}
	}
	for outstanding := len(sent); outstanding > 0; {
		err := d.receive()
		now := time.Now()
		if d.p.Resend && errors.Is(err, os.ErrDeadlineExceeded) {
			// Nothing for a whole second: all that was in flight is lost.
			d.lost.Add(int64(outstanding))
			d.measuring(now) // so that it begins although nothing comes back
			if d.over(now) {
				return nil
			}
			outstanding = len(sent)
			for i := range sent {
				if err := sendAt(i, now); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		at := place(d.echo)
		if at >= len(sent) {
			return fmt.Errorf("echo of place %d in a window of %d", at, len(sent))
		}
		d.record(d.part, sent[at], now)
		if d.over(now) {
			outstanding--
			continue
		}
		if d.p.Gap > 0 {
			sleep(d.p.Gap)
			now = time.Now()
		}
		if err := sendAt(at, now); err != nil {
			return err
		}
	}
	return nil
}

// closedBesideReader keeps Inflight frames outstanding; a goroutine of its own reads the echoes.
func (d *driver) closedBesideReader() error {
	places := make(chan struct{}, d.p.Inflight)
	write := func(sent chan<- time.Time) error {
		for {
			places <- struct{}{}
			now := time.Now() // not before: waiting for a place is no latency
			if d.over(now) {
				return nil
			}
			sent <- now
			if err := d.send(); err != nil {
				return err
			}
			if d.p.Buffered {
				if err := d.out.Flush(); err != nil { // a window this large fills the buffer anyway
					return err
				}
			}
		}
	}
	return d.besideReader(d.p.Inflight, write, func() { <-places })
}

// besideReader has write send frames, each after it has put the time its latency counts from into the channel (of room for
// most), while a goroutine of its own reads an echo for each and then calls done. When either fails it stops the other.
func (d *driver) besideReader(most int, write func(sent chan<- time.Time) error, done func()) error {
	sent := make(chan time.Time, most)
	read := make(chan error, 1)
	go func() {
		var failure error
		for at := range sent {
			if failure == nil {
				failure = d.receiveAlone()
			}
			if failure == nil {
				d.record(d.part, at, time.Now())
			} else {
				// The writer may be blocked on a peer that has stopped.
				_ = d.conn.SetWriteDeadline(time.Now())
			}
			done()
		}
		read <- failure
	}()
	wrote := write(sent)
	if wrote != nil {
		_ = d.conn.SetReadDeadline(time.Now())
	}
	close(sent)
	if err := <-read; wrote == nil {
		return err
	}
	return wrote
}

// receiveAlone is receive for a reader that must not touch the writer.
func (d *driver) receiveAlone() error {
	if _, err := io.ReadFull(d.in, d.echo); err != nil {
		return err
	}
	return d.check()
}

// open sends a frame whenever one is due, whether or not the echoes keep up.
func (d *driver) open() error {
	gap := time.Duration(float64(time.Second) / d.p.Rate)
	// The time measured stands from the start: an open loop waits for nothing.
	d.from = d.p.Warmup
	end := d.p.Warmup + d.p.Duration
	d.until.Store(end.Nanoseconds())
	return d.besideReader(1<<16, func(due chan<- time.Time) error {
		for next := d.begin; next.Before(d.begin.Add(end)); next = next.Add(gap) {
			sleepUntil(next)
			due <- next
			if _, err := d.conn.Write(d.frame); err != nil {
				return err
			}
		}
		return nil
	}, func() {})
}

// sleepUntil returns at t or just after. The runtime's timers wake up to a millisecond late, so the last stretch is
// waited out by giving the processor away again and again.
func sleepUntil(t time.Time) {
	const coarse = 1500 * time.Microsecond
	if left := time.Until(t); left > coarse {
		time.Sleep(left - coarse)
	}
	for time.Now().Before(t) {
		yield()
	}
}
