package machnet

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/machnet/machnet/go/internal/core"
)

func TestCodesBecomeTheErrorsOfPackageNet(t *testing.T) {
	for name, tc := range map[string]struct {
		code core.Code
		want error
	}{
		"closed here":             {core.Closed, net.ErrClosed},
		"nobody listens":          {core.Refused, syscall.ECONNREFUSED},
		"no answer":               {core.TimedOut, syscall.ETIMEDOUT},
		"peer reset":              {core.Reset, syscall.ECONNRESET},
		"port in use":             {core.InUse, syscall.EADDRINUSE},
		"sidecar gone":            {core.NetDown, syscall.ENETDOWN},
		"no route":                {core.Unreachable, syscall.EHOSTUNREACH},
		"message too large":       {core.TooBig, ErrTooLarge},
		"other version":           {core.Version, ErrVersion},
		"no sidecar":              {core.NoSidecar, ErrNoSidecar},
		"not permitted":           {core.NotPermitted, fs.ErrPermission},
		"out of resources":        {core.NoBuffers, syscall.ENOBUFS},
		"message taken back":      {core.Aborted, io.ErrUnexpectedEOF},
		"buffer too small":        {core.MsgSize, io.ErrShortBuffer},
		"end of data":             {core.EOF, io.EOF},
		"no room":                 {core.Again, ErrWouldBlock},
		"not the sidecar's":       {core.BadAddr, syscall.EADDRNOTAVAIL},
		"write after close write": {core.Finished, syscall.EPIPE},
		"built without cgo":       {core.Unsupported, errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			if err := codeError(tc.code); !errors.Is(err, tc.want) {
				t.Fatalf("codeError(%d) = %v, want %v", tc.code, err, tc.want)
			}
		})
	}
	if err := codeError(core.OK); err != nil {
		t.Errorf("codeError(OK) = %v, want nil", err)
	}
}

func TestARefusalNamesTheLimitAndIsTheUsualErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		code core.Code
		text string
		want []error
	}{
		"own connections":    {core.FullConns, "this process has 256 connections", []error{syscall.ENOBUFS}},
		"own engine":         {core.FullEngine, "the engine that serves this process has 256 connections", []error{syscall.ENOBUFS}},
		"own listeners":      {core.FullListeners, "this process has 256 listeners", []error{syscall.ENOBUFS}},
		"own ports":          {core.FullPorts, "all 256 ports", []error{syscall.EADDRNOTAVAIL, syscall.ENOBUFS}},
		"peer's connections": {core.PeerFullConns, "the process that listens there has 256 connections", []error{syscall.ECONNREFUSED, syscall.ENOBUFS}},
		"peer's engine":      {core.PeerFullEngine, "the engine there has 256 connections", []error{syscall.ECONNREFUSED, syscall.ENOBUFS}},
		"own sidecar ends":   {core.Ending, "this host's machnetd is ending", []error{syscall.ENETDOWN}},
		"peer's ends":        {core.PeerEnding, "that host's machnetd is ending", []error{syscall.ECONNREFUSED}},
	} {
		t.Run(name, func(t *testing.T) {
			err := opError("dial", nil, nil, eventError(&core.Event{Code: tc.code, Limit: 256}))
			for _, want := range tc.want {
				if !errors.Is(err, want) {
					t.Errorf("%v is not %v", err, want)
				}
			}
			if !strings.HasPrefix(err.Error(), "dial machnet: "+tc.text) {
				t.Errorf("got %q, want it to say %q", err, tc.text)
			}
			// net/http's Serve decides by Temporary whether to go on.
			var passing interface {
				Timeout() bool
				Temporary() bool
			}
			if !errors.As(err, &passing) || passing.Timeout() || !passing.Temporary() {
				t.Errorf("%v: not a passing error, or a timeout", err)
			}
		})
	}
	if err := eventError(&core.Event{Code: core.Refused}); err != syscall.ECONNREFUSED {
		t.Errorf("a refusal without a limit: %v", err)
	}
}

func TestTimeoutsAndPassingErrorsSaySo(t *testing.T) {
	for name, tc := range map[string]struct {
		err                error
		timeout, temporary bool
	}{
		"deadline":         {os.ErrDeadlineExceeded, true, true},
		"no answer":        {codeError(core.TimedOut), true, true},
		"refused":          {codeError(core.Refused), false, false},
		"out of resources": {codeError(core.NoBuffers), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var ne net.Error
			if err := opError("accept", nil, nil, tc.err); !errors.As(err, &ne) || ne.Timeout() != tc.timeout {
				t.Fatalf("%v: Timeout() = %v, want %v", err, ne.Timeout(), tc.timeout)
			}
			//lint:ignore SA1019 net/http's Serve decides by Temporary whether to go on
			if ne.Temporary() != tc.temporary {
				t.Fatalf("%v: Temporary() = %v, want %v", ne, !tc.temporary, tc.temporary)
			}
		})
	}
}

func TestOpErrorLeavesWhatReadersCompare(t *testing.T) {
	for _, err := range []error{nil, io.EOF, io.ErrShortBuffer} {
		if got := opError("read", nil, nil, err); got != err {
			t.Errorf("opError(%v) = %v", err, got)
		}
	}
	err := opError("dial", nil, addrFrom(0x0a000002, 7000), syscall.ECONNREFUSED)
	if want := "dial machnet 10.0.0.2:7000: connection refused"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestAttachErrors(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	sentence := "attach /x.sock: nothing listens there; start machnetd"
	for name, tc := range map[string]struct {
		ctx  context.Context
		text string
		err  error
		want error
		says string
	}{
		"the library's sentence": {context.Background(), sentence, core.NoSidecar, ErrNoSidecar, sentence},
		"no sentence":            {context.Background(), "", core.NotPermitted, fs.ErrPermission, "attach /x.sock: "},
		"given up":               {canceled, "", core.Again, context.Canceled, "attach /x.sock: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := attachError(tc.ctx, "/x.sock", tc.text, tc.err)
			if !errors.Is(err, tc.want) || !strings.HasPrefix(err.Error(), tc.says) {
				t.Fatalf("got %q, want %v beginning with %q", err, tc.want, tc.says)
			}
		})
	}
}
