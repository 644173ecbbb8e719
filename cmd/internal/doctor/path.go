package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/machnet/machnet/cmd/internal/load"
	"github.com/machnet/machnet/go/control"
	"github.com/machnet/machnet/go/machnet"
)

// peerPath is what is known of the way to the peer.
type peerPath struct {
	host   string           // the peer's address
	stacks []*machnet.Stack // one at each engine
	conns  []*machnet.Conn  // those that could be made, first the one that is measured
	err    error            // why there is none
	tried  int

	before *control.Statistics     // counters before the first connection
	echoes *hdrhistogram.Histogram // round trips, nanoseconds
	noEcho error                   // why they ended early
	state  *control.State          // of the first connection, after the echoes
}

const (
	// manyConnections spread over the UDP ports: where a quarter of the ports is closed, chance is no explanation (see tell).
	manyConnections = 64
	manyAtOnce      = 8
	manyEchoes      = 1000
	echoSize        = 64
	// dialPatience is a few repetitions of a lost SYN, and more than an ARP that nobody answers takes (1 s).
	dialPatience = 2 * time.Second
)

// reach connects to the peer, once for all checks.
func (e *Env) reach(ctx context.Context) *peerPath {
	if e.path != nil {
		return e.path
	}
	p := &peerPath{}
	e.path = p
	p.host, _, _ = net.SplitHostPort(e.Peer)
	if p.before, p.err = control.Stats(ctx, e.socket()); p.err != nil {
		return p
	}
	for engine := range p.before.Engines {
		stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket(), Engine: machnet.OnEngine(engine)})
		if err != nil {
			p.err = err
			return p
		}
		p.stacks = append(p.stacks, stack)
	}
	first, err := p.dial(ctx, e.Peer, 0)
	if err != nil {
		p.err = err
		return p
	}
	p.tried, p.conns = 1, append(p.conns, first)
	p.measure(ctx, e.socket())
	p.spread(ctx, e.Peer)
	return p
}

// spread makes many connections, several at a time: where ports are closed each takes some tries.
func (p *peerPath) spread(ctx context.Context, to string) {
	var mu sync.Mutex
	var dialling sync.WaitGroup
	for range manyConnections / manyAtOnce {
		if ctx.Err() != nil || len(p.conns) < p.tried/2 {
			return
		}
		for i := range manyAtOnce {
			n := p.tried + i
			dialling.Go(func() {
				c, err := p.dial(ctx, to, n)
				if err != nil {
					return
				}
				// A connection may begin by ports that do not pass, and has left them when an echo has come.
				_ = c.SetDeadline(time.Now().Add(dialPatience))
				if _, err := load.NewPinger(c, echoSize).Ping(); err != nil {
					_ = c.Close()
					return
				}
				mu.Lock()
				defer mu.Unlock()
				p.conns = append(p.conns, c)
			})
		}
		dialling.Wait()
		p.tried += manyAtOnce
	}
}

// dial makes connection n, by the engines in turn.
func (p *peerPath) dial(ctx context.Context, to string, n int) (*machnet.Conn, error) {
	dialer := machnet.Dialer{Stack: p.stacks[n%len(p.stacks)], Timeout: dialPatience}
	c, err := dialer.DialContext(ctx, "machnet", to)
	if err != nil {
		return nil, err
	}
	return c.(*machnet.Conn), nil
}

// measure asks for echoes on the first connection: one by one, and then with several under way at once, so that one can overtake another.
func (p *peerPath) measure(ctx context.Context, socket string) {
	conn := p.conns[0]
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	pinger := load.NewPinger(conn, echoSize)
	p.echoes = pinger.Latency
	for began := time.Now(); p.echoes.TotalCount() < manyEchoes && time.Since(began) < time.Second && ctx.Err() == nil && p.noEcho == nil; {
		_, p.noEcho = pinger.Ping()
	}
	if p.noEcho == nil {
		_, p.noEcho = load.Drive([]net.Conn{conn}, load.Params{Size: echoSize, Inflight: 20, Duration: 300 * time.Millisecond})
	}
	_ = conn.SetDeadline(time.Time{})
	p.state = p.look(ctx, socket)
}

// look asks what the sidecar knows of the first connection; nil where it does not say.
func (p *peerPath) look(ctx context.Context, socket string) *control.State {
	connections, err := control.Connections(ctx, socket)
	if err != nil {
		return nil
	}
	local, peer := p.conns[0].LocalAddr().String(), p.conns[0].RemoteAddr().String()
	for _, c := range connections {
		if c.Local == local && c.Peer == peer {
			state, _ := control.ConnectionState(ctx, socket, c.Engine, c.Connection)
			return state
		}
	}
	return nil
}

