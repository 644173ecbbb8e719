package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/internal/procs"
	"github.com/machnet/machnet/cmd/netns"
)

// benchConfig is a benchmark as asked for.
type benchConfig struct {
	link       string
	kernel     string // the link of the kernel's transports
	transports []string
	sizes      []int
	inflights  []int
	buffered   bool // rows with several in flight come a second time, buffered
	rounds     int
	duration   time.Duration // of one round of one arm
	rate       float64
	throughput bool    // for the table and its preset; the rows hold the same
	loss       float64 // percent of the frames that the link drops
	local      string  // socket of a running sidecar; "" starts our own
	remote     string  // host:port of `machnet echo` behind another sidecar
	remoteIP   string  // host:port of `machnet echo` over the kernel's TCP and UDP
	verbose    bool
}

func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "churn" {
		return runChurn(ctx, args[1:], stdout, stderr)
	}
	var c benchConfig
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&c.link, "link", linkMemif, "what joins the two hosts: memif (two sidecars), local (two processes on one sidecar), or\nveth (a network namespace for each host, Ethernet devices of the kernel between them; root)")
	fs.StringVar(&c.kernel, "kernel", "", "what joins them for TCP and UDP: loopback, veth, or frames (veth without segmentation offload: packets of\nthe MTU, as through a NIC that cannot cut segments; root); by default loopback, veth with --link veth, frames with --loss")
	fs.Float64Var(&c.loss, "loss", 0, "`percent` of the frames to drop at random, for every transport alike, 0, or 0.0001 to 50 (with --link veth, not for udp)")
	fs.BoolVar(&c.throughput, "throughput", false, "measure throughput: 8 messages in flight, of 64 B to 8 MiB; --size and --inflight choose others")
	names := fs.String("transport", "machnet,tcp", "transports to measure: machnet, tcp, udp")
	sizes := fs.String("size", "64,1024,32768", "message sizes in bytes, 8 to 8388608")
	inflights := fs.String("inflight", "1,32", "messages in flight on the one connection")
	fs.BoolVar(&c.buffered, "buffered", true, "give rows with several in flight a second time, through a buffered writer")
	fs.IntVar(&c.rounds, "rounds", 5, "rounds; figures are medians over them")
	fs.DurationVar(&c.duration, "duration", time.Second, "length of one round of one arm")
	fs.Float64Var(&c.rate, "rate", 0, "open loop: messages a second, latencies counted from when each was due; 0 is a closed loop")
	fs.StringVar(&c.local, "local", "", "control socket of a running sidecar (with --remote)")
	fs.StringVar(&c.remote, "remote", "", "`IP:port` of machnet echo behind another running sidecar (with --local)")
	fs.StringVar(&c.remoteIP, "remote-kernel", "", "`IP:port` of machnet echo --transport tcp (or udp) to measure beside it")
	file := fs.String("json", "", "write an array of rows to this file; - is standard output")
	fs.BoolVar(&c.verbose, "verbose", false, "show what the sidecars log")
	if err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if c.throughput {
		if !given["size"] {
			*sizes = "64,512,2048,8192,32768,131072,1048576,8388608"
		}
		if !given["inflight"] {
			*inflights = "8"
		}
		c.buffered = c.buffered && given["buffered"]
	}
	c.transports = strings.Split(*names, ",")
	for _, name := range c.transports {
		if err := checkTransport(name); err != nil {
			return usagef("--%v", err)
		}
	}
	var err error
	if c.sizes, err = integers(*sizes, load.MinSize, load.MaxSize); err != nil {
		return usagef("--size %v", err)
	}
	if c.inflights, err = integers(*inflights, 1, 1<<16); err != nil {
		return usagef("--inflight %v", err)
	}
	if err := c.check(given["link"]); err != nil {
		return err
	}
	if c.kernel == "" {
		switch {
		case c.loss > 0:
			c.kernel = kernelFrames // a frame is what is lost, as on a wire, and not 64 KiB of TCP
		case c.link == linkVeth:
			c.kernel = kernelVeth
		default:
			c.kernel = kernelLoopback
		}
	}
	rows, err := bench(ctx, c, newProgress(stderr))
	if err != nil {
		return err
	}
	if *file != "-" {
		writeTable(stdout, c, rows)
	}
	return writeJSON(*file, stdout, rows)
}

