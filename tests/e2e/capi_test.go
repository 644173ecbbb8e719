package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// cProgram builds a program of tests/c.
func cProgram(t *testing.T, name string) string {
	t.Helper()
	archive := fmt.Sprintf("../../go/internal/core/lib/linux_%s/libmachnet.a", runtime.GOARCH)
	program := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("cc", "-std=c11", "-O2", "-Wall", "-Werror", "-pthread", "-I", "../../rust/machnet/include",
		filepath.Join("../c", name+".c"), archive, "-o", program).CombinedOutput()
	if err != nil {
		t.Fatalf("cc %s: %v\n%s", name, err, out)
	}
	return program
}

// cProcess is a C program at work.
type cProcess struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	all   *lockedBuffer
}

// startC starts a program beside this sidecar; it is killed with the test, or after a minute.
func startC(t *testing.T, s *sidecar, program string, args ...string) *cProcess {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c := &cProcess{cmd: exec.CommandContext(ctx, program, args...), all: new(lockedBuffer)}
	c.cmd.Env = append(os.Environ(), "MACHNET_SOCKET="+s.socket)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = c.all
	c.lines = bufio.NewScanner(io.TeeReader(out, c.all))
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.cmd.Wait()
	})
	return c
}

// after is the number at the end of its next line, which begins with this.
func (c *cProcess) after(t *testing.T, words string) int {
	t.Helper()
	if c.lines.Scan() {
		if rest, found := strings.CutPrefix(c.lines.Text(), words); found {
			if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
				return n
			}
		}
	}
	t.Fatalf("%s printed no number after %q: %s", c.cmd.Path, words, c.all)
	return 0
}

// end waits until it has ended well, having printed these words last.
func (c *cProcess) end(t *testing.T, last string) {
	t.Helper()
	line := ""
	for c.lines.Scan() {
		line = c.lines.Text()
	}
	if err := c.cmd.Wait(); err != nil || line != last {
		t.Errorf("%v ended with %v, its last line %q, want %q; all: %s", c.cmd.Args, err, line, last, c.all)
	}
}

func fillDuplex(p []byte, message int) {
	for k := range p {
		p[k] = byte(message*31 + k*7 + k>>8)
	}
}

// duplex does in Go what tests/c/duplex.c does: sends and receives so many messages at the same time.
func duplex(c *machnet.Conn, count, size int) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	sent := make(chan error, 1)
	go func() {
		p := make([]byte, size)
		for i := range count {
			fillDuplex(p, i)
			if err := c.Send(p); err != nil {
				sent <- fmt.Errorf("send %d: %w", i, err)
				return
			}
		}
		sent <- c.CloseWrite()
	}()
	p, want := make([]byte, size), make([]byte, size)
	for i := range count {
		n, err := c.ReadMessage(p)
		if err != nil {
			return errors.Join(fmt.Errorf("receive %d: %w", i, err), <-sent)
		}
		if fillDuplex(want, i); !bytes.Equal(p[:n], want) {
			return fmt.Errorf("message %d differs from what was sent", i)
		}
	}
	if n, err := c.ReadMessage(p); err != io.EOF {
		return fmt.Errorf("after the last message: %d bytes, %v", n, err)
	}
	return <-sent
}

// A thread for each direction of one channel, at both ends: neither may take the other's wake-up away.
func TestEachDirectionMayHaveItsOwnThread(t *testing.T) {
	program, echo := cProgram(t, "duplex"), cProgram(t, "echo")
	p := newPair(t)
	for _, size := range []struct{ count, size int }{{8, 1 << 20}, {32, 32 << 10}, {2000, 1500}} {
		count, bytes := strconv.Itoa(size.count), strconv.Itoa(size.size)
		all := fmt.Sprintf("%d sent, %d received", size.count, size.count)
		server := func(t *testing.T, s *sidecar) (*cProcess, string) {
			c := startC(t, s, program, "server", s.ip, "0", count, bytes)
			return c, strconv.Itoa(c.after(t, "listening on port "))
		}
		cWithC := func(at *sidecar) func(*testing.T) {
			return func(t *testing.T) {
				serving, port := server(t, p.b)
				startC(t, at, program, "client", p.b.ip, port, count, bytes).end(t, all)
				serving.end(t, all)
			}
		}
		t.Run(fmt.Sprintf("%dx%d", size.count, size.size), func(t *testing.T) {
			t.Run("CWithC", cWithC(p.a))
			t.Run("CWithCOnOneHost", cWithC(p.b))
			t.Run("CWithAnEcho", func(t *testing.T) {
				port := strconv.Itoa(startC(t, p.b, echo, "server", p.b.ip, "0").after(t, "listening on port "))
				startC(t, p.a, program, "client", p.b.ip, port, count, bytes).end(t, all)
			})
			t.Run("CWithGo", func(t *testing.T) {
				l := listen(t, p.b.attach(t))
				served := make(chan error, 1)
				go func() {
					c, err := l.Accept()
					if err == nil {
						err = duplex(c.(*machnet.Conn), size.count, size.size)
					}
					served <- err
				}()
				port := strconv.Itoa(int(l.Addr().(*machnet.Addr).Port))
				startC(t, p.a, program, "client", p.b.ip, port, count, bytes).end(t, all)
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
			t.Run("GoWithC", func(t *testing.T) {
				serving, port := server(t, p.b)
				d := machnet.Dialer{Stack: p.a.attach(t), Timeout: patience}
				c, err := d.Dial("machnet", net.JoinHostPort(p.b.ip, port))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := duplex(c.(*machnet.Conn), size.count, size.size); err != nil {
					t.Error(err)
				}
				serving.end(t, all)
			})
		})
	}
	for _, s := range []*sidecar{p.a, p.b} {
		if broken := s.counters(t)["channels_faulty"]; broken != 0 {
			t.Errorf("%s cut %d channels off:\n%s", s.ip, broken, s.out)
		}
	}
}

// The kernel closes the dead process's descriptors, but a child of it has copies.
func TestTheDeathOfAProcessIsNoticedThoughAChildHoldsItsSocket(t *testing.T) {
	program := cProgram(t, "orphan")
	p := sharedPair(t)
	l := listen(t, p.b.attach(t))
	c := startC(t, p.a, program, p.b.ip, strconv.Itoa(int(l.Addr().(*machnet.Addr).Port)))
	child := c.after(t, "child ")
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
	_ = l.SetDeadline(time.Now().Add(patience))
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	_ = peer.SetDeadline(time.Now().Add(patience))
	hello := make([]byte, 5)
	if _, err := io.ReadFull(peer, hello); err != nil || string(hello) != "hello" {
		t.Fatalf("read %q, %v", hello, err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	n, err := peer.Read(hello)
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("read %d bytes, %v, want the end or a reset", n, err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Errorf("the child has ended, so nothing was tested: %v", err)
	}
}
