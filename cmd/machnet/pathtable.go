package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/netns/relay"
)

// namedPath is a path that `bench paths` measures, and what goes over it.
type namedPath struct {
	name   string
	path   relay.Path
	kernel bool // the kernel of the host in the middle forwards, and no relay
	shared bool // both hosts on the first core and the relay on the last; otherwise nothing is bound to a core

	// Of the sidecars. A connection may have a quarter of its channel's units under way (docs/configuration.md), and three quarters of a receive ring's
	// descriptors promised, or over a long path what fills these while nobody looks (docs/transport.md, Credit).
	units, descriptors int

	messages int  // echoes of 8 MiB in flight, so that both directions are full; 0: a stream from A to B
	echo     bool // an echo of 64 B on a connection beside, for its latency

	least time.Duration // of a measurement of the usual duration: a long path takes its round trips to fill
	asked float64       // of TCP's rate
}

// The hosts' links carry packets of this size, and so do TCP's.
const pathMTU = 1500

// usualDuration is the default of --duration.
const usualDuration = 2 * time.Second

// lasts is how long a measurement takes for which so much was asked. Who asks for less than is usual, as a test does, gets as much less everywhere.
func (p namedPath) lasts(asked time.Duration) time.Duration {
	share := min(1, asked.Seconds()/usualDuration.Seconds())
	return max(asked, time.Duration(share*float64(p.least)))
}

// machnetd's defaults.
const (
	usualUnits       = 1024
	usualDescriptors = 256
)

// paths are all of them, those on one set of processes in a row.
func paths() []namedPath {
	const us, ms = time.Microsecond, time.Millisecond
	usual := namedPath{units: usualUnits, descriptors: usualDescriptors, asked: 0.8}
	with := func(name string, p relay.Path, change ...func(*namedPath)) namedPath {
		row := usual
		row.name, row.path = name, p
		for _, c := range change {
			c(&row)
		}
		return row
	}
	shared := func(p *namedPath) { p.shared = true }
	// What a round trip of two milliseconds or more takes.
	far := func(units, descriptors int, least time.Duration) func(*namedPath) {
		return func(p *namedPath) { p.units, p.descriptors, p.least = units, descriptors, least }
	}
	// Delay and jitter of 200 us, 100 more or less.
	lossy := func(percent float64) relay.Path {
		return relay.Path{Delay: 100 * us, Jitter: 200 * us, Loss: percent / 100}
	}
	all := []namedPath{with("kernel", relay.Path{}, func(p *namedPath) { p.kernel = true })}
	short := []struct {
		name string
		path relay.Path
	}{
		{"relay", relay.Path{}},
		{"tick-100us", relay.Path{Tick: 100 * us}},
		{"tick-500us", relay.Path{Tick: 500 * us}},
		{"delay-200us", relay.Path{Delay: 200 * us}},
	}
	for _, s := range short {
		all = append(all, with(s.name, s.path))
	}
	// A line that is full long before the relay is, with as much room as machnet-sim's has.
	all = append(all, with("rate-400mbit", relay.Path{Delay: 200 * us, Rate: 400e6, Buffer: 1 << 20}))
	for _, percent := range []float64{0.1, 1, 3, 5} {
		all = append(all, with(fmt.Sprintf("loss-%g", percent), lossy(percent), func(p *namedPath) { p.asked, p.echo = 1, true }))
	}
	copies := lossy(3)
	copies.Copies = 0.01
	all = append(all, with("loss-3-messages", copies, func(p *namedPath) { p.asked, p.messages, p.echo, p.least = 0.8, 2, true, 4*time.Second }))
	all = append(all, with("delay-1ms", relay.Path{Delay: ms}, far(4096, 1024, 0)))
	for _, s := range short {
		all = append(all, with("shared-"+s.name, s.path, shared))
	}
	return append(all,
		with("shared-delay-1ms", relay.Path{Delay: ms}, far(4096, 1024, 0), shared),
		with("delay-10ms", relay.Path{Delay: 10 * ms}, far(16384, 4096, 3*time.Second)),
		with("delay-50ms", relay.Path{Delay: 50 * ms}, far(65536, 4096, 5*time.Second)),
	)
}

// choosePaths are those that a list names; "" names all.
func choosePaths(list string) ([]namedPath, error) {
	all := paths()
	if list == "" {
		return all, nil
	}
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%q: use %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(p namedPath) bool { return !slices.Contains(wanted, p.name) }), nil
}
