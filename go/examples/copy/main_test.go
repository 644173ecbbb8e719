package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
	"github.com/machnet/machnet/go/machnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFilesArriveWhole(t *testing.T) {
	d, l := hosts.Two(t)
	for _, size := range []int{0, 1, 1424, 1 << 20, 32 << 20} {
		content := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		received := make(chan error, 1)
		go func() { _, err := receive(l, &got); received <- err }()
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := send(t.Context(), d, l.Addr().String(), f)
		_ = f.Close()
		if want := fmt.Sprintf("%d bytes %x\n", size, sha256.Sum256(content)); err != nil || answer != want {
			t.Errorf("the receiver says %q, %v; want %q", answer, err, want)
		}
		if err := <-received; err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Errorf("%d bytes arrived of %d, %v", got.Len(), size, err)
		}
	}
}

// A relay is io.Copy both ways, with a connection of Machnet on one side and one of TCP on the other.
func TestARelayBetweenMachnetAndTCPKeepsHalfCloses(t *testing.T) {
	d, l := hosts.Two(t)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	go func() {
		near, err := front.Accept()
		if err != nil {
			return
		}
		far, err := d.DialContext(context.Background(), "machnet", l.Addr().String())
		if err != nil {
			_ = near.Close()
			return
		}
		there := make(chan struct{})
		go func() {
			_, _ = io.Copy(far, near)
			_ = far.(*machnet.Conn).CloseWrite()
			close(there)
		}()
		_, _ = io.Copy(near, far)
		<-there
		_, _ = near.Close(), far.Close()
	}()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() { _, _ = receive(l, io.Discard) }()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.Copy(c, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d bytes %x\n", len(content), sha256.Sum256(content)); err != nil || string(answer) != want {
		t.Errorf("the receiver says %q, %v; want %q", answer, err, want)
	}
}
