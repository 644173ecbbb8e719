package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client gives a connection to a server, both until the test ends.
func client(t *testing.T) *grpc.ClientConn {
	d, l := hosts.Two(t)
	server := newServer()
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := dial(d, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestUnaryCalls(t *testing.T) {
	conn := client(t)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if got, err := upper(t.Context(), conn, fmt.Sprint("text ", i)); err != nil || got != fmt.Sprint("TEXT ", i) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
}

func TestLargeMessages(t *testing.T) {
	conn := client(t)
	for _, size := range []int{4<<20 + 1, 16 << 20} {
		if got, err := upper(t.Context(), conn, strings.Repeat("a", size)); err != nil || got != strings.Repeat("A", size) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
}

func TestAServerStreams(t *testing.T) {
	words, err := open(t.Context(), client(t), "Split")
	if err != nil {
		t.Fatal(err)
	}
	if err := words.ClientStream.SendMsg(wrapperspb.String(strings.Repeat("word ", 2000))); err != nil {
		t.Fatal(err)
	}
	if err := words.CloseSend(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		word, err := words.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || word.Value != "word" {
			t.Fatalf("word %d: %q, %v", n, word.GetValue(), err)
		}
	}
	if n != 2000 {
		t.Errorf("%d words came, want 2000", n)
	}
}

func TestAClientStreams(t *testing.T) {
	words, err := open(t.Context(), client(t), "Join")
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := words.Send(wrapperspb.String("word")); err != nil {
			t.Fatal(err)
		}
	}
	text, err := words.CloseAndRecv()
	if want := strings.TrimSpace(strings.Repeat("word ", 2000)); err != nil || text.Value != want {
		t.Errorf("%d bytes came, %v; want %d", len(text.GetValue()), err, len(want))
	}
}

func TestBothStream(t *testing.T) {
	both, err := open(t.Context(), client(t), "Echo")
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for i := range 1000 {
			if err := both.Send(wrapperspb.String(strings.Repeat(fmt.Sprint(i), 100))); err != nil {
				sent <- err
				return
			}
		}
		sent <- both.CloseSend()
	}()
	for i := range 1000 {
		if text, err := both.Recv(); err != nil || text.Value != strings.Repeat(fmt.Sprint(i), 100) {
			t.Fatalf("text %d: %q, %v", i, text.GetValue(), err)
		}
	}
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last text: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestADeadlineEndsACallAndNotTheConnection(t *testing.T) {
	conn := client(t)
	if _, err := upper(t.Context(), conn, "first"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := upper(ctx, conn, ""); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call that nobody answers ended with %v, want %v", err, codes.DeadlineExceeded)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := upper(ctx, conn, ""); status.Code(err) != codes.Canceled {
		t.Errorf("a call that was cancelled ended with %v, want %v", err, codes.Canceled)
	}
	if got, err := upper(t.Context(), conn, "last"); err != nil || got != "LAST" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

func TestAServiceThatIsNotThereIsUnavailable(t *testing.T) {
	d, l := hosts.Two(t)
	_ = l.Close()
	conn, err := dial(d, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = upper(t.Context(), conn, "hello")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v, want %v and the reason", err, codes.Unavailable)
	}
}