func (p *peerPath) close() {
	for _, c := range p.conns {
		_ = c.Close()
	}
	for _, stack := range p.stacks {
		_ = stack.Close()
	}
}

// needsPath says why there is no path to look at; nil where there is one.
func (e *Env) needsPath(ctx context.Context) *Result {
	var r Result
	switch {
	case e.Peer == "":
		r = skip("no peer: name one that runs `machnet echo` by --peer")
	case e.about == nil:
		r = skip("no sidecar to reach the peer by")
	case e.reach(ctx).err != nil:
		r = skip("the peer does not answer")
	default:
		return nil
	}
	return &r
}

// checkGateway has the sidecar ask for the gateway's MAC address, by a connection to it that nobody has to accept.
func checkGateway(ctx context.Context, e *Env) Result {
	switch {
	case e.settings != nil && e.settings.Gateway == nil:
		return ok("none is set: only hosts of %s/%d can be reached", e.settings.IP, e.settings.Prefix)
	case e.about == nil:
		return skip("no sidecar that could ask for it by ARP")
	}
	gateway := *e.settings.Gateway
	expected := "an answer to ARP for " + gateway
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: e.socket()})
	if err != nil {
		return skip("%v", err)
	}
	defer stack.Close()
	asking, stop := context.WithTimeout(ctx, dialPatience)
	defer stop()
	go func() {
		dialer := machnet.Dialer{Stack: stack}
		if c, err := dialer.DialContext(asking, "machnet", net.JoinHostPort(gateway, "1")); err == nil {
			_ = c.Close()
		}
	}()
	for {
		peers, err := control.Peers(asking, e.socket())
		if err != nil {
			break
		}
		for _, peer := range peers {
			if peer.NextHop == nil || *peer.NextHop != gateway {
				continue
			}
			switch peer.State {
			case "known", "fixed":
				return ok("%s is at %s", gateway, *peer.MAC)
			case "unreachable":
				stop()
			}
		}
		select {
		case <-asking.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	r := Result{Status: Fail, Found: "nobody answers ARP for " + gateway, Expected: expected,
		Advice: "is it the subnet's gateway, and is the NIC in that subnet? In a cloud the first address of the subnet is the usual one"}
	if right, at := e.kernelGateway(); right != "" && right != gateway {
		r.Command, r.Advice = e.change(setGateway, right)
		r.Expected += fmt.Sprintf("; the kernel's default route by %s leads to %s", at, right)
	}
	return r
}

// kernelGateway is what the kernel knows of the NIC's, else of the machine's.
func (e *Env) kernelGateway() (gateway, by string) {
	if e.nic != nil && e.nic.Gateway.IsValid() {
		return e.nic.Gateway.String(), e.nic.Name
	}
	if name, address, err := e.Root.DefaultRoute(); err == nil && address.IsValid() {
		return address.String(), name
	}
	return "", ""
}

func checkPeer(ctx context.Context, e *Env) Result {
	if e.Peer == "" || e.about == nil {
		return *e.needsPath(ctx)
	}
	p := e.reach(ctx)
	err := p.err
	expected := "a connection to the echo at " + e.Peer
	first, last := e.settings.UDPPorts[0], e.settings.UDPPorts[1]
	switch {
	case err == nil:
		return ok("connected to %s", e.Peer)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Result{Status: Fail, Found: "its sidecar answers, and nobody listens there", Expected: expected, Command: "machnet echo &", On: p.host}
	case errors.Is(err, syscall.EHOSTUNREACH):
		return Result{Status: Fail, Found: "nobody answers ARP on the way to " + p.host, Expected: expected,
			Command: "machnet ctl health || systemctl start machnetd", On: p.host, Advice: "is the address that of its sidecar, and of this subnet? If it is of another: see the check gateway"}
	case errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded):
		r := Result{Status: Fail, Found: fmt.Sprintf("its MAC address is known, and no packet comes back in %v", dialPatience), Expected: expected,
			Advice: fmt.Sprintf("let UDP ports %d-%d in, at both hosts, in the cloud's security group or firewall; which way is closed: look there whether rx_frames of `machnet ctl stats` grows meanwhile", first, last)}
		if e.settings.Reverse == "own" {
			r.Command, _ = e.change(setReverse, "mirrored")
			r.Advice = "the command is for a network that lets in replies only; else " + r.Advice
		}
		return r
	}
	return Result{Status: Fail, Found: err.Error(), Expected: expected, Advice: "as the sentence says"}
}
