package main

import (
	"context"
	"strconv"
	"time"
)

// simArgs are what machnet-sim's figure "path" takes for a row, to send so many bytes through a relay that takes so many us for a frame. False: it has
// nothing of the kind.
func (p namedPath) simArgs(bytes int64, perFrame float64) ([]string, bool) {
	if p.messages > 0 { // it sends one way only
		return nil, false
	}
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	us := func(d time.Duration) string { return number(float64(d) / float64(time.Microsecond)) }
	if p.kernel {
		perFrame = 0 // no relay
	}
	args := []string{
		"path", "--delay", us(p.path.Delay), "--jitter", us(p.path.Jitter), "--tick", us(p.path.Tick), "--loss", number(100 * p.path.Loss), "--copies", number(100 * p.path.Copies),
		"--mtu", strconv.Itoa(pathMTU), "--units", strconv.Itoa(p.units), "--ring", strconv.Itoa(p.descriptors), "--bytes", strconv.FormatInt(bytes, 10), "--seed", "1", "--relay", number(perFrame),
	}
	if p.path.Rate > 0 {
		args = append(args, "--rate", number(float64(p.path.Rate)/1e6))
	}
	if p.shared {
		args = append(args, "--host-cores", "shared")
	}
	if p.echo {
		args = append(args, "--echo")
	}
	return args, true
}

// leastSimulated is what the simulator sends at least, bytes: less would measure how a stream begins.
const leastSimulated = 8 << 20

// simulate has machnet-sim send over a path what Machnet sent in a measurement, and returns MB/s, or nil where it cannot.
func simulate(ctx context.Context, p namedPath, sent, perFrame float64) (*float64, error) {
	args, can := p.simArgs(max(leastSimulated, int64(sent)), perFrame)
	if !can {
		return nil, nil
	}
	rows, err := simulated[struct {
		Goodput float64 `json:"goodput_mb_s"`
	}](ctx, args...)
	if err != nil {
		return nil, err
	}
	return &rows[0].Goodput, nil
}
