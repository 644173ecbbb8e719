package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/cmd/internal/procs"
	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/cmd/netns/relay"
	"github.com/machnet/machnet/go/control"
)

// Arms of `bench paths`. Each has devices of its own and a relay between them, but for the last, which leads straight from host to host.
const (
	armOurs   = "machnet"
	armYield  = "yield" // Machnet with --idle yield
	armTCP    = "tcp"
	armDirect = "direct" // Machnet
)

var pathArms = []string{armOurs, armYield, armTCP, armDirect}

// pathRig is what rows with the same processes are measured on.
type pathRig struct {
	*rig
	shape  pathShape
	arms   []*pathArm
	tcp    string // the congestion control of TCP
	middle *netns.Namespace
}

// pathShape is what rows must have in common to be measured on one pathRig.
type pathShape struct {
	kernel, shared     bool
	units, descriptors int
}

func (p namedPath) shape() pathShape { return pathShape{p.kernel, p.shared, p.units, p.descriptors} }

// pathArm is one arm, with the processes that some row has needed so far.
type pathArm struct {
	name           string
	a, b           *host
	client, server endpoint
	sidecars       []*sidecar
	relay          *worker // nil where there is none

	stream   *worker
	streamTo string
	messages *arm // of 8 MiB
	echo     *arm // of 64 B
}

// newPathRig lays the links and starts sidecars and relays.
func (r *rig) newPathRig(ctx context.Context, shape pathShape) (*pathRig, error) {
	cores, err := procs.Cores()
	if err != nil {
		return nil, err
	}
	p := &pathRig{rig: r, shape: shape}
	hostCore, relayCore := -1, -1
	if shape.shared {
		hostCore, relayCore = cores[0], cores[len(cores)-1]
		if hostCore == relayCore {
			return nil, errors.New("one core only: the rows whose names begin with \"shared\" need two; leave them out with --paths")
		}
	}
	var networks [3]*netns.Namespace
	for i := range networks {
		made, err := netns.New()
		if err != nil {
			return nil, err
		}
		networks[i], r.networks = made, append(r.networks, made)
	}
	p.middle = networks[2]
	for i, name := range pathArms {
		// As short as the names of devices must be.
		device := "path" + strconv.Itoa(i)
		arm := &pathArm{name: name}
		for j, h := range []**host{&arm.a, &arm.b} {
			*h = &host{
				name: fmt.Sprintf("%c-%s", 'A'+j, name), ip: fmt.Sprintf("10.77.%d.%d", i, j+1), network: networks[j], core: hostCore,
				device: []string{
					"--vdev", "net_af_packet0,iface=" + device, "--units", strconv.Itoa(shape.units), "--descriptors", strconv.Itoa(shape.descriptors),
				},
			}
			if name == armYield {
				(*h).device = append((*h).device, "--idle", "yield")
			}
		}
		if err := p.layPath(ctx, arm, device, relayCore); err != nil {
			return nil, err
		}
		if err := p.startPathArm(ctx, arm, device); err != nil {
			return nil, err
		}
		p.arms = append(p.arms, arm)
	}
	return p, nil
}

// layPath joins the hosts of an arm.
func (p *pathRig) layPath(ctx context.Context, arm *pathArm, device string, core int) error {
	one, other := netns.End{Namespace: arm.a.network, Device: device}, netns.End{Namespace: arm.b.network, Device: device}
	if arm.name == armDirect {
		return netns.Veth(one, other, pathMTU)
	}
	towardsA, towardsB := "a-"+device, "b-"+device
	if err := netns.Veth(one, netns.End{Namespace: p.middle, Device: towardsA}, pathMTU); err != nil {
		return err
	}
	if err := netns.Veth(other, netns.End{Namespace: p.middle, Device: towardsB}, pathMTU); err != nil {
		return err
	}
	if p.shape.kernel {
		return p.middle.Forward(towardsA, towardsB, 0)
	}
	w, err := p.startWorker(roleRelay, "relay of "+arm.name, endpoint{network: p.middle}, towardsA+","+towardsB, core)
	if err != nil {
		return err
	}
	arm.relay = w
	_, err = w.next(ctx)
	return err
}

