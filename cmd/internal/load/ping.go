package load

import (
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Pinger sends single frames and keeps the round-trip times.
type Pinger struct {
	d *driver
	// Latency holds every round trip so far, in nanoseconds.
	Latency *hdrhistogram.Histogram
}

// NewPinger makes a Pinger of size bytes, MinSize to MaxSize.
func NewPinger(conn net.Conn, size int) *Pinger {
	d := newDriver(newRun(Params{Size: size, Inflight: 1}, 1), nil, conn, bufferSize)
	return &Pinger{d: d, Latency: NewHistogram()}
}

// Ping sends one frame and waits for its echo.
func (p *Pinger) Ping() (time.Duration, error) {
	began := time.Now()
	if err := p.d.send(); err != nil {
		return 0, err
	}
	if err := p.d.receive(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, p.Latency.RecordValue(max(1, took.Nanoseconds()))
}
