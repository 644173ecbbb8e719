// Package control asks a running machnetd what it is doing, and gives it orders: counters, channels, connections and peers, draining a
// channel, and the level of its log. It speaks the protocol of docs/control.md over the sidecar's control socket, the one at which
// applications attach. It is plain Go: a program that only watches sidecars needs neither cgo nor the C library.
//
// Every function asks one question over a connection of its own. socket is the path of the control socket; "" stands for $MACHNET_SOCKET,
// or DefaultSocket where that is not set. The context bounds the whole exchange, so give it a deadline: a sidecar that is stopped, as by a
// debugger, accepts the question and says nothing.
//
// Errors name the socket and what to do next. They wrap ErrNoSidecar, fs.ErrPermission, ErrVersion or ErrAnswer, are a *Refusal where the
// sidecar answered with a sentence instead of what was asked for, and the context's error where that ended the exchange.
package control

import (
	"context"
	"encoding/json"
	"fmt"
)

// Stats returns the counters of the sidecar, of its engines and of its NIC.
func Stats(ctx context.Context, socket string) (*Statistics, error) {
	return ask[Statistics](ctx, socket, Query{Name: "stats"})
}

// Describe returns the settings and the NIC of the sidecar.
func Describe(ctx context.Context, socket string) (*About, error) {
	return ask[About](ctx, socket, Query{Name: "about"})
}

// Health returns how the sidecar's engines and its NIC are. One that is not healthy is an answer, not an error.
func Health(ctx context.Context, socket string) (*HealthState, error) {
	return ask[HealthState](ctx, socket, Query{Name: "health"})
}

// Channels returns the channels of the sidecar: one for each attachment of an application.
func Channels(ctx context.Context, socket string) ([]Channel, error) {
	answer, err := ask[struct {
		Channels []Channel `json:"channels"`
	}](ctx, socket, Query{Name: "channels"})
	if err != nil {
		return nil, err
	}
	return answer.Channels, nil
}

// Listeners returns the listeners of all channels; those that share a port have a row each.
func Listeners(ctx context.Context, socket string) ([]Listener, error) {
	answer, err := ask[struct {
		Listeners []Listener `json:"listeners"`
	}](ctx, socket, Query{Name: "listeners"})
	if err != nil {
		return nil, err
	}
	return answer.Listeners, nil
}

// Connections returns the connections of all channels.
func Connections(ctx context.Context, socket string) ([]Connection, error) {
	return connections(ctx, socket, Query{Name: "connections"})
}

// ConnectionsOf returns the connections of one channel.
func ConnectionsOf(ctx context.Context, socket string, channel uint64) ([]Connection, error) {
	return connections(ctx, socket, Query{Name: "connections", Channel: &channel})
}

func connections(ctx context.Context, socket string, q Query) ([]Connection, error) {
	answer, err := ask[struct {
		Connections []Connection `json:"connections"`
	}](ctx, socket, q)
	if err != nil {
		return nil, err
	}
	return answer.Connections, nil
}

// ConnectionState returns all that an engine knows of one connection. engine and id are as Connections returned them.
func ConnectionState(ctx context.Context, socket string, engine int, id string) (*State, error) {
	return ask[State](ctx, socket, Query{Name: "connection", Engine: &engine, Connection: id})
}

// Peers returns the hosts that the sidecar has an address for, asks for, or is connected to.
func Peers(ctx context.Context, socket string) ([]Peer, error) {
	answer, err := ask[struct {
		Peers []Peer `json:"peers"`
	}](ctx, socket, Query{Name: "peers"})
	if err != nil {
		return nil, err
	}
	return answer.Peers, nil
}

// Drain ends a channel as if its application had left: what it has submitted is still delivered, within the sidecar's linger, and the
// application's calls fail with ENETDOWN. Only root and the sidecar's own user may do so.
func Drain(ctx context.Context, socket string, channel uint64) error {
	_, err := Ask(ctx, socket, Query{Name: "drain", Channel: &channel})
	return err
}

// SetLogLevel sets how much the sidecar logs, until it is restarted or reloads its settings: "off", "error", "warn", "info", "debug" or
// "trace". Only root and the sidecar's own user may do so.
func SetLogLevel(ctx context.Context, socket, level string) error {
	_, err := Ask(ctx, socket, Query{Name: "log", Level: level})
	return err
}

// ask asks, and reads the answer into a T. Fields that T lacks are ignored, as the protocol demands of its readers.
func ask[T any](ctx context.Context, socket string, q Query) (*T, error) {
	document, err := Ask(ctx, socket, q)
	if err != nil {
		return nil, err
	}
	answer := new(T)
	if err := json.Unmarshal(document, answer); err != nil {
		return nil, q.failed(Socket(socket), fmt.Errorf("%w: %w; use the machnet of the same release as machnetd", ErrAnswer, err))
	}
	return answer, nil
}
