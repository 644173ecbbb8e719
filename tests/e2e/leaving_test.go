package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// What a sender that leaves has sent: more than a reader that does not read yet has room for, and less than its own channel holds.
const (
	leftMessages = 10
	leftSize     = 30_000
	leftBytes    = leftMessages * leftSize
)

// lingering has sidecars wait so long for a slow reader that a busy machine cannot come between.
var lingering = []string{"--linger", "60000"}

// leftStream is what that was, as tests/c/leaving.c makes it.
func leftStream() []byte {
	p := make([]byte, leftBytes)
	for i := range p {
		p[i] = byte(uint32(i) * 2654435761 >> 13)
	}
	return p
}

func init() {
	if how := os.Getenv("MACHNET_TEST_LEAVE"); how != "" {
		sendAndLeave(os.Getenv("MACHNET_TEST_PEER"), how)
	}
}

// sendAndLeave is the process that sends, says so, and is gone.
func sendAndLeave(peer, how string) {
	need := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "leave:", err)
			os.Exit(1)
		}
	}
	stack, err := machnet.Attach(context.Background(), machnet.Config{})
	need(err)
	d := machnet.Dialer{Stack: stack}
	c, err := d.Dial("machnet", peer)
	need(err)
	for p := leftStream(); len(p) > 0; p = p[leftSize:] {
		_, err := c.Write(p[:leftSize])
		need(err)
	}
	switch how {
	case "finish":
		need(c.(*machnet.Conn).CloseWrite())
	case "close":
		need(c.Close())
	}
	fmt.Println("sent")
	switch how {
	case "detach":
		need(stack.Close()) // closes its connections, too
		fmt.Println("detached")
		select {}
	case "wait":
		select {}
	case "half":
		need(c.(*machnet.Conn).Send(make([]byte, machnet.MaxMessage)))
	}
	os.Exit(0)
}

// leavingC is tests/c/leaving.c, built.
var leavingC = sync.OnceValues(func() (string, error) {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	program := filepath.Join(sharedFolder, "leaving")
	out, err := exec.Command(cc, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I", "../../rust/machnet/include", "../c/leaving.c",
		"../../go/internal/core/lib/linux_"+runtime.GOARCH+"/libmachnet.a", "-o", program, "-lpthread").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build tests/c/leaving.c: %w: %s", err, out)
	}
	return program, nil
})

// child is a process that talks to the test by lines.
type child struct {
	*exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// startProcess starts a program that attaches to s.
func startProcess(t *testing.T, s *sidecar, env []string, program string, args ...string) *child {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(append(os.Environ(), "MACHNET_SOCKET="+s.socket), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &child{cmd, in, bufio.NewReader(out)}
}

// startSender starts a sender in a language.
func startSender(t *testing.T, language string, s *sidecar, peer net.Addr, how string) *child {
	t.Helper()
	if language == "Go" {
		// The race detector would have it wait for a second before it exits.
		env := []string{"MACHNET_TEST_LEAVE=" + how, "MACHNET_TEST_PEER=" + peer.String(), "GORACE=atexit_sleep_ms=0"}
		return startProcess(t, s, env, os.Args[0])
	}
	program, err := leavingC()
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(peer.String())
	if err != nil {
		t.Fatal(err)
	}
	return startProcess(t, s, nil, program, "send", host, port, how)
}

// says waits for a line of the process, which ends it if there is none.
func (p *child) says(t *testing.T, want string) string {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = p.Process.Kill() })
	defer late.Stop()
	line, err := p.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		t.Fatalf("the process said %q (%v), want %q", line, err, want)
	}
	return strings.TrimSpace(line)
}

// leave sees the process off in its way, and returns when it, or its channel, is gone.
func (p *child) leave(t *testing.T, how string) {
	t.Helper()
	p.says(t, "sent")
	switch how {
	case "wait":
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.Wait()
	case "detach":
		p.says(t, "detached")
	default:
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// readLeft reads until the end, which must come after all that was sent.
func readLeft(t *testing.T, c net.Conn, reset bool) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(c)
	if string(got) != string(leftStream()) {
		t.Errorf("read %d bytes, want the %d that were sent; then %v", len(got), leftBytes, err)
	}
	if reset && !errors.Is(err, syscall.ECONNRESET) || !reset && err != nil {
		t.Errorf("then Read said %v, want a reset: %v", err, reset)
	}
}

func acceptOne(t *testing.T, l *machnet.Listener) net.Conn {
	t.Helper()
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestWhatWasSentArrivesHoweverItsSenderLeaves(t *testing.T) {
	p := newPair(t, lingering...)
	hosts := map[string]*sidecar{"from another host": p.b, "from the same host": p.a}
	for _, language := range []string{"Go", "C"} {
		for name, host := range hosts {
			stack := host.attach(t)
			for _, how := range []string{"exit", "wait", "detach", "finish", "close"} {
				t.Run(language+" "+name+" "+how, func(t *testing.T) {
					l := listen(t, stack)
					sender := startSender(t, language, p.a, l.Addr(), how)
					c := acceptOne(t, l)
					sender.leave(t, how)
					// Go's Stack.Close closes what there is.
					reset := how == "exit" || how == "wait" || how == "detach" && language == "C"
					readLeft(t, c, reset)
				})
			}
		}
	}
}

func TestAMessageHalfSentIsTakenBackAndTheResetComesBehind(t *testing.T) {
	p := newPair(t, lingering...)
	l := listen(t, p.b.attach(t))
	sender := startSender(t, "Go", p.a, l.Addr(), "half")
	c := acceptOne(t, l)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, leftBytes+1) // one byte of the message that is not sent to its end
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got[:leftBytes]) != string(leftStream()) {
		t.Error("read other bytes than were sent")
	}
	if err := sender.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("in the middle of the message Read said %v, want io.ErrUnexpectedEOF", err)
	}
	if _, err := c.Read(got); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("behind it Read said %v, want ECONNRESET", err)
	}
}

