package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Params says what to send over one connection.
type Params struct {
	Size     int           // bytes of a frame, MinSize to MaxSize
	Inflight int           // frames outstanding at most; 1 or more
	Buffered bool          // frames go through a buffered writer, flushed when nothing is waiting to be read
	Rate     float64       // frames a second of an open loop; 0 is a closed loop
	Warmup   time.Duration // not measured, at the start; longer where the first Inflight echoes take longer
	Duration time.Duration // measured
	Resend   bool          // the transport may lose frames: after a second without one, send anew
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

// Drive sends frames over conn as p says and measures the round trips. In a closed loop a frame goes when an echo
// has come back; with a rate it goes when it is due, and its latency counts from then (no coordinated omission).
func Drive(conn net.Conn, p Params) (*Result, error) {
	switch {
	case p.Size < MinSize || p.Size > MaxSize:
		return nil, fmt.Errorf("size %d: a frame is %d to %d bytes", p.Size, MinSize, MaxSize)
	case p.Inflight < 1:
		return nil, fmt.Errorf("inflight %d: at least one message is in flight", p.Inflight)
	}
	d := &driver{conn: conn, p: p, frame: newFrame(p.Size, p.Buffered), echo: make([]byte, p.Size)}
	d.in, d.out = bufio.NewReaderSize(conn, bufferSize), bufio.NewWriterSize(conn, bufferSize)
	d.result = &Result{Latency: NewHistogram()}
	var err error
	switch {
	case p.Rate > 0:
		err = d.open()
	case p.Size*p.Inflight <= bufferSize || p.Resend: // datagrams never block the writer
		err = d.closed()
	default:
		// A window larger than the transport's buffers would fill both directions and stop: read beside writing.
		err = d.closedBesideReader()
	}
	if err != nil {
		return nil, err
	}
	return d.result, nil
}

type driver struct {
	conn   net.Conn
	p      Params
	frame  []byte
	echo   []byte
	in     *bufio.Reader
	out    *bufio.Writer
	result *Result

	begin time.Time
	from  time.Duration // after begin: what comes back earlier is not measured
	until atomic.Int64  // when the measurement ends, nanoseconds after begin; 0: it has not begun
}

func (d *driver) start() {
	d.begin = time.Now()
	d.result.Seconds = d.p.Duration.Seconds()
}

// longestFill bounds the wait for a window to fill, beyond the warm-up.
const longestFill = 10 * time.Second

// measuring says whether what comes back now is measured. In a closed loop the measurement begins when the warm-up is over and
// as many echoes have come back as are in flight: 64 MiB in flight take longer than any warm-up, and until then nothing comes.
func (d *driver) measuring(now time.Time) bool {
	since := now.Sub(d.begin)
	if until := d.until.Load(); until != 0 {
		return since >= d.from && since.Nanoseconds() <= until
	}
	filled := d.result.All >= int64(d.p.Inflight) || since >= d.p.Warmup+longestFill
	if since >= d.p.Warmup && filled {
		d.until.Store((since + d.p.Duration).Nanoseconds())
	}
	return false // the echo that begins it belongs to the time before
}

// over says whether the measurement has ended.
func (d *driver) over(now time.Time) bool {
	until := d.until.Load()
	return until != 0 && now.Sub(d.begin).Nanoseconds() >= until
}

// record counts one echo that was sent (or due) at sent and has come back at now.
func (d *driver) record(sent, now time.Time) {
	d.result.All++
	if !d.measuring(now) {
		return
	}
	d.result.Messages++
	// Out of range cannot be: the histogram ends above any deadline of ours.
	_ = d.result.Latency.RecordValue(max(1, now.Sub(sent).Nanoseconds()))
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
	d.start()
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
			d.result.Lost += int64(outstanding)
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
		d.record(sent[at], now)
		if d.over(now) {
			outstanding--
			continue
		}
		if err := sendAt(at, now); err != nil {
			return err
		}
	}
	return nil
}

// closedBesideReader keeps Inflight frames outstanding; a goroutine of its own reads the echoes.
func (d *driver) closedBesideReader() error {
	d.start()
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
				d.record(at, time.Now())
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
	d.start()
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
