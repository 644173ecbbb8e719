package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
	"github.com/machnet/machnet/go/control"
)

func sidecarBreakages() []breakage {
	return []breakage{
		{check: "settings", how: "a value beyond its bounds", broken: wrongSetting, status: "fail",
			outside: "only its author knows what was meant", mend: func(w *world) {
				w.shell("sed -i s/99999/1500/ " + w.flags[1])
			}},
		{check: "socket", how: "its sidecar has ended", broken: leftSocket, status: "fail"},
		{check: "socket", how: "another user's", broken: closedSocket, status: "fail"},
		{check: "socket", how: "mounted as a file", broken: mountedSocket, status: "warn",
			outside: "the container has to be started otherwise", mend: func(w *world) { w.tree = nil }},
		{check: "versions", how: "a sidecar of an older release", broken: older, status: "fail"},
		{check: "engines", how: "one stands still", broken: stalled, status: "fail"},
		{check: "engines", how: "the NIC is down", broken: linkDown, status: "warn", outside: "a cable, or the cloud", mend: linkUp},
		{check: "engines", how: "the kernel's device is down", broken: downUnderSidecar, status: "warn", mend: deviceUp},
		{check: "socket", how: "the usual settings, and no sidecar", broken: notStarted, status: "fail"},
		{check: "checksum-offload", how: "turned off", broken: softwareChecksums, status: "warn"},
		{check: "descriptors", how: "short rings", broken: shortRings, status: "warn"},
		{check: "rss-hashed", how: "everything comes to one queue", broken: allOnOne, status: "fail"},
		{check: "rss-uniform", how: "most searches are repeated", broken: unevenHash, status: "warn"},
	}
}

// sidecar starts a machnetd, as `machnetd FLAGS` from a shell, and ends it with the test, or whoever has taken its place.
func sidecar(t *testing.T, n *netns.Namespace, flags ...string) (socket string) {
	t.Helper()
	needRoot(t)
	return start(t, n, filepath.Join(bin(t), "machnetd"), flags...)
}

func start(t *testing.T, n *netns.Namespace, program string, flags ...string) (socket string) {
	t.Helper()
	folder := shortTempDir(t)
	socket = filepath.Join(folder, "s")
	cmd := exec.Command(program, append([]string{"--socket", socket, "--log", "warn"}, flags...)...)
	cmd.Args[0] = filepath.Join(bin(t), "machnetd") // also of a stand-in, so that the command starts the real one
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+folder)
	cmd.Dir = folder
	log := filepath.Join(folder, "log")
	file, err := os.Create(log)
	must(t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	t.Cleanup(func() {
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("machnetd %q printed: %s", flags, text)
		}
	})
	withTest(t, n, cmd)
	(&world{t: t}).serves(socket)
	return socket
}

// withTest starts a program that ends with the test, also where that is killed: the kernel ends it with the thread that started it, so that one stays.
func withTest(t *testing.T, n *netns.Namespace, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, gone := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(gone)
		err := n.Do(cmd.Start)
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	must(t, <-started)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-gone
	})
}

func onMemif(t *testing.T, flags string) *world {
	socket := sidecar(t, nil, words("--ip 10.0.0.1/24 --memif server:l %s", flags)...)
	return &world{flags: []string{"--socket", socket}, sockets: []string{socket}}
}

func wrongSetting(t *testing.T) *world {
	needRoot(t)
	folder := shortTempDir(t)
	config := filepath.Join(folder, "machnetd.toml")
	write(t, config, lines("[host]", `ip = "10.0.0.1/24"`, "[nic]", `memif = "server:`+folder+`/l"`, "mtu = 99999", `[control]`, `socket = "`+folder+`/s"`))
	return &world{flags: []string{"--config", config}}
}

// leftSocket is what a sidecar leaves that was killed.
func leftSocket(t *testing.T) *world {
	needRoot(t)
	folder := shortTempDir(t)
	socket, config := filepath.Join(folder, "s"), filepath.Join(folder, "machnetd.toml")
	write(t, config, lines("[host]", `ip = "10.0.0.1/24"`, "[nic]", `memif = "server:`+folder+`/l"`, `[control]`, `socket = "`+socket+`"`))
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	must(t, err)
	listener.SetUnlinkOnClose(false)
	must(t, listener.Close())
	return &world{flags: []string{"--config", config}, sockets: []string{socket}}
}

func closedSocket(t *testing.T) *world {
	w := onMemif(t, "")
	w.nobody = true
	return w
}

func mountedSocket(t *testing.T) *world {
	w := onMemif(t, "")
	w.tree = newTree(t)
	w.tree.binds = append(w.tree.binds, [2]string{w.sockets[0], w.sockets[0]})
	return w
}

// linkDown's link is down until there is a file beside the socket.
func linkDown(t *testing.T) *world { return standInFor(t, "link-down") }

func linkUp(w *world) { write(w.t, w.sockets[0]+".up", "") }

// downUnderSidecar: its device is af_packet's, and it has seen that nothing goes through it.
func downUnderSidecar(t *testing.T) *world {
	needRoot(t)
	n, err := netns.New()
	must(t, err)
	t.Cleanup(func() { n.Close() })
	must(t, n.Run("ip", words("link add ap0 type veth peer name ap1")...))
	must(t, n.Run("ip", words("link set ap0 up")...))
	must(t, n.Run("ip", words("link set ap1 up")...))
	socket := sidecar(t, n, words("--ip 10.0.0.1/24 --vdev net_af_packet0,iface=ap0")...)
	must(t, n.Run("ip", words("link set ap0 down")...))
	w := &world{t: t, namespace: n, flags: []string{"--socket", socket}, sockets: []string{socket}}
	w.nicIs("link-down")
	return w
}