// check refuses what cannot be measured. What was not given is the default, and --kernel still empty, so that an error names what the
// user gave; hence those about the link come first.
func (c *benchConfig) check(linkGiven bool) error {
	udp := c.has("udp")
	switch {
	case c.link != linkMemif && c.link != linkLocal && c.link != linkVeth:
		return usagef("--link %q: use memif, local or veth", c.link)
	case c.kernel != "" && c.kernel != kernelLoopback && c.kernel != kernelVeth && c.kernel != kernelFrames:
		return usagef("--kernel %q: use loopback, veth or frames", c.kernel)
	case (c.local == "") != (c.remote == ""):
		return usagef("--local and --remote go together: a running sidecar's socket, and the echo to reach through it")
	case linkGiven && c.local != "":
		return usagef("--link %s starts sidecars of its own; leave --local and --remote out", c.link)
	case !(c.loss >= 0 && c.loss <= 50) || c.loss > 0 && c.loss < 100*netns.LeastLoss:
		return usagef("--loss %v: percent of the frames, 0 to 50; the least above 0 is %v", c.loss, 100*netns.LeastLoss)
	case c.loss > 0 && c.link != linkVeth:
		return usagef("--loss %v: only with --link veth, where the kernel can drop frames of every transport alike", c.loss)
	case c.loss > 0 && udp:
		return usagef("--loss %v with udp: nothing sends a lost datagram again, so the client's wait of a second would be measured; use machnet and tcp", c.loss)
	case c.kernel != "" && c.local != "":
		return usagef("--kernel %s: with --local the kernel's link is whatever leads to --remote-kernel; leave --kernel out", c.kernel)
	case (c.kernel == kernelVeth || c.kernel == kernelFrames) && c.link == linkLocal:
		return usagef("--kernel %s: only with --link memif or veth, which make two hosts", c.kernel)
	case c.kernel == kernelLoopback && c.link == linkVeth:
		return usagef("--kernel loopback: the hosts of --link veth are two network namespaces; use veth or frames")
	case c.kernel == kernelVeth && c.loss > 0:
		return usagef("--kernel veth: --loss would drop 64 KiB of TCP at once; use frames")
	case c.rounds < 1:
		return usagef("--rounds %d: at least one round", c.rounds)
	case c.duration < 10*time.Millisecond:
		return usagef("--duration %v: a round lasts at least 10ms", c.duration)
	case c.remoteIP != "" && (c.remote == "" || !c.has("tcp") && !udp):
		return usagef("--remote-kernel is measured beside --local and --remote, with tcp or udp in --transport")
	case c.local != "" && c.remoteIP == "" && !c.has("machnet"):
		return usagef("--transport %s: through --local goes machnet; tcp and udp need --remote-kernel", strings.Join(c.transports, ","))
	case !(c.rate == 0 || c.rate >= 1 && c.rate <= 10e6):
		return usagef("--rate %v: 1 to 10000000 messages a second, or 0 for a closed loop", c.rate)
	case c.rate > 0 && c.throughput:
		return usagef("--rate with --throughput: an open loop has the throughput of its rate; use one of them")
	case c.rate > 0 && udp:
		return usagef("--rate with udp: a lost datagram has no latency; use machnet and tcp")
	case udp && slices.Min(c.sizes) > largestDatagram:
		return usagef("--size %d with udp: a datagram holds at most %d bytes; use a smaller size too, or machnet and tcp", slices.Min(c.sizes), largestDatagram)
	}
	return nil
}

func writeJSON[T any](file string, stdout io.Writer, rows []T) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if file == "-" {
		_, err = stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// integers reads a list like 64,1024.
func integers(list string, low, high int) ([]int, error) {
	var all []int
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < low || n > high {
			return nil, fmt.Errorf("%q: a list of numbers from %d to %d", list, low, high)
		}
		all = append(all, n)
	}
	return all, nil
}

// bench runs the rounds: for each row of the table the arms take turns, and each round begins with another arm.
func bench(ctx context.Context, c benchConfig, progress *progress) ([]row, error) {
	progress.step("starting")
	r, ctx, err := newRig(ctx, map[bool]io.Writer{true: progress.out}[c.verbose])
	if err != nil {
		return nil, err
	}
	defer r.close()
	defer progress.clear()
	rows, err := r.rounds(ctx, c, progress)
	if err != nil && !interrupted(ctx) {
		err = r.explain(err)
	}
	return rows, err
}

