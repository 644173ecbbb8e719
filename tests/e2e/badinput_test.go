package e2e

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// What the user does wrong, seen from the command line: an exit code and one sentence that names what is meant.
func TestEachMistakeIsOneSentence(t *testing.T) {
	onAnyLink(t)
	p := sharedPair(t)
	none := filepath.Join(shortTempDir(t), "none.sock")
	taken := listen(t, p.b.attach(t)).Addr().String()
	for name, tc := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"no sidecar":           {[]string{"ping", "--socket", none, "10.0.0.2"}, 1, []string{none, "start machnetd"}},
		"no sidecar to bench":  {[]string{"bench", "--local", none, "--remote", "10.0.0.2:7000"}, 1, []string{none, "start machnetd"}},
		"nobody listens":       {[]string{"ping", "--socket", p.a.socket, "10.0.0.2:9"}, 1, []string{"10.0.0.2:9", "connection refused", "machnet echo"}},
		"silent host":          {[]string{"ping", "--socket", p.a.socket, "-W", "300ms", "10.0.0.77"}, 1, []string{"10.0.0.77:7000", "no answer in 300ms"}},
		"port in use":          {[]string{"echo", "--socket", p.b.socket, "--addr", taken}, 1, []string{taken, "address already in use"}},
		"address of another":   {[]string{"echo", "--socket", p.b.socket, "--addr", "10.9.9.9:1"}, 1, []string{"10.9.9.9:1", "10.0.0.2"}},
		"port out of range":    {[]string{"ping", "--socket", p.a.socket, "10.0.0.2:99999"}, 1, []string{"10.0.0.2:99999", "65535"}},
		"message too large":    {[]string{"ping", "-s", "8388609", "10.0.0.2"}, 2, []string{"-s 8388609", "8388608 bytes"}},
		"no peer":              {[]string{"ping"}, 2, []string{"name one peer"}},
		"count below zero":     {[]string{"ping", "10.0.0.2", "-c", "-1"}, 2, []string{"-c -1"}},
		"no time to wait":      {[]string{"ping", "10.0.0.2", "-W", "0s"}, 2, []string{"-W 0s"}},
		"unknown flag":         {[]string{"ping", "--bogus", "10.0.0.2"}, 2, []string{"bogus", "machnet ping -h"}},
		"flag without sense":   {[]string{"bench", "--rounds", "x"}, 2, []string{`"x"`, "rounds", "machnet bench -h"}},
		"no round":             {[]string{"bench", "--rounds", "0"}, 2, []string{"--rounds 0", "at least one"}},
		"unknown transport":    {[]string{"bench", "--transport", "tcp,quic"}, 2, []string{`"quic"`, "machnet, tcp or udp"}},
		"unknown link":         {[]string{"bench", "--link", "wire"}, 2, []string{`"wire"`, "memif, local or veth"}},
		"loss beyond":          {[]string{"bench", "--link", "veth", "--loss", "51"}, 2, []string{"--loss 51", "0 to 50"}},
		"loss below zero":      {[]string{"bench", "--link", "veth", "--loss", "-1"}, 2, []string{"--loss -1", "0 to 50"}},
		"loss where none is":   {[]string{"bench", "--loss", "1"}, 2, []string{"--loss 1", "only with --link veth"}},
		"loss of others":       {[]string{"bench", "--loss", "1", "--local", none, "--remote", "10.0.0.2:1"}, 2, []string{"--loss 1", "only with --link veth"}},
		"loss on one host":     {[]string{"bench", "--link", "local", "--loss", "1"}, 2, []string{"--loss 1", "only with --link veth"}},
		"loss of nothing":      {[]string{"bench", "--link", "veth", "--loss", "0.00009"}, 2, []string{"--loss 9e-05", "the least above 0 is 0.0001"}},
		"loss for ever":        {[]string{"bench", "--link", "veth", "--loss", "1", "--transport", "tcp,udp"}, 2, []string{"--loss 1 with udp", "use machnet and tcp"}},
		"datagrams too large":  {[]string{"bench", "--transport", "udp,tcp", "--size", "65536,1048576"}, 2, []string{"--size 65536 with udp", "61440 bytes"}},
		"a duration too short": {[]string{"bench", "--duration", "9ms"}, 2, []string{"--duration 9ms", "at least 10ms"}},
		"unknown kernel link":  {[]string{"bench", "--kernel", "wire"}, 2, []string{`--kernel "wire"`, "loopback, veth or frames"}},
		"kernel on one host":   {[]string{"bench", "--link", "local", "--kernel", "frames"}, 2, []string{"--kernel frames", "memif or veth"}},
		"kernel elsewhere":     {[]string{"bench", "--kernel", "veth", "--local", none, "--remote", "10.0.0.2:1"}, 2, []string{"--kernel veth", "leave --kernel out"}},
		"kernel on loopback":   {[]string{"bench", "--link", "veth", "--kernel", "loopback"}, 2, []string{"--kernel loopback", "use veth or frames"}},
		"kernel with loss":     {[]string{"bench", "--link", "veth", "--loss", "1", "--kernel", "veth"}, 2, []string{"--kernel veth", "--loss", "use frames"}},
		"nothing to measure":   {[]string{"bench", "--local", none, "--remote", "10.0.0.2:1", "--transport", "tcp"}, 2, []string{"--transport tcp", "need --remote-kernel"}},
		"two kinds of link":    {[]string{"bench", "--link", "veth", "--local", none, "--remote", "10.0.0.2:1"}, 2, []string{"--link veth", "leave --local and --remote out"}},
		"a rate's throughput":  {[]string{"bench", "--throughput", "--rate", "10"}, 2, []string{"--rate with --throughput", "use one of them"}},
		"size beyond":          {[]string{"bench", "--size", "64,8388609"}, 2, []string{"8388609", "8 to 8388608"}},
		"remote alone":         {[]string{"bench", "--remote", "10.0.0.2:1"}, 2, []string{"--local and --remote"}},
		"no pair of engines":   {[]string{"bench", "setup", "--engines", "2x2,4"}, 2, []string{`"2x2,4"`, "1x1,2x4", "1 to 64"}},
		"too many engines":     {[]string{"bench", "setup", "--engines", "65x1"}, 2, []string{`"65x1"`, "1 to 64"}},
		"set-up elsewhere":     {[]string{"bench", "setup", "--link", "local"}, 2, []string{`--link "local"`, "sim, memif or veth"}},
		"too many connections": {[]string{"bench", "setup", "--connections", "20001"}, 2, []string{"--connections 20001", "1 to 20000 with --link memif"}},
		"empty rounds":         {[]string{"bench", "setup", "--connections", "3", "--rounds", "4"}, 2, []string{"--rounds 4", "--connections, 3"}},
		"no first contact":     {[]string{"bench", "setup", "--first", "-1"}, 2, []string{"--first -1", "0 to 10000"}},
		"too many open":        {[]string{"bench", "setup", "--open", "20001"}, 2, []string{"--open 20001", "0 to 20000"}},
		"waiting in style":     {[]string{"bench", "setup", "--idle", "lazily"}, 2, []string{`--idle "lazily"`, "adaptive, yield or spin"}},
		"a pause of no time":   {[]string{"bench", "setup", "--pause", "-1s"}, 2, []string{"--pause -1s", "cannot be negative"}},
		"rounds of no clock":   {[]string{"bench", "setup", "--link", "sim", "--rounds", "2"}, 2, []string{"--rounds with --link sim", "leave it out"}},
		"stray argument":       {[]string{"demo", "now"}, 2, []string{`"now"`}},
		"unknown command":      {[]string{"dance"}, 2, []string{`"dance"`, "machnet help"}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			c := startCommand(t, tc.args...)
			code := c.exit(t, patience)
			took := time.Since(began)
			said := c.errs.String()
			if code != tc.code || strings.Count(said, "\n") != 1 || c.out.String() != "" {
				t.Errorf("exit code %d and %q; want %d and one line on standard error", code, said, tc.code)
			}
			for _, want := range tc.want {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in %q", want, said)
				}
			}
			if name == "silent host" && (took < 300*time.Millisecond || took > 5*time.Second) {
				t.Errorf("gave up after %v, want 300 ms", took)
			}
			c.leavesNothing(t)
		})
	}
}

