//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnettest"
)

func TestAStreamSurvivesFivePercentOfEveryFault(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{
		Loss: 0.05, Duplication: 0.05, Reorder: 0.05, Corruption: 0.05, Delay: 20 * time.Microsecond, Jitter: 20 * time.Microsecond,
	})
	conn := listenAndDial(t, near, far)
	sent := make([]byte, 200_000)
	for i := range sent {
		sent[i] = byte(i*7 + i/256)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("after %d bytes of %d the echo differs, or ended: %v", n, len(sent), err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}
