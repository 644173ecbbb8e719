package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/go/control"
)

// setupHost is one host of a measurement of set-ups: its programs, and its sidecar where they are Machnet's.
type setupHost struct {
	sidecar   *sidecar
	connector *worker
	addr      string // of its server
}

// measureSetups measures one pair of engine counts over a link: first contacts on rigs of their own, the rest on one.
func measureSetups(ctx context.Context, c setupConfig, engines enginePair, tcpBeside bool, progress *progress) ([]setupRow, error) {
	var rows []setupRow
	if c.first > 0 {
		row, err := firstSetups(ctx, c, engines, progress)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	more, err := onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) ([]setupRow, error) {
		return r.pooledSetups(ctx, c, engines, tcpBeside, progress)
	})
	return append(rows, more...), err
}

// firstSetups measures first contacts.
func firstSetups(ctx context.Context, c setupConfig, engines enginePair, progress *progress) (setupRow, error) {
	all, sum, met := load.NewHistogram(), setupCounts{}, 0
	for i := range c.first {
		_, err := onRig(ctx, c.verbose, progress, func(ctx context.Context, r *rig) (struct{}, error) {
			progress.show(i, c.first, fmt.Sprintf("%v engines, first contact", engines))
			h, counts, err := r.firstSetup(ctx, c, engines)
			if err != nil {
				return struct{}{}, err
			}
			all.Merge(h)
			sum = sum.plus(counts)
			if counts.late == 0 {
				met++
			}
			return struct{}{}, nil
		})
		if err != nil {
			return setupRow{}, err
		}
	}
	n := float64(c.first)
	return setupRow{
		Link: c.link, Engines: engines.String(), Phase: phaseFirst, Connections: c.first,
		FirstBatch: ratio(float64(met), n), Packets: ratio(float64(sum.hellos), n), Settled: ratio(float64(sum.hellos+sum.probes), n),
		P50: us(all, 50), P99: us(all, 99), P999: us(all, 99.9),
	}, nil
}

// firstSetup connects once between two new sidecars. All is warm but the way between them: both hosts have connected to themselves.
func (r *rig) firstSetup(ctx context.Context, c setupConfig, engines enginePair) (*hdrhistogram.Histogram, setupCounts, error) {
	// Waiting without a sleep: what wakes a sleeper is no part of a set-up, and on memif that is a look every 10 ms.
	a, b, _, _, err := r.buildSetup(ctx, c, engines, "yield", false)
	if err != nil {
		return nil, setupCounts{}, err
	}
	for _, h := range []*setupHost{a, b} {
		if _, err := h.connector.connect(ctx, connectOrder{Addr: h.addr, Connections: warmUp}); err != nil {
			return nil, setupCounts{}, err
		}
	}
	before, err := countSetups(ctx, a, b)
	if err != nil {
		return nil, setupCounts{}, err
	}
	h, err := a.connector.connect(ctx, connectOrder{Addr: b.addr, Connections: 1})
	if err != nil {
		return nil, setupCounts{}, err
	}
	after, err := countSetups(ctx, a, b)
	counts := after.minus(before)
	counts.late += c.triedAgain(h)
	return h, counts, err
}

// triedAgain is how many of the paper's set-ups missed with their first packets, which the sidecars do not count: those are sent again after
// 300 ms, and nothing else takes nearly as long.
func (c *setupConfig) triedAgain(h *hdrhistogram.Histogram) (n uint64) {
	const long = 100 * time.Millisecond
	if !c.paper {
		return 0
	}
	for _, bar := range h.Distribution() {
		if bar.From > long.Nanoseconds() {
			n += uint64(bar.Count)
		}
	}
	return n
}

func us(h *hdrhistogram.Histogram, percentile float64) float64 {
	return float64(h.ValueAtQuantile(percentile)) / 1e3
}

