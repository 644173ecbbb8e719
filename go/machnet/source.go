package machnet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/machnet/machnet/go/internal/core"
)

// source is where the channels of a stack come from.
type source struct {
	name    string // for errors and the log: the socket's path, or that Connect gives them
	options core.Options
	yield   time.Duration
	connect func(context.Context) (*os.File, error) // nil: options.Socket
}

func newSource(c Config) source {
	socket := c.Socket
	if socket == "" {
		socket = os.Getenv("MACHNET_SOCKET")
	}
	if socket == "" {
		socket = DefaultSocket
	}
	yield := c.Yield
	switch {
	case yield == 0:
		yield = core.YieldFor
	case yield < 0:
		yield = 0
	}
	s := source{name: socket, options: core.Options{Socket: socket, Group: newGroup()}, yield: yield, connect: c.Connect}
	if c.Engine.chosen {
		s.options.Engine = c.Engine.number + 1
	}
	if c.Connect != nil {
		s.name, s.options.Socket, s.options.UseFD = "by Config.Connect", "", true
	}
	return s
}

// newGroup is the number by which the sidecar knows that channels are of one stack: random, and not 0, which would be no group.
func newGroup() uint32 { return 1 + rand.Uint32N(math.MaxUint32) }

// attach makes one more channel of a stack.
func (s *source) attach(ctx context.Context, of *Stack) (*attachment, error) {
	options := s.options
	if s.connect != nil {
		file, err := s.connect(ctx)
		if err == nil && file == nil {
			err = errors.New("it gave no file")
		}
		if err != nil {
			return nil, s.connectError(ctx, err)
		}
		defer file.Close() // the channel has a copy
		raw, err := file.SyscallConn()
		if err == nil { // not by Fd, which may make the socket a blocking one
			err = raw.Control(func(fd uintptr) { options.FD = int(fd) })
		}
		if err != nil {
			return nil, s.connectError(ctx, err)
		}
	}
	return attach(ctx, s.name, options, s.yield, of.onTaken, of.poke)
}

// connectError is why Config.Connect gave nothing: no sidecar now, or none ever again.
func (s *source) connectError(ctx context.Context, err error) error {
	if ctxErr := contextError(ctx); ctxErr != nil {
		return &attachFailure{fmt.Sprintf("attach %s: no socket was given in time: %v", s.name, ctxErr), ctxErr}
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, ErrNoSidecar) {
		return fmt.Errorf("attach %s: %w", s.name, err)
	}
	return fmt.Errorf("attach %s: %w: %w", s.name, ErrNoSidecar, err)
}