func TestOutputThatCannotBeWrittenIsAnErrorAndNeverLost(t *testing.T) {
	p := sharedPair(t)
	l := listen(t, p.b.attach(t))
	go echoEach(l)
	for name, args := range map[string][]string{
		"version": {"version"},
		"help":    {"help"},
		"flags":   {"bench", "-h"},
		"bench":   {"bench", "--transport", "tcp", "--rounds", "1", "--duration", "20ms", "--size", "64", "--inflight", "1"},
		"json":    {"bench", "--transport", "tcp", "--rounds", "1", "--duration", "20ms", "--size", "64", "--inflight", "1", "--json", "-"},
		"ping":    {"ping", "--socket", p.a.socket, "-c", "1", l.Addr().String()},
		"echo":    {"echo", "--socket", p.b.socket, "--addr", ":0"}, // serves for ever where it is not told
		"demo":    {"demo"},
	} {
		t.Run(name, func(t *testing.T) {
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			reader.Close()
			defer writer.Close()
			for _, out := range []struct {
				file  *os.File
				lines int
			}{{full, 1}, {writer, 0}} {
				c := &command{folder: shortTempDir(t), errs: new(lockedBuffer), out: new(lockedBuffer), gone: make(chan struct{})}
				c.cmd = exec.Command(machnetCommand, args...)
				c.cmd.Stdout, c.cmd.Stderr = out.file, c.errs
				c.start(t)
				code := c.exit(t, patience)
				said := c.errs.String()
				if code != 1 || strings.Count(said, "\n") != out.lines || out.lines == 1 && !strings.Contains(said, "no space left on device") {
					t.Errorf("to %s: exit code %d and %q; want 1 and %d lines", out.file.Name(), code, said, out.lines)
				}
				c.leavesNothing(t)
			}
		})
	}
}

