package main

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// sample is one run of one arm. Times are microseconds.
type sample struct {
	p50, p99, p999 float64
	longest        float64
	rate           float64 // echoes a second
	cpuApp         float64 // processor time of client and server for one echo
	cpuSidecar     float64 // and of the sidecars
	others         float64 // what the processes of all other arms used meanwhile, percent of one core
	lost           int64
	sleepsApp      float64 // how often a thread of client or server slept for one echo
	sleepsSidecar  float64 // and of the sidecars
}

func newSample(a *arm, result *workResult, spent cpuTimes, took time.Duration) (sample, error) {
	h, err := result.histogram()
	if err != nil {
		return sample{}, fmt.Errorf("%s: latencies: %w", a.client.Name, err)
	}
	s := sample{
		p50: float64(h.ValueAtQuantile(50)) / 1e3, p99: float64(h.ValueAtQuantile(99)) / 1e3, p999: float64(h.ValueAtQuantile(99.9)) / 1e3,
		longest: float64(h.Max()) / 1e3, rate: float64(result.Messages) / result.Seconds, lost: result.Lost,
	}
	var apps, sidecars, others time.Duration
	for p, t := range spent {
		switch {
		case p == a.client.Process || a.server != nil && p == a.server.Process:
			apps += t
		case strings.HasPrefix(p.Name, "machnetd") && a.transport == "machnet":
			sidecars += t
		default:
			others += t
		}
	}
	per := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1e3 / float64(result.All) }
	s.cpuApp, s.cpuSidecar = per(apps), per(sidecars)
	s.others = 100 * others.Seconds() / took.Seconds()
	return s, nil
}

// median over the rounds; of an even number the mean of the middle two.
func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	sort.Float64s(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}