// pooledSetups measures connections after the first, and TCP's, in turn.
func (r *rig) pooledSetups(ctx context.Context, c setupConfig, engines enginePair, tcpBeside bool, progress *progress) ([]setupRow, error) {
	a, b, tcpA, tcpB, err := r.buildSetup(ctx, c, engines, c.idle, tcpBeside)
	if err != nil {
		return nil, err
	}
	phases := []string{phasePooled}
	if tcpBeside {
		phases = append(phases, phaseTCP)
	}
	if c.open > 0 {
		progress.step(fmt.Sprintf("%v engines, opening %d connections", engines, c.open))
		if _, err := a.connector.connect(ctx, connectOrder{Addr: b.addr, Connections: c.open, Keep: true}); err != nil {
			return nil, err
		}
		if tcpBeside {
			if _, err := tcpA.connector.connect(ctx, connectOrder{Addr: tcpB.addr, Connections: c.open, Keep: true}); err != nil {
				return nil, err
			}
		}
	}
	samples := map[string][]sample{}
	sum := setupCounts{}
	for round := range c.rounds {
		for turn := range phases {
			phase := phases[(round+turn)%len(phases)]
			progress.show(round*len(phases)+turn, c.rounds*len(phases), fmt.Sprintf("%v engines, %s", engines, phase))
			from, to := a, b
			for _, s := range r.sidecars {
				if phase == phaseTCP {
					s.Pause()
				} else {
					s.Resume()
				}
			}
			if phase == phaseTCP {
				from, to = tcpA, tcpB
			}
			// Not measured: the very first is not pooled, and after a pause everything is cold.
			if _, err := from.connector.connect(ctx, connectOrder{Addr: to.addr, Connections: warmUp}); err != nil {
				return nil, err
			}
			var before, after setupCounts
			if phase == phasePooled {
				if before, err = countSetups(ctx, a, b); err != nil {
					return nil, err
				}
			}
			order := connectOrder{Addr: to.addr, Connections: c.connections*(round+1)/c.rounds - c.connections*round/c.rounds, Pause: c.pause}
			h, err := from.connector.connect(ctx, order)
			if err != nil {
				return nil, err
			}
			if phase == phasePooled {
				if after, err = countSetups(ctx, a, b); err != nil {
					return nil, err
				}
				sum = sum.plus(after.minus(before))
				sum.late += c.triedAgain(h)
			}
			samples[phase] = append(samples[phase], sample{p50: us(h, 50), p99: us(h, 99), p999: us(h, 99.9)})
		}
	}
	var rows []setupRow
	for _, phase := range phases {
		of := func(f func(sample) float64) float64 { return median(samples[phase], f) }
		row := setupRow{
			Link: c.link, Engines: engines.String(), Phase: phase, Connections: c.connections,
			P50: of(func(s sample) float64 { return s.p50 }), P99: of(func(s sample) float64 { return s.p99 }), P999: of(func(s sample) float64 { return s.p999 }),
		}
		if phase == phaseTCP {
			row.Link = linkVeth
		} else {
			n := float64(c.connections)
			row.FirstBatch = ratio(n-min(n, float64(sum.late)), n)
			row.Packets, row.Settled = ratio(float64(sum.hellos), n), ratio(float64(sum.hellos+sum.probes), n)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// warmUp is how many connections precede those that are measured.
const warmUp = 50

// buildSetup starts the sidecars, whose engines wait as idle says, and the programs that connect and accept: Machnet's, and beside them TCP's.
func (r *rig) buildSetup(ctx context.Context, c setupConfig, engines enginePair, idle string, tcpBeside bool) (a, b, tcpA, tcpB *setupHost, err error) {
	kernel := kernelLoopback
	if tcpBeside || c.link == linkVeth {
		kernel = kernelVeth
	}
	hostA, hostB, err := r.hosts(benchConfig{link: c.link, kernel: kernel})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	var all []*setupHost
	for _, h := range []struct {
		*host
		own, peer int
	}{{hostA, engines.client, engines.server}, {hostB, engines.server, engines.client}} {
		h.device = append(h.device, "--engines", strconv.Itoa(h.own), "--idle", idle, "--flows", strconv.Itoa(c.open+256))
		if c.open > 0 { // TCP does not ask idle peers for a sign of life either
			h.device = append(h.device, "--keepalive", "0")
		}
		if c.link == linkMemif {
			h.device = append(h.device, "--memif-peer-queues", strconv.Itoa(h.peer))
		}
		if c.paper {
			h.device = append(h.device, "--paper", "true")
		}
		s, err := r.startSidecar(ctx, h.host)
		if err != nil {
			return nil, nil, nil, nil, err
		}
		all = append(all, &setupHost{sidecar: s})
		if err := r.startPrograms(ctx, all[len(all)-1], h.host, endpoint{transport: "machnet", socket: s.socket, network: h.network}, s.ip+":7000"); err != nil {
			return nil, nil, nil, nil, err
		}
	}
	if tcpBeside {
		for _, h := range []*host{hostA, hostB} {
			all = append(all, &setupHost{})
			if err := r.startPrograms(ctx, all[len(all)-1], h, endpoint{transport: "tcp", network: h.network}, h.kernelIP+":0"); err != nil {
				return nil, nil, nil, nil, err
			}
		}
		tcpA, tcpB = all[2], all[3]
	}
	return all[0], all[1], tcpA, tcpB, nil
}

// startPrograms starts a host's server, and a program that connects when it is told to.
func (r *rig) startPrograms(ctx context.Context, s *setupHost, h *host, e endpoint, at string) error {
	w, err := r.startWorker("serve", e.transport+" server of host "+h.name, e, at, h.core)
	if err != nil {
		return err
	}
	line, err := w.next(ctx)
	if err != nil {
		return err
	}
	s.addr = line.Addr
	if s.connector, err = r.startWorker("connect", e.transport+" client of host "+h.name, e, "", h.core); err != nil {
		return err
	}
	_, err = s.connector.next(ctx)
	return err
}

// connect has a worker obey an order, and returns how long the connections took, in nanoseconds.
func (w *worker) connect(ctx context.Context, order connectOrder) (*hdrhistogram.Histogram, error) {
	if err := w.in.Encode(order); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	line, err := w.next(ctx)
	if err != nil {
		return nil, err
	}
	if line.Result == nil {
		return nil, fmt.Errorf("%s: answered without a result", w.Name)
	}
	return line.Result.histogram()
}

// setupCounts are sums over both sidecars.
type setupCounts struct {
	hellos uint64 // SYN and SYN-ACK
	probes uint64 // and their reports
	late   uint64 // searches for ports that had to wait for a timer
}

func (c setupCounts) plus(d setupCounts) setupCounts {
	return setupCounts{hellos: c.hellos + d.hellos, probes: c.probes + d.probes, late: c.late + d.late}
}

func (c setupCounts) minus(d setupCounts) setupCounts {
	return setupCounts{hellos: c.hellos - d.hellos, probes: c.probes - d.probes, late: c.late - d.late}
}

// summed is after how long what connections counted is in the sums of their engine, which are made once a second, and later on a busy machine.
const summed = 1500 * time.Millisecond

// countSetups waits until all that was done is counted.
func countSetups(ctx context.Context, hosts ...*setupHost) (setupCounts, error) {
	var all setupCounts
	select {
	case <-ctx.Done():
		return all, context.Cause(ctx)
	case <-time.After(summed):
	}
	for _, h := range hosts {
		stats, err := control.Stats(ctx, h.sidecar.socket)
		if err != nil {
			return all, err
		}
		for _, e := range stats.Engines {
			sum := func(names ...string) (n uint64) {
				for _, name := range names {
					value, _ := e.Counters.Get(name)
					n += value
				}
				return n
			}
			all.hellos += sum("flow_hellos_sent")
			all.probes += sum("probes_sent", "paths_sent")
			all.late += sum("searches_retried", "searches_given_up")
		}
	}
	return all, nil
}