// startPathArm starts an arm's sidecars, or has the kernel do their part.
func (p *pathRig) startPathArm(ctx context.Context, arm *pathArm, device string) error {
	if arm.name != armTCP {
		for _, h := range []*host{arm.a, arm.b} {
			s, err := p.startSidecar(ctx, h)
			if err != nil {
				return err
			}
			arm.sidecars = append(arm.sidecars, s)
		}
		arm.client = endpoint{transport: "machnet", socket: arm.sidecars[0].socket, network: arm.a.network}
		arm.server = endpoint{transport: "machnet", socket: arm.sidecars[1].socket, network: arm.b.network}
		return nil
	}
	for _, h := range []*host{arm.a, arm.b} {
		end := netns.End{Namespace: h.network, Device: device}
		if err := errors.Join(end.Address(h.ip+"/24"), end.FrameInSoftware()); err != nil {
			return err
		}
		if err := h.network.Do(func() (err error) { p.tcp, err = tuneTCP(); return err }); err != nil {
			return err
		}
	}
	arm.client, arm.server = endpoint{transport: "tcp", network: arm.a.network}, endpoint{transport: "tcp", network: arm.b.network}
	return nil
}

// tuneTCP has the kernel of the calling thread's network use BBR where it has that, and as much memory for a connection as a long path takes. It says
// which congestion control is in use.
func tuneTCP() (string, error) {
	const folder = "/proc/sys/net/ipv4/tcp_"
	there, err := os.ReadFile(folder + "available_congestion_control")
	if err != nil {
		return "", err
	}
	for _, name := range strings.Fields(string(there)) {
		if name == "bbr" {
			err = errors.Join(err, os.WriteFile(folder+"congestion_control", []byte(name), 0o644))
		}
	}
	for name, value := range map[string]string{"rmem": "4096 131072 67108864", "wmem": "4096 65536 67108864"} {
		err = errors.Join(err, os.WriteFile(folder+name, []byte(value), 0o644))
	}
	used, readErr := os.ReadFile(folder + "congestion_control")
	return strings.TrimSpace(string(used)), errors.Join(err, readErr)
}

// pathSample is one measurement of one arm.
type pathSample struct {
	rate          float64 // MB/s of payload, one way
	echo50        float64 // us, of the 64 B beside
	echo99        float64
	retransmitted float64 // units of both sidecars, or 0
	lost          float64 // frames, by the relay, both ways
	perFrame      time.Duration
}

// measurePath measures one arm over one path.
func (p *pathRig) measurePath(ctx context.Context, arm *pathArm, row namedPath, duration time.Duration) (pathSample, error) {
	for _, s := range p.rig.sidecars {
		s.Pause()
	}
	for _, s := range arm.sidecars {
		s.Resume()
	}
	if err := p.need(ctx, arm, row); err != nil {
		return pathSample{}, err
	}
	counted, err := arm.counters(ctx, &row.path)
	if err != nil {
		return pathSample{}, err
	}
	s, err := arm.load(ctx, row, duration)
	if err != nil {
		return s, err
	}
	now, err := arm.counters(ctx, nil)
	if err != nil {
		return s, err
	}
	s.retransmitted, s.lost = now.retransmitted-counted.retransmitted, now.lost-counted.lost
	if frames := now.frames - counted.frames; frames > 0 {
		s.perFrame = (now.relay - counted.relay) / time.Duration(frames)
	}
	return s, nil
}