func TestAReaderInCGetsAllThatWasSentAndThenTheEnd(t *testing.T) {
	p := newPair(t, lingering...)
	program, err := leavingC()
	if err != nil {
		t.Fatal(err)
	}
	for how, end := range map[string]string{"exit": "reset", "finish": "end", "close": "end"} {
		t.Run(how, func(t *testing.T) {
			reader := startProcess(t, p.b, nil, program, "read", p.b.ip, "0")
			port := strings.TrimPrefix(reader.says(t, "port "), "port ")
			peer, err := machnet.ResolveAddr("machnet", p.b.ip+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			sender := startSender(t, "C", p.a, peer, how)
			reader.says(t, "accepted")
			sender.leave(t, how)
			fmt.Fprintln(reader.in, "go on")
			reader.says(t, fmt.Sprintf("%d %d %s", leftBytes, leftBytes, end))
		})
	}
}

func TestAChannelCountsUntilWhatItsApplicationSentIsDelivered(t *testing.T) {
	p := newPair(t, append([]string{"--max-channels", "1"}, lingering...)...)
	l := listen(t, p.b.attach(t))
	sender := startSender(t, "Go", p.a, l.Addr(), "exit")
	c := acceptOne(t, l)
	sender.leave(t, "exit")
	attach := func() error {
		s, err := machnet.Attach(t.Context(), machnet.Config{Socket: p.a.socket})
		if err == nil {
			_ = s.Close()
		}
		return err
	}
	if err := attach(); err == nil || !strings.Contains(err.Error(), "1 of them left") {
		t.Errorf("a second application while the first one drains: %v", err)
	}
	readLeft(t, c, true)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := attach()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the last byte was delivered: %v", err)
		}
	}
}

func TestWhatIsNotReadWithinTheLingerIsReset(t *testing.T) {
	p := newPair(t, "--linger", "50")
	l := listen(t, p.b.attach(t))
	sender := startSender(t, "Go", p.a, l.Addr(), "finish")
	c := acceptOne(t, l)
	sender.leave(t, "finish")
	for deadline := time.Now().Add(time.Minute); p.a.counters(t)["linger_resets"] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the linger does not pass")
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, then %v; want ECONNRESET", len(got), err)
	}
	if string(got) != string(leftStream()[:len(got)]) || len(got) == 0 || len(got) == leftBytes {
		t.Errorf("read %d bytes, want the first of %d", len(got), leftBytes)
	}
}

// terminate sends the signal that ends a sidecar.
func (s *sidecar) terminate(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits for the end in good order.
func (s *sidecar) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-s.gone:
		if code := s.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("machnetd ended with code %d: %s", code, s.out)
		}
	case <-time.After(40 * time.Second): // less than the linger
		t.Fatalf("machnetd does not end: %s", s.out)
	}
}

func TestASidecarThatIsToldToEndDeliversFirst(t *testing.T) {
	for _, finished := range []bool{false, true} {
		t.Run(fmt.Sprintf("finished %v", finished), func(t *testing.T) {
			p := newPair(t, lingering...)
			w, r := connect(t, p.a.attach(t), p.b.attach(t))
			for p := leftStream(); len(p) > 0; p = p[leftSize:] {
				if _, err := w.Write(p[:leftSize]); err != nil {
					t.Fatal(err)
				}
			}
			if finished {
				if err := w.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			p.a.terminate(t)
			// Its own application hears of it at once, whoever reads.
			_ = w.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := w.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("Read at the sidecar that ends: %v, want ENETDOWN", err)
			}
			select {
			case <-p.a.gone:
				t.Error("it ended while its reader had not read")
			default:
			}
			_ = r.SetReadDeadline(time.Now().Add(time.Minute))
			got, err := io.ReadAll(r)
			if string(got) != string(leftStream()) {
				t.Errorf("read %d bytes, want the %d that were sent; then %v", len(got), leftBytes, err)
			}
			// A link of memif goes with the sidecar: on a machine too busy to fetch the reset from it in time, silence tells the same.
			told := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ETIMEDOUT)
			if !finished && !told || finished && err != nil {
				t.Errorf("then Read said %v", err)
			}
			p.a.awaitEnd(t)
		})
	}
}

func TestASidecarWithNothingToDeliverEndsAtOnce(t *testing.T) {
	p := newPair(t, lingering...)
	from, to := p.a.attach(t), p.b.attach(t)
	connect(t, from, to) // idle
	half, _ := connect(t, from, to)
	if err := half.Close(); err != nil {
		t.Fatal(err)
	}
	p.a.terminate(t)
	p.a.awaitEnd(t)
}

func TestASecondSignalEndsASidecarThatStillDelivers(t *testing.T) {
	p := newPair(t, lingering...)
	w, _ := connect(t, p.a.attach(t), p.b.attach(t))
	if _, err := w.Write(leftStream()); err != nil {
		t.Fatal(err)
	}
	p.a.terminate(t)
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("Read at the sidecar that ends: %v, want ENETDOWN", err)
	}
	select {
	case <-p.a.gone:
		t.Fatal("it ended though its reader has not read")
	case <-time.After(300 * time.Millisecond): // longer than it stays with nothing to deliver
	}
	p.a.terminate(t)
	p.a.awaitEnd(t)
	if said := p.a.out.String(); !strings.Contains(said, "told to end a second time") {
		t.Errorf("machnetd said %q, and not why it did not wait", said)
	}
}
