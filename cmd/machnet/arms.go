package main

import (
	"context"
	"errors"
	"fmt"
)

// Placements. With own, host A's application and sidecar share one core and host B's the other; TCP's client and
// server have a core each. With same, both processes are on one core: where kernel TCP does best.
const (
	placementOwn    = "own"
	placementSame   = "same"
	placementAsIs   = "unbound"
	placementEngine = "engine alone" // the sidecar has a core to itself, both applications share the other
)

// arm is one transport in one placement.
type arm struct {
	transport string
	placement string
	wait      string
	backend   string     // of its sidecars, with --link veth
	sidecars  []*sidecar // that run while it does, all others being paused; nil: all of Machnet's
	server    *worker
	client    *worker

	connections int // that the client has, of which the server knows
}

// name is the transport, and what its sidecars work over.
func (a *arm) name() string { return transportName(a.transport, a.backend) }

func transportName(transport, backend string) string {
	if backend == "" {
		return transport
	}
	return transport + "/" + backend
}

// build starts the sidecars and the arms.
func (r *rig) build(ctx context.Context, c benchConfig) ([]*arm, error) {
	if c.local != "" {
		return r.buildRemote(ctx, c)
	}
	a, b, err := r.hosts(c)
	if err != nil {
		return nil, err
	}
	var arms []*arm
	if c.has("machnet") {
		machnet, err := r.buildMachnet(ctx, c, a, b)
		if err != nil {
			return nil, err
		}
		arms = append(arms, machnet)
		for _, backend := range c.backends[min(1, len(c.backends)):] {
			other, err := r.buildMachnet(ctx, c, a.over(backend), b.over(backend))
			if err != nil {
				return nil, err
			}
			arms = append(arms, other)
		}
	}
	for _, transport := range []string{"tcp", "udp"} {
		if !c.has(transport) {
			continue
		}
		placements := []string{placementOwn, placementSame}
		if c.link == linkLocal {
			placements = placements[1:]
		}
		for _, placement := range placements {
			arm, err := r.buildKernel(ctx, c, transport, placement, a, b)
			if err != nil {
				return nil, err
			}
			arms = append(arms, arm)
		}
	}
	return arms, nil
}

// buildKernel starts the arm of a transport of the kernel, in placement own or same.
func (r *rig) buildKernel(ctx context.Context, c benchConfig, transport, placement string, a, b *host) (*arm, error) {
	client, server := endpoint{transport: transport, network: a.network}, endpoint{transport: transport, network: b.network, buffer: c.buffer()}
	clientCore := a.core
	if placement == placementSame {
		clientCore = b.core
	}
	arm := &arm{transport: transport, placement: placement, wait: "netpoll"}
	return arm, r.startArm(ctx, arm, server, client, b.kernelIP+":0", "", b.core, clientCore)
}

// machnetWait is how the processes of a Machnet arm wait, with the default settings that the bench uses.
const machnetWait = "sidecar adaptive, application yields 50 us, or up to 300 us where waits are that long, then parks"

func (r *rig) buildMachnet(ctx context.Context, c benchConfig, a, b *host) (*arm, error) {
	sa, sb, placement, clientCore, err := r.startSidecars(ctx, c.link, a, b)
	if err != nil {
		return nil, err
	}
	client := endpoint{transport: "machnet", socket: sa.socket, network: a.network}
	server := endpoint{transport: "machnet", socket: sb.socket, network: b.network, buffer: c.buffer()}
	arm := &arm{transport: "machnet", placement: placement, wait: machnetWait, backend: a.backend, sidecars: []*sidecar{sa, sb}}
	return arm, r.startArm(ctx, arm, server, client, sb.ip+":7000", "", b.core, clientCore)
}

// startSidecars starts the sidecars of both hosts, or the one of both, and says what is where.
func (r *rig) startSidecars(ctx context.Context, link string, a, b *host) (sa, sb *sidecar, placement string, clientCore int, err error) {
	if sa, err = r.startSidecar(ctx, a); err != nil || link == linkLocal {
		return sa, sa, placementEngine, b.core, err
	}
	sb, err = r.startSidecar(ctx, b)
	return sa, sb, placementOwn, a.core, err
}

// buildRemote measures through sidecars that run already.
func (r *rig) buildRemote(ctx context.Context, c benchConfig) ([]*arm, error) {
	var arms []*arm
	for _, transport := range c.transports {
		addr, e := c.remote, endpoint{transport: transport, socket: c.local}
		if transport != "machnet" {
			addr = c.remoteIP
		}
		if addr == "" {
			continue
		}
		a := &arm{transport: transport, placement: placementAsIs, wait: "as configured"}
		if err := r.startArm(ctx, a, e, e, "", addr, -1, -1); err != nil {
			return nil, err
		}
		arms = append(arms, a)
	}
	return arms, nil
}

// startArm starts the server and the client of one arm and connects them. Core -1 leaves a process unbound.
// An empty serverAddr means that the server runs elsewhere, at dialAddr.
func (r *rig) startArm(ctx context.Context, a *arm, server, client endpoint, serverAddr, dialAddr string, serverCore, clientCore int) error {
	name := func(side string) string { return fmt.Sprintf("%s %s (%s)", a.name(), side, a.placement) }
	if serverAddr != "" {
		w, err := r.startWorker("serve", name("server"), server, serverAddr, serverCore)
		if err != nil {
			return err
		}
		a.server = w
		line, err := w.next(ctx)
		if err != nil {
			return err
		}
		dialAddr = line.Addr
	}
	w, err := r.startWorker("drive", name("client"), client, dialAddr, clientCore)
	if err != nil {
		return err
	}
	a.client, a.connections = w, 1
	_, err = w.next(ctx)
	return err
}

// runOnce has an arm do one run.
func (a *arm) runOnce(ctx context.Context, order driveOrder) (*workResult, error) {
	if err := a.client.in.Encode(order); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	line, err := a.client.next(ctx)
	if err != nil {
		return nil, err
	}
	if line.Result == nil {
		return nil, fmt.Errorf("%s: answered without a result", a.client.Name)
	}
	return line.Result, nil
}

// skips says that a case means nothing to an arm: a datagram holds one message.
func (a *arm) skips(p driveOrder) bool {
	return a.transport == "udp" && (p.Buffered || p.Size > largestDatagram)
}