func TestASilentHostIsETIMEDOUTInTheSidecarsTime(t *testing.T) {
	folder := shortTempDir(t)
	w := newWire(t, folder)
	s, err := startSidecar(folder, "10.0.0.1", w.a, "--connect-timeout", "300", "--neighbor", "10.0.0.78=02:00:00:00:00:78")
	if err != nil {
		w.close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		w.close()
	})
	d := machnet.Dialer{Stack: s.attach(t)}
	for name, address := range map[string]string{
		"that answers no ARP":    "10.0.0.77:1",
		"that answers no packet": "10.0.0.78:1",
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := d.Dial("machnet", address)
			took := time.Since(began)
			// Where ARP is asked in vain before the time is over, the error may say so, as the kernel's does.
			unreachable := errors.Is(err, syscall.EHOSTUNREACH) && address == "10.0.0.77:1"
			if ne := net.Error(nil); !unreachable && (!errors.Is(err, syscall.ETIMEDOUT) || !errors.As(err, &ne) || !ne.Timeout()) {
				t.Errorf("dial: %v, want ETIMEDOUT", err)
			}
			if took < 250*time.Millisecond || took > 4*time.Second {
				t.Errorf("gave up after %v, want 300 ms", took)
			}
		})
	}
}

func TestAReloadIsInForceForTheNextDial(t *testing.T) {
	folder := shortTempDir(t)
	file := filepath.Join(folder, "machnetd.toml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[timeouts]\nconnect_ms = 600000\n")
	w := newWire(t, folder)
	t.Cleanup(w.close)
	s, err := startSidecar(folder, "10.0.0.1", w.a, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	d := machnet.Dialer{Stack: s.attach(t)}
	if _, err := d.Dial("machnet", "10.0.0.78:1"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dial to a host that answers no ARP: %v, want EHOSTUNREACH", err)
	}
	// Now its place is known, and the time is short.
	write("[timeouts]\nconnect_ms = 50\n[host]\nneighbors = { \"10.0.0.78\" = \"02:00:00:00:00:78\" }\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	dialled := make(chan error)
	end := make(chan struct{})
	defer close(end)
	go func() { // a dial in the old time would outlast the test
		for {
			_, err := d.Dial("machnet", "10.0.0.78:1")
			select {
			case dialled <- err:
			case <-end:
				return
			}
		}
	}()
	var said error
	for deadline := time.After(patience); !errors.Is(said, syscall.ETIMEDOUT); {
		select {
		case said = <-dialled:
		case <-deadline:
			t.Fatalf("%v after the reload the last dial said %v, want ETIMEDOUT", patience, said)
		}
	}
}

func TestWithoutPermissionOnTheSocketNobodyAttaches(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a client as somebody else")
	}
	p := sharedPair(t)
	// Somebody else must reach the program and the socket: only the socket's own mode may stand in the way.
	folder := shortTempDir(t)
	program := filepath.Join(folder, "machnet")
	text, err := os.ReadFile(machnetCommand)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, text, 0o755), os.Chmod(folder, 0o755), os.Chmod(sharedFolder, 0o711)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(sharedFolder, 0o700)
	ping := func() (string, error) {
		cmd := exec.Command(program, "ping", "--socket", p.a.socket, p.b.ip+":9")
		cmd.Dir = folder
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := ping()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Count(said, "\n") != 1 ||
		!strings.Contains(said, p.a.socket) || !strings.Contains(said, "permi") {
		t.Errorf("ping by another user: %v, %q; want one sentence about the permissions of %s", err, said, p.a.socket)
	}
	t.Log(said)
	if err := os.Chmod(p.a.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(p.a.socket, 0o660)
	if said, _ := ping(); !strings.Contains(said, "connection refused") {
		t.Errorf("ping by another user who may attach: %q, want that nobody listens", said)
	}
}

// The kernel's refusals and DPDK's, in words that name the cause: as a user who may do little.
func TestWhatAnotherUserMayNotDoIsNamed(t *testing.T) {
	onAnyLink(t)
	if os.Getuid() != 0 {
		t.Skip("only root can run a sidecar as somebody else")
	}
	folder, program := machnetdForAnybody(t)
	closed, open := filepath.Join(folder, "closed"), filepath.Join(folder, "open")
	if err := errors.Join(os.Mkdir(closed, 0o755), os.Mkdir(open, 0o777), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		socket, device, value string
		code                  int
		want                  string
	}{
		"a memif server's folder": {open, "--memif", "server:" + closed + "/l.sock", 3, "the folder " + closed + " cannot be read and written by this user: Permission denied"},
		"a memif client's folder": {open, "--memif", "client:" + closed + "/l.sock", 3, "the folder " + closed + " cannot be read and written by this user: Permission denied"},
		"the socket's folder":     {closed, "--vdev", "net_null0", 4, "nothing can be made in " + closed + ": Permission denied"},
		"a device of the kernel":  {open, "--vdev", "net_af_packet0,iface=lo", 3, "this process lacks CAP_NET_RAW; run it as root, or give it the capability"},
	} {
		for _, check := range []string{"--check", "--log=off"} {
			t.Run(name+" "+check, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cmd := exec.CommandContext(ctx, program, "--ip", "10.0.0.1/24", "--socket", filepath.Join(tc.socket, "s.sock"), tc.device, tc.value, check)
				cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+open)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				out, err := cmd.CombinedOutput()
				said := string(out)
				if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != tc.code || strings.Count(said, "\n") != 1 || !strings.Contains(said, tc.want) {
					t.Errorf("%v, %q; want exit code %d and one line with %q", err, said, tc.code, tc.want)
				}
			})
		}
	}
}