// load has the arm's processes do what the row says for so long.
func (a *pathArm) load(ctx context.Context, row namedPath, duration time.Duration) (s pathSample, err error) {
	order := driveOrder{Connections: 1, Params: load.Params{Size: 64, Inflight: 1, Warmup: duration / 10, Duration: duration}}
	if row.echo {
		if err := a.echo.client.order(ctx, order); err != nil {
			return s, err
		}
	}
	var found *workResult
	size := load.StreamWrite
	if row.messages > 0 {
		size = load.MaxSize
		order.Size, order.Inflight = size, row.messages
		found, err = a.messages.runOnce(ctx, order)
	} else if err = a.stream.order(ctx, streamOrder{a.streamTo, duration}); err == nil {
		found, err = a.stream.result(ctx)
	}
	if err != nil {
		return s, err
	}
	s.rate = float64(found.Messages) * float64(size) / found.Seconds / 1e6
	if row.echo {
		echoes, err := a.echo.client.result(ctx)
		if err != nil {
			return s, err
		}
		h, err := echoes.histogram()
		if err != nil {
			return s, err
		}
		s.echo50, s.echo99 = float64(h.ValueAtQuantile(50))/1e3, float64(h.ValueAtQuantile(99))/1e3
	}
	// What is in flight did not come back once (measure.go): a longer run says more.
	if found.Messages < int64(row.messages) && duration < longestMeasurement {
		return a.load(ctx, row, 2*duration)
	}
	if found.Messages == 0 {
		return s, fmt.Errorf("no echo of %d bytes came back in %v; use a longer --duration", size, duration)
	}
	return s, nil
}

const longestMeasurement = 30 * time.Second

// order gives a worker something to do.
func (w *worker) order(ctx context.Context, order any) error {
	if err := w.in.Encode(order); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// result waits for the answer to an order.
func (w *worker) result(ctx context.Context) (*workResult, error) {
	line, err := w.next(ctx)
	if err == nil && line.Result == nil {
		err = fmt.Errorf("%s: answered without a result", w.Name)
	}
	return line.Result, err
}

// need starts the processes of an arm that a row needs and that are not there yet.
func (p *pathRig) need(ctx context.Context, a *pathArm, row namedPath) (err error) {
	at := func(port string) string {
		if a.name == armTCP {
			port = "0"
		}
		return a.b.ip + ":" + port
	}
	echo := func(what, port string, buffer int) (*arm, error) {
		made := &arm{transport: a.name, placement: what}
		server := a.server
		server.buffer = buffer
		return made, p.startArm(ctx, made, server, a.client, at(port), "", a.b.core, a.a.core)
	}
	switch {
	case row.messages > 0 && a.messages == nil:
		a.messages, err = echo("8 MiB", "7001", load.BufferSize(load.MaxSize, row.messages, 1))
	case row.messages == 0 && a.stream == nil:
		server := a.server
		server.stream = true
		var sink *worker
		if sink, err = p.startWorker("serve", a.name+" server of streams", server, at("7000"), a.b.core); err != nil {
			return err
		}
		var line workerLine
		if line, err = sink.next(ctx); err != nil {
			return err
		}
		a.streamTo = line.Addr
		if a.stream, err = p.startWorker("stream", a.name+" client of streams", a.client, "", a.a.core); err == nil {
			_, err = a.stream.next(ctx)
		}
	}
	if err == nil && row.echo && a.echo == nil {
		a.echo, err = echo("64 B", "7002", 0)
	}
	return err
}

// pathCounters are what an arm's sidecars and its relay have counted so far.
type pathCounters struct {
	retransmitted, lost float64
	frames              int64
	relay               time.Duration // processor time
}

// counters asks for them, and has the relay do something else from then on, unless path is nil.
func (a *pathArm) counters(ctx context.Context, path *relay.Path) (c pathCounters, err error) {
	for _, s := range a.sidecars {
		stats, err := control.Stats(ctx, s.socket)
		if err != nil {
			return c, err
		}
		for _, e := range stats.Engines {
			n, _ := e.Counters.Get("flow_retransmitted")
			c.retransmitted += float64(n)
		}
	}
	if a.relay == nil {
		return c, nil
	}
	if err := a.relay.order(ctx, relayOrder{path}); err != nil {
		return c, err
	}
	line, err := a.relay.next(ctx)
	if err != nil {
		return c, err
	}
	if line.Relay == nil {
		return c, fmt.Errorf("%s: answered without counts", a.relay.Name)
	}
	for _, way := range line.Relay {
		c.lost += float64(way.Lost)
		c.frames += way.Passed
	}
	c.relay, err = a.relay.CPU()
	return c, err
}