// interrupted says whether ctx ended because the user wanted it, not because a process of the rig failed.
func interrupted(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), context.Canceled)
}

func (r *rig) rounds(ctx context.Context, c benchConfig, progress *progress) ([]row, error) {
	if err := r.build(ctx, c); err != nil {
		return nil, err
	}
	began := time.Now()
	strangers, err := r.strangers()
	if err != nil {
		return nil, err
	}
	cases := c.cases()
	total, done := len(cases)*c.rounds*len(r.arms), 0
	rows := []row{} // an array in JSON, whatever happens
	for _, p := range cases {
		samples := make([][]sample, len(r.arms))
		for round := range c.rounds {
			for turn := range r.arms {
				i := (round + turn) % len(r.arms)
				if r.arms[i].skips(p) {
					done++
					continue
				}
				progress.show(done, total, fmt.Sprintf("%s, %s, %d in flight", r.arms[i].transport, byteSize(p.Size), p.Inflight))
				s, err := r.measure(ctx, r.arms[i], p)
				if err != nil {
					return nil, err
				}
				samples[i] = append(samples[i], s)
				done++
			}
		}
		rows = append(rows, makeRows(c, r.arms, p, samples)...)
	}
	// Over all rounds: one round may be as short as the ticks in which the machine's time is counted.
	after, err := r.strangers()
	if err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].Strangers = 100 * max(0, after-strangers).Seconds() / time.Since(began).Seconds()
	}
	return rows, nil
}

// cases lists what every arm runs, a row of the table each.
func (c benchConfig) cases() []load.Params {
	var cases []load.Params
	inflights := c.inflights
	if c.rate > 0 {
		inflights = []int{1} // an open loop has as many in flight as are due
	}
	for _, inflight := range inflights {
		for _, size := range c.sizes {
			p := load.Params{Size: size, Inflight: inflight, Rate: c.rate, Warmup: c.duration / 10, Duration: c.duration}
			cases = append(cases, p)
			if inflight > 1 && c.buffered && c.rate == 0 {
				p.Buffered = true
				cases = append(cases, p)
			}
		}
	}
	return cases
}

// largestDatagram is the largest message measured over UDP, in bytes: a datagram holds less than 64 KiB.
const largestDatagram = 60 << 10

// skips says that a case means nothing to an arm: a datagram holds one message.
func (a *arm) skips(p load.Params) bool {
	return a.transport == "udp" && (p.Buffered || p.Size > largestDatagram)
}

func (c benchConfig) has(transport string) bool {
	return slices.Contains(c.transports, transport)
}

// measure has one arm do one run, and reads what every process spent meanwhile. The sidecars, which look about
// now and then even when idle, are paused while the kernel's transports run: nothing of ours disturbs those.
func (r *rig) measure(ctx context.Context, a *arm, p load.Params) (sample, error) {
	for _, s := range r.sidecars {
		if a.transport == "machnet" {
			s.Resume()
		} else {
			s.Pause()
		}
	}
	var lost int64
	for longest := p.Duration * 32; ; p.Duration *= 2 {
		before, err := r.cpu()
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
		if result.Messages < int64(p.Inflight) && p.Duration < longest {
			continue
		}
		if result.Messages == 0 {
			return sample{}, fmt.Errorf("%s: no echo of %d bytes came back in %v; use a longer --duration", a.client.Name, p.Size, p.Duration)
		}
		result.Lost = lost
		return newSample(a, result, after.since(before), took)
	}
}

// strangers is the processor time that the machine has spent on anything but this benchmark, in ticks of 10 ms.
func (r *rig) strangers() (time.Duration, error) {
	all, err := procs.MachineCPU()
	if err != nil {
		return 0, err
	}
	ours, err := r.cpu()
	if err != nil {
		return 0, err
	}
	for _, spent := range ours {
		all -= spent
	}
	own, err := procs.CPU(os.Getpid())
	return all - own, err
}

// cpuTimes is processor time by process.
type cpuTimes map[*procs.Process]time.Duration

func (r *rig) cpu() (cpuTimes, error) {
	times := cpuTimes{}
	for _, p := range append(r.sidecarProcesses(), r.workers()...) {
		spent, err := p.CPU()
		if err != nil {
			return nil, err
		}
		times[p] = spent
	}
	return times, nil
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	d := cpuTimes{}
	for p, spent := range t {
		d[p] = spent - before[p]
	}
	return d
}
