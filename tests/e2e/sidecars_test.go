package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/machnet/machnet/go/machnet"
)

// machnetd is where `make build` puts the sidecar.
const machnetd = "../../bin/machnetd"

// sidecar is one machnetd.
type sidecar struct {
	ip, socket string
	again      func() (*sidecar, error) // starts another in its place
	cmd        *exec.Cmd
	out        logFile
	gone       chan struct{}
}

// lockedBuffer keeps what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logFile is where a sidecar prints: a file, so that what it did after it had said so is never seen before its words, as it could be
// where somebody has to copy them out of a pipe.
type logFile struct{ *os.File }

func newLogFile() (logFile, error) {
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		return logFile{}, err
	}
	return logFile{os.NewFile(uintptr(fd), "log")}, nil
}

func (l logFile) String() string {
	// By a description of our own: the position that the sidecar writes at stays.
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", l.Fd()))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// startSidecar starts machnetd at one end of a wire.
func startSidecar(folder, ip string, end wireEnd, flags ...string) (*sidecar, error) {
	if _, err := os.Stat(machnetd); err != nil {
		return nil, fmt.Errorf("%s is missing: run `make build` first", machnetd)
	}
	out, err := newLogFile()
	if err != nil {
		return nil, err
	}
	s := &sidecar{ip: ip, socket: filepath.Join(folder, ip+".sock"), out: out, gone: make(chan struct{})}
	s.again = func() (*sidecar, error) { return startSidecar(folder, ip, end, flags...) }
	// Two sidecars and the tests share the cores, so nobody spins; the figures of other policies are the bench's business.
	args := slices.Concat([]string{"--ip", ip + "/24", "--socket", s.socket, "--idle", "yield", "--log", "warn"}, end.device, flags)
	if !slices.Contains(end.device, "--xdp") { // which needs no DPDK
		args = append(args, "--file-prefix", filepath.Base(folder)+ip)
	}
	s.cmd = exec.Command(machnetd, args...)
	s.cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+folder)
	s.cmd.Stdout, s.cmd.Stderr = s.out.File, s.out.File
	// Tests that are killed leave no sidecar: the kernel ends it with the thread that started it, so that one stays.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := end.namespace.Do(s.cmd.Start)
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.gone)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(s.socket); err == nil {
			return s, nil
		}
		select {
		case <-s.gone:
			return nil, fmt.Errorf("machnetd ended: %s", s.out)
		default:
		}
		if time.Now().After(deadline) {
			s.kill()
			return nil, fmt.Errorf("machnetd made no socket in 20 s: %s", s.out)
		}
	}
}

// stop ends the sidecar in order.
func (s *sidecar) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(5 * time.Second):
		s.kill()
	}
}

// kill ends it as a crash does.
func (s *sidecar) kill() {
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// restart starts another sidecar where one has ended. Its socket may be there before it listens.
func (s *sidecar) restart(t *testing.T) *sidecar {
	t.Helper()
	_ = os.Remove(s.socket)
	next, err := s.again()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		next.stop()
		if t.Failed() {
			t.Logf("the restarted machnetd %s printed: %s", next.ip, strings.TrimSpace(next.out.String()))
		}
	})
	return next
}

// pair is two hosts joined by a wire.
type pair struct {
	a, b *sidecar
	wire *wire
}

// startPair starts a sidecar at each end of a wire, which is the pair's from now on.
func startPair(folder string, w *wire, flags ...string) (*pair, error) {
	a, err := startSidecar(folder, "10.0.0.1", w.a, flags...)
	if err != nil {
		w.close()
		return nil, err
	}
	b, err := startSidecar(folder, "10.0.0.2", w.b, flags...)
	if err != nil {
		a.stop()
		w.close()
		return nil, err
	}
	return &pair{a, b, w}, nil
}

// newPair starts a pair for one test alone, on the link of this run.
func newPair(t *testing.T, flags ...string) *pair {
	t.Helper()
	folder := shortTempDir(t)
	return newPairOn(t, folder, newWire(t, folder), flags...)
}

// newPairOn starts a pair for one test alone.
func newPairOn(t *testing.T, folder string, w *wire, flags ...string) *pair {
	t.Helper()
	p, err := startPair(folder, w, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	return p
}

// shortTempDir is t.TempDir where paths stay short enough for Unix sockets.
func shortTempDir(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

func (p *pair) stop(t *testing.T) {
	for _, s := range []*sidecar{p.b, p.a} {
		s.stop()
		if t != nil && t.Failed() {
			t.Logf("machnetd %s printed: %s", s.ip, strings.TrimSpace(s.out.String()))
		}
	}
	p.wire.close()
}

// shared is the pair of all tests that leave their sidecars as they found them.
var shared struct {
	once sync.Once
	pair *pair
	err  error
}

func sharedPair(t *testing.T) *pair {
	t.Helper()
	needLink(t)
	shared.once.Do(func() {
		w, err := makeWire(sharedFolder)
		if err != nil {
			shared.err = err
			return
		}
		shared.pair, shared.err = startPair(sharedFolder, w)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	for _, s := range []*sidecar{shared.pair.a, shared.pair.b} {
		select {
		case <-s.gone:
			t.Fatalf("machnetd %s has ended: %s", s.ip, s.out)
		default:
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("machnetd has printed so far:\n%s\n%s", shared.pair.a.out, shared.pair.b.out)
		}
	})
	return shared.pair
}

var sharedFolder string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		err := checkLink()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		if sharedFolder, err = os.MkdirTemp("", "mn"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(sharedFolder)
		code := m.Run()
		if shared.pair != nil {
			shared.pair.stop(nil)
		}
		return code
	}())
}

// attach gives a stack that closes with the test.
func (s *sidecar) attach(t testing.TB) *machnet.Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stack, err := machnet.Attach(ctx, machnet.Config{Socket: s.socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	return stack
}

func listen(t testing.TB, s *machnet.Stack) *machnet.Listener {
	t.Helper()
	lc := machnet.ListenConfig{Stack: s}
	l, err := lc.Listen(context.Background(), "machnet", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*machnet.Listener)
}

func dial(t testing.TB, s *machnet.Stack, to net.Addr) *machnet.Conn {
	t.Helper()
	d := machnet.Dialer{Stack: s, Timeout: 10 * time.Second}
	c, err := d.Dial("machnet", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*machnet.Conn)
}

// connect gives both ends of a connection: dialled by one stack, accepted by the other.
func connect(t testing.TB, from, to *machnet.Stack) (dialled, accepted *machnet.Conn) {
	t.Helper()
	l := listen(t, to)
	defer l.Close()
	dialled = dial(t, from, l.Addr())
	_ = l.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return dialled, c.(*machnet.Conn)
}

// twoHosts is a connection between the hosts of the shared pair.
func twoHosts(t testing.TB) (dialled, accepted *machnet.Conn) {
	t.Helper()
	p := sharedPair(t.(*testing.T))
	return connect(t, p.a.attach(t), p.b.attach(t))
}
