package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// measure has one arm do one run, and reads what every process spent meanwhile. The sidecars, which wake up
// now and then even when idle, are paused while the kernel's transports or other sidecars run, so that they do not disturb those.
func (r *rig) measure(ctx context.Context, a *arm, p driveOrder) (sample, error) {
	for _, s := range r.sidecars {
		if a.transport == "machnet" && (a.sidecars == nil || slices.Contains(a.sidecars, s)) {
			s.Resume()
		} else {
			s.Pause()
		}
	}
	if a.connections != p.Connections {
		if _, err := a.runOnce(ctx, driveOrder{Connections: p.Connections, ConnectOnly: true}); err != nil {
			return sample{}, err
		}
		a.connections = p.Connections
	}
	var lost int64
	for longest := p.Duration * 32; ; p.Duration *= 2 {
		before, err := r.cpu()
		if err != nil {
			return sample{}, err
		}
		apps, sidecars, err := a.sleeps()
		if err != nil {
			return sample{}, err
		}
		began := time.Now()
		result, err := a.runOnce(ctx, p)
		if err != nil {
			return sample{}, err
		}
		took := time.Since(began)
		after, err := r.cpu()
		if err != nil {
			return sample{}, err
		}
		lost += result.Lost
		// A short round, or one on a busy machine, may end before what is in flight has come back once, which says little; so a
		// longer one follows.
		if result.Messages < int64(p.Inflight)*int64(p.Connections) && p.Duration < longest {
			continue
		}
		if result.Messages == 0 {
			return sample{}, fmt.Errorf("%s: no echo of %d bytes came back in %v; use a longer --duration", a.client.Name, p.Size, p.Duration)
		}
		result.Lost = lost
		s, err := newSample(a, result, after.since(before), took)
		if err != nil {
			return sample{}, err
		}
		appsNow, sidecarsNow, err := a.sleeps()
		s.sleepsApp, s.sleepsSidecar = float64(appsNow-apps)/float64(result.All), float64(sidecarsNow-sidecars)/float64(result.All)
		return s, err
	}
}