func TestAnUnknownKeyIsNamedWithItsPlace(t *testing.T) {
	onAnyLink(t)
	file := filepath.Join(shortTempDir(t), "machnetd.toml")
	if err := os.WriteFile(file, []byte("[host]\nip = \"10.0.0.1/24\"\ncolour = \"blue\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(machnetd, "--config", file, "--check").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("machnetd: %v, want exit code 2", err)
	}
	for _, want := range []string{file + ":3", "colour"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func TestAnotherHostWithOurAddressIsNamed(t *testing.T) {
	folder := shortTempDir(t)
	w := newWire(t, folder)
	t.Cleanup(w.close)
	a, err := startSidecar(folder, "10.0.0.1", w.a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	b, err := startSidecar(shortTempDir(t), "10.0.0.1", w.b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	// Looking for a third host it says who it is.
	d := machnet.Dialer{Stack: b.attach(t), Timeout: 20 * time.Millisecond}
	const want = " claims this host's address 10.0.0.1: "
	for deadline := time.Now().Add(patience); !strings.Contains(a.out.String(), want); {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", want, a.out)
		}
		if _, err := d.Dial("machnet", "10.0.0.77:1"); err == nil {
			t.Fatal("a dial to nobody went well")
		}
	}
}

// Frames that no sidecar sends cannot be put on a memif link, which has two ends only; what they do beside a running
// connection is tested with the engines, over the simulated network.
func TestBadInputDisturbsNoOtherConnection(t *testing.T) {
	p := sharedPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	client, server := connect(t, from, to)
	go io.Copy(server, server)
	var echoes atomic.Int64
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		failed <- func() error {
			r := rand.New(rand.NewPCG(3, 4))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return nil
				default:
				}
				_ = client.SetDeadline(time.Now().Add(patience))
				want := pattern(size(r, 1, 8192))
				want[0] = byte(i)
				if _, err := client.Write(want); err != nil {
					return err
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(client, got); err != nil {
					return err
				}
				if string(got) != string(want) {
					return errors.New("the echo differs from what was sent")
				}
				echoes.Add(1)
			}
		}()
	}()
	// moves checks that echoes have come back since the last mistake.
	moves := func(after string) {
		t.Helper()
		seen := echoes.Load()
		for deadline := time.Now().Add(patience); echoes.Load() < seen+10; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no echo in %v after %s", patience, after)
			}
		}
	}
	d := machnet.Dialer{Stack: from, Timeout: 50 * time.Millisecond}
	for _, address := range []string{"10.0.0.2:9", "10.0.0.77:1", "192.168.7.7:1"} {
		if _, err := d.Dial("machnet", address); err == nil {
			t.Errorf("a dial to %s went well", address)
		}
		moves("a dial to " + address)
	}
	lc := machnet.ListenConfig{Stack: from}
	if _, err := lc.Listen(context.Background(), "machnet", "10.9.9.9:1"); err == nil {
		t.Error("listening at another's address went well")
	}
	moves("listening at another's address")
	other, _ := connect(t, from, to)
	if err := other.Send(make([]byte, machnet.MaxMessage+1)); err == nil {
		t.Error("a message that is too large was sent")
	}
	moves("a message that is too large")
	for _, words := range []string{"", "GET / HTTP/1.1\r\n\r\n", "MACHNETA" + strings.Repeat("\xff", 24), strings.Repeat("x", 4096)} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: p.a.socket, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(words))
		_ = c.Close()
	}
	moves("nonsense at the control socket")
	for range 5 {
		app := startCommand(t, "echo", "--socket", p.a.socket)
		for deadline := time.Now().Add(patience); app.out.String() == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("an application did not attach")
			}
		}
		_ = app.cmd.Process.Kill()
		<-app.gone
	}
	moves("applications that were killed")
	close(stop)
	if err := <-failed; err != nil {
		t.Fatalf("after %d echoes: %v", echoes.Load(), err)
	}
}