// deviceUp executes the command; the sidecar sees what it did within its next looks.
func deviceUp(w *world) {
	w.execute(w.row("engines"))
	w.nicIs("up")
}

// nicIs waits until the sidecar says that its NIC is in a state.
func (w *world) nicIs(state string) {
	w.t.Helper()
	until(w.t, "the NIC is "+state, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		health, err := control.Health(ctx, w.sockets[0])
		if err == nil && health.NIC.State != state {
			err = fmt.Errorf("it is %s", health.NIC.State)
		}
		return err
	})
}

// notStarted has the settings where setup writes them, and another socket than the usual one.
func notStarted(t *testing.T) *world {
	tr := newTree(t)
	folder := shortTempDir(t)
	etc := filepath.Join(tr.folder, "etc")
	write(t, etc+"/machnet/machnetd.toml", lines("[host]", `ip = "10.0.0.1/24"`, "[nic]", `memif = "server:`+folder+`/l"`, `[control]`, `socket = "`+folder+`/s"`))
	tr.binds = append(tr.binds, [2]string{etc, "/etc"})
	return &world{tree: tr, sockets: []string{folder + "/s"}}
}

func softwareChecksums(t *testing.T) *world { return onMemif(t, "--checksum-offload false") }

func shortRings(t *testing.T) *world { return onMemif(t, "--descriptors 64") }

func older(t *testing.T) *world { return standInFor(t, "older") }

func stalled(t *testing.T) *world { return standInFor(t, "stalled") }

func allOnOne(t *testing.T) *world { return standInFor(t, "one-queue") }

func unevenHash(t *testing.T) *world { return standInFor(t, "uneven") }

// standInFor is a sidecar with a fault that cannot be had by asking for it: a program that answers as one would. Its arguments are those of a
// machnetd, which takes its place when it is started again.
func standInFor(t *testing.T, fault string) *world {
	needRoot(t)
	self, err := os.Executable()
	must(t, err)
	socket := start(t, nil, self, "--ip", "10.0.0.1/24", "--vdev", "net_null0", "--file-prefix", fault)
	return &world{flags: []string{"--socket", socket}, sockets: []string{socket}}
}

// standIn is that program.
func standIn(args []string) int {
	value := func(flag string) string {
		for i, arg := range args[:len(args)-1] {
			if arg == flag {
				return args[i+1]
			}
		}
		return ""
	}
	listener, err := net.Listen("unixpacket", value("--socket"))
	if err != nil {
		return 1
	}
	fault := value("--file-prefix")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return 1
		}
		packet := make([]byte, 4096)
		n, _ := conn.Read(packet)
		_, _ = conn.Write(faulty(fault, value("--socket"), packet[:n]))
		_ = conn.Close()
	}
}

// faulty is the answer of a sidecar with a fault.
func faulty(fault, socket string, question []byte) []byte {
	if !strings.HasPrefix(string(question), "{") {
		// To an application: a welcome (docs/channel.md, Attach) that says that versions differ.
		welcome := make([]byte, 64+192)
		copy(welcome, "MACHNETA\x02\x00\x00\x00\x01\x00\x00\x00")
		welcome[28] = 3
		return welcome
	}
	var asked struct{ Query string }
	_ = json.Unmarshal(question, &asked)
	count := func(n uint64) *uint64 { return &n }
	var body any
	queues := map[bool]int{true: 2, false: 1}[fault == "uneven" || fault == "one-queue"]
	switch asked.Query {
	case "about":
		body = control.About{Machnetd: "0.0.9", PID: os.Getpid(), DPDK: "DPDK 22.11.11", Channel: 3,
			Settings: control.Settings{IP: "10.0.0.1", Prefix: 24, NIC: [2]string{"vdev", "net_null0"}, MTU: 1500, Descriptors: 256, Engines: queues, Idle: "adaptive",
				UDPPorts: [2]int{31580, 32603}, Reverse: "own", MemoryMiB: 64, Socket: socket},
			NIC: control.NIC{Driver: "net_null", MTU: 1500, Queues: queues, Descriptors: 256}}
	case "health":
		state := map[bool]string{true: "stalled", false: "running"}[fault == "stalled"]
		nic := "up"
		if _, err := os.Stat(socket + ".up"); fault == "link-down" && err != nil {
			nic = fault
		}
		body = control.HealthState{Healthy: state == "running", NIC: control.NICHealth{State: nic}, Engines: []control.EngineHealth{{State: state, Late: 3e9}}}
	case "stats":
		body = control.Statistics{Machnetd: "0.0.9", PID: os.Getpid(), IP: "10.0.0.1",
			Engines: []control.Engine{
				{Counters: control.Counters{"rx_frames": count(5000), "searches": count(100), "searches_retried": count(60), "searches_given_up": count(0)}},
				{Counters: control.Counters{"rx_frames": count(map[bool]uint64{true: 0, false: 5000}[fault == "one-queue"])}},
			}}
	}
	document := map[string]any{}
	text, _ := json.Marshal(body)
	_ = json.Unmarshal(text, &document)
	document["version"], document["query"] = 1, asked.Query
	text, _ = json.Marshal(document)
	return text
}

func TestTheStandInsFaultsAreOnlyThose(t *testing.T) {
	chosen(t)
	w := older(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	about, err := control.Describe(ctx, w.sockets[0])
	if err != nil || about.PID == 0 {
		t.Fatalf("%+v, %v", about, err)
	}
	if _, err := control.Peers(ctx, w.sockets[0]); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a question that it does not know: %v", err)
	}
}
