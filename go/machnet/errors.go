package machnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"

	"github.com/machnet/machnet/go/internal/core"
)

// The errors of this package that are no other package's.
var (
	// ErrNoSidecar is what Attach's error wraps when nobody answers at the socket.
	ErrNoSidecar = errors.New("no sidecar")
	// ErrVersion is what Attach's error wraps when this program and the sidecar were built for different channel versions.
	ErrVersion = errors.New("protocol version mismatch")
	// ErrUnsupported is what every call fails with where this package was built without cgo, or not for Linux on amd64 or arm64;
	// its text says which. It wraps errors.ErrUnsupported.
	ErrUnsupported = fmt.Errorf("machnet needs Linux on amd64 or arm64, and cgo%s: %w", core.Lack, errors.ErrUnsupported)
	// ErrTooLarge is what the error wraps for a message beyond MaxMessage, or beyond what TrySend can ever send. Nothing of it was sent.
	ErrTooLarge = errors.New("message too large")
	// ErrWouldBlock says that TrySend had no room for the message. Nothing of it was sent.
	ErrWouldBlock = errors.New("no room to send now")
)

// errAborted is what a reader gets who had begun a message that its sender took back.
var errAborted = fmt.Errorf("the sender aborted the message: %w", io.ErrUnexpectedEOF)

// tooLarge is ErrTooLarge with the lengths and the next step.
func tooLarge(size int) error {
	return fmt.Errorf("%w: %d bytes, and a message has at most %d; send several", ErrTooLarge, size, MaxMessage)
}

// contextError is the error of a context that has ended, nil before, as package net reports it: a deadline is a timeout.
func contextError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &contextEnd{err, context.Cause(ctx)}
	}
	return nil
}

// contextEnd is context.Canceled or context.DeadlineExceeded in the words of package net. Unlike the deadline of a Conn it is no
// os.ErrDeadlineExceeded, so that a caller can tell its own limit from the connection's.
type contextEnd struct{ err, cause error }

func (e *contextEnd) Error() string {
	text := "operation was canceled"
	if e.Timeout() {
		text = "i/o timeout"
	}
	if e.cause != e.err {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *contextEnd) Timeout() bool   { return e.err == context.DeadlineExceeded }
func (e *contextEnd) Temporary() bool { return e.Timeout() }
func (e *contextEnd) Unwrap() []error { return []error{e.err, e.cause} }

// downError is why a stack whose sidecar has ended could not attach again.
type downError struct{ err error }

func (e *downError) Error() string   { return syscall.ENETDOWN.Error() + ": " + e.err.Error() }
func (e *downError) Unwrap() []error { return []error{syscall.ENETDOWN, e.err} }

// temporary marks an error after which Accept may be called again, which net/http does.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return false }
func (t temporary) Unwrap() error { return t.error }

// codeError is the error that a code of the C API means to a caller of this package; nil for OK. The caller wraps it in
// a net.OpError.
func codeError(c core.Code) error {
	switch c {
	case core.OK:
		return nil
	case core.Again:
		return ErrWouldBlock
	case core.EOF:
		return io.EOF
	case core.Closed:
		return net.ErrClosed
	case core.Refused:
		return syscall.ECONNREFUSED
	case core.TimedOut:
		return syscall.ETIMEDOUT
	case core.Reset:
		return syscall.ECONNRESET
	case core.InUse:
		return syscall.EADDRINUSE
	case core.NetDown:
		return syscall.ENETDOWN
	case core.Unreachable:
		return syscall.EHOSTUNREACH
	case core.TooBig:
		return ErrTooLarge
	case core.Version:
		return ErrVersion
	case core.NoSidecar:
		return ErrNoSidecar
	case core.NotPermitted:
		return fs.ErrPermission
	case core.Invalid:
		return syscall.EINVAL
	case core.NoBuffers:
		return temporary{syscall.ENOBUFS}
	case core.Aborted:
		return errAborted
	case core.Canceled:
		return context.Canceled
	case core.MsgSize:
		return io.ErrShortBuffer
	case core.BadAddr:
		return syscall.EADDRNOTAVAIL
	case core.Finished:
		return syscall.EPIPE
	case core.Protocol:
		return syscall.EPROTO
	case core.Unsupported:
		return ErrUnsupported
	}
	return fmt.Errorf("client library: %w", c)
}

// refusal says which limit was met, and is the errors of package syscall that stand for that.
type refusal struct {
	text string
	errs []error
}

func (r *refusal) Error() string   { return r.text }
func (r *refusal) Unwrap() []error { return r.errs }
func (r *refusal) Temporary() bool { return true }
func (r *refusal) Timeout() bool   { return false }

// eventError is why a dial or a listen failed, from the event that tells it.
func eventError(ev *core.Event) error {
	var errs []error
	switch ev.Code {
	case core.FullConns, core.FullEngine, core.FullListeners:
		errs = []error{syscall.ENOBUFS}
	case core.FullPorts: // what connect(2) says of its ephemeral ports
		errs = []error{syscall.EADDRNOTAVAIL, syscall.ENOBUFS}
	case core.PeerFullConns, core.PeerFullEngine: // another host may do, as when nobody listens
		errs = []error{syscall.ECONNREFUSED, syscall.ENOBUFS}
	case core.PeerEnding:
		errs = []error{syscall.ECONNREFUSED}
	case core.Ending:
		errs = []error{syscall.ENETDOWN}
	default:
		return codeError(ev.Code)
	}
	return &refusal{text: ev.Failure(), errs: errs}
}

// errTaken is why a port cannot be listened on, with the next step.
var errTaken = fmt.Errorf("%w; choose another port, or have all its listeners set ReusePort, as one user", syscall.EADDRINUSE)

// listenError is eventError for a listen.
func listenError(ev *core.Event) error {
	if ev.Code == core.InUse {
		return errTaken
	}
	return eventError(ev)
}

// opError dresses an error for the caller. io.EOF and io.ErrShortBuffer stay bare, as readers compare them.
func opError(op string, source, addr *Addr, err error) error {
	if err == nil || err == io.EOF || err == io.ErrShortBuffer {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: source.opAddr(), Addr: addr.opAddr(), Err: err}
}

// attachError says what was attempted and wraps what callers look for. The C library's text names the socket, what is wrong and the
// next step.
func attachError(ctx context.Context, socket, text string, err error) error {
	if ctxErr := contextError(ctx); ctxErr != nil {
		return &attachFailure{fmt.Sprintf("attach %s: the sidecar did not answer in time: %v", socket, ctxErr), ctxErr}
	}
	var code core.Code
	if errors.As(err, &code) {
		err = codeError(code)
		if text != "" {
			return &attachFailure{text: text, err: err}
		}
	}
	return fmt.Errorf("attach %s: %w", socket, err)
}

// attachFailure is a sentence, mostly of the C library's, and the error it stands for.
type attachFailure struct {
	text string
	err  error
}

func (e *attachFailure) Error() string { return e.text }
func (e *attachFailure) Unwrap() error { return e.err }
func (e *attachFailure) Timeout() bool {
	timeout, ok := e.err.(interface{ Timeout() bool })
	return ok && timeout.Timeout()
}
