//go:build linux

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeSidecar listens as machnetd does, notes the one question that it is asked, and answers it with packets.
type fakeSidecar struct {
	socket   string
	question chan map[string]any
}

func newFakeSidecar(t *testing.T, answer func(net.Conn)) *fakeSidecar {
	t.Helper()
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSidecar{socket: filepath.Join(folder, "s"), question: make(chan map[string]any, 1)}
	listener, err := net.Listen("unixpacket", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-served
		_ = os.RemoveAll(folder)
	})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		packet := make([]byte, 4096)
		n, err := conn.Read(packet)
		if err != nil {
			return
		}
		question := map[string]any{}
		if err := json.Unmarshal(packet[:n], &question); err != nil {
			question["garbage"] = string(packet[:n])
		}
		s.question <- question
		answer(conn)
	}()
	return s
}

// saying answers with these packets, and then closes.
func saying(packets ...string) func(net.Conn) {
	return func(conn net.Conn) {
		for _, packet := range packets {
			if _, err := conn.Write([]byte(packet)); err != nil {
				return
			}
		}
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func pointer[T any](v T) *T { return &v }

func TestEveryQuestionIsAskedAndItsAnswerReadAsDocumented(t *testing.T) {
	for name, tc := range map[string]struct {
		ask      func(ctx context.Context, socket string) (any, error)
		question map[string]any
		answer   string
		want     any
	}{
		"stats": {
			func(ctx context.Context, socket string) (any, error) { return Stats(ctx, socket) },
			map[string]any{"version": 1., "query": "stats"},
			`{"version":1,"query":"stats","machnetd":"0.1.0","pid":7,"uptime_s":60,"ip":"10.0.0.1","engines":[{"engine":0,"counters":{"rounds":18446744073709551615},
			"queue":{"rx_ring":null}}],"port":{"driver":"net_memif","state":"up","counters":{"rx_missed":null,"rx_frames":3}},"to come":{}}`,
			&Statistics{
				Machnetd: "0.1.0", PID: 7, Uptime: 60, IP: "10.0.0.1",
				Engines: []Engine{{Counters: Counters{"rounds": pointer(uint64(1<<64 - 1))}, Queue: Counters{"rx_ring": nil}}},
				Port:    Port{Driver: "net_memif", State: "up", Counters: Counters{"rx_missed": nil, "rx_frames": pointer(uint64(3))}},
			},
		},
		"about": {
			func(ctx context.Context, socket string) (any, error) { return Describe(ctx, socket) },
			map[string]any{"version": 1., "query": "about"},
			`{"version":1,"query":"about","machnetd":"0.1.0","pid":4711,"dpdk":"DPDK 22.11.11","channel":4,"settings":{"ip":"10.0.0.1","prefix":24,"gateway":null,
			"nic":["pci","0000:00:05.0"],"mtu":1500,"descriptors":256,"checksum_offload":true,"engines":2,"cores":[2,3],"idle":"adaptive","exclusive":false,
			"udp_ports":[31580,32603],"reverse":"own","hugepages":true,"memory_mib":96,"socket":"/s"},
			"nic":{"driver":"net_ena","mac":"02:00:00:00:00:01","mtu":1500,"queues":2,"descriptors":128,"tx_checksum":true,"rx_checksum":false,"interrupts":true}}`,
			&About{
				Machnetd: "0.1.0", PID: 4711, DPDK: "DPDK 22.11.11", Channel: 4,
				Settings: Settings{
					IP: "10.0.0.1", Prefix: 24, NIC: [2]string{"pci", "0000:00:05.0"}, MTU: 1500, Descriptors: 256, ChecksumOffload: true, Engines: 2,
					Cores: []int{2, 3}, Idle: "adaptive", UDPPorts: [2]int{31580, 32603}, Reverse: "own", Hugepages: true, MemoryMiB: 96, Socket: "/s",
				},
				NIC: NIC{Driver: "net_ena", MAC: "02:00:00:00:00:01", MTU: 1500, Queues: 2, Descriptors: 128, TxChecksum: true, Interrupts: true},
			},
		},
		"health": {
			func(ctx context.Context, socket string) (any, error) { return Health(ctx, socket) },
			map[string]any{"version": 1., "query": "health"},
			`{"version":1,"query":"health","healthy":false,"engines":[{"engine":0,"state":"asleep","late_ns":0},{"engine":1,"state":"stalled","late_ns":1500000000}],
			"nic":{"driver":"net_memif","state":"gone"}}`,
			&HealthState{Engines: []EngineHealth{{0, "asleep", 0}, {1, "stalled", 1500000000}}, NIC: NICHealth{Driver: "net_memif", State: "gone"}},
		},
		"channels": {
			func(ctx context.Context, socket string) (any, error) { return Channels(ctx, socket) },
			map[string]any{"version": 1., "query": "channels"},
			`{"version":1,"query":"channels","channels":[{"channel":1,"engine":2,"application":10,"pid":3,"uid":4,"state":"draining","connections":5,"listeners":6,
			"units":{"total":1024,"submitted":7,"delivered":8,"reserved":9}}]}`,
			[]Channel{{1, 2, 10, 3, 4, "draining", 5, 6, Units{1024, 7, 8, 9}}},
		},
		"no channels": {
			func(ctx context.Context, socket string) (any, error) { return Channels(ctx, socket) },
			map[string]any{"version": 1., "query": "channels"},
			`{"version":1,"query":"channels","channels":[]}`,
			[]Channel{},
		},
		"listeners": {
			func(ctx context.Context, socket string) (any, error) { return Listeners(ctx, socket) },
			map[string]any{"version": 1., "query": "listeners"},
			`{"version":1,"query":"listeners","listeners":[{"port":80,"channel":1,"engine":2,"pid":3,"uid":4,"reuse_port":true,"group":true,"backlog":5,"waiting":6}]}`,
			[]Listener{{80, 1, 2, 3, 4, true, true, 5, 6}},
		},
		"connections": {
			func(ctx context.Context, socket string) (any, error) { return Connections(ctx, socket) },
			map[string]any{"version": 1., "query": "connections"},
			`{"version":1,"query":"connections","connections":[{"engine":1,"connection":"1-7","channel":null,"local":"10.0.0.1:80","peer":"10.0.0.2:4000",
			"state":"closing","origin":"accepted","queued":2,"in_flight":3,"rtt_ns":null},{"channel":4,"rtt_ns":5}]}`,
			[]Connection{{1, "1-7", nil, "10.0.0.1:80", "10.0.0.2:4000", "closing", "accepted", 2, 3, nil}, {Channel: pointer(uint64(4)), RTT: pointer(uint64(5))}},
		},
		"connections of channel 0": {
			func(ctx context.Context, socket string) (any, error) { return ConnectionsOf(ctx, socket, 0) },
			map[string]any{"version": 1., "query": "connections", "channel": 0.},
			`{"version":1,"query":"connections","connections":[]}`,
			[]Connection{},
		},
		"connection": {
			func(ctx context.Context, socket string) (any, error) { return ConnectionState(ctx, socket, 0, "0-7") },
			map[string]any{"version": 1., "query": "connection", "engine": 0., "connection": "0-7"},
			`{"version":1,"query":"connection","engine":0,"connection":"0-7","waits":"reader","timeout_ns":7,"next_hop":"10.0.0.2","next_hop_mac":null,"counters":{"lost":2}}`,
			&State{Connection: Connection{Connection: "0-7"}, Waits: pointer("reader"), Timeout: 7, NextHop: pointer("10.0.0.2"), Counters: Counters{"lost": pointer(uint64(2))}},
		},
		"peers": {
			func(ctx context.Context, socket string) (any, error) { return Peers(ctx, socket) },
			map[string]any{"version": 1., "query": "peers"},
			`{"version":1,"query":"peers","peers":[{"ip":"10.0.0.2","next_hop":"10.0.0.254","mac":null,"state":"asking","connections":1,"heard_ns_ago":null}]}`,
			[]Peer{{"10.0.0.2", pointer("10.0.0.254"), nil, "asking", 1, nil}},
		},
		"drain": {
			func(ctx context.Context, socket string) (any, error) { return nil, Drain(ctx, socket, 3) },
			map[string]any{"version": 1., "query": "drain", "channel": 3.},
			`{"version":1,"query":"drain","channel":3}`,
			nil,
		},
		"log": {
			func(ctx context.Context, socket string) (any, error) { return nil, SetLogLevel(ctx, socket, "debug") },
			map[string]any{"version": 1., "query": "log", "level": "debug"},
			`{"version":1,"query":"log","level":"debug"}`,
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeSidecar(t, saying(tc.answer))
			got, err := tc.ask(within(t), s.socket)
			if err != nil {
				t.Fatal(err)
			}
			if question := <-s.question; !reflect.DeepEqual(question, tc.question) {
				t.Errorf("asked %v, want %v", question, tc.question)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("read %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestAnAnswerInManyPacketsIsOneDocument(t *testing.T) {
	const rows = 5000
	document := new(strings.Builder)
	document.WriteString(`{"version":1,"query":"connections","connections":[`)
	for i := range rows {
		fmt.Fprintf(document, `{"connection":"0-%d","peer":"10.0.0.2:4000"},`, i)
	}
	document.WriteString(`{"connection":"the last"}]}`)
	text := document.String()
	var packets []string
	for len(text) > 0 {
		n := min(len(text), largestPacket)
		packets, text = append(packets, text[:n]), text[n:]
	}
	if len(packets) < 2 {
		t.Fatalf("%d packets test nothing", len(packets))
	}
	s := newFakeSidecar(t, saying(packets...))
	connections, err := Connections(within(t), s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if len(connections) != rows+1 || connections[rows].Connection != "the last" {
		t.Errorf("read %d connections, want %d", len(connections), rows+1)
	}
}

func TestAnAnswerIsPassedOnAsItCame(t *testing.T) {
	const document = `{ "version":1, "query":"peers","peers":[ ], "to come":1}`
	s := newFakeSidecar(t, saying(document[:20], document[20:]))
	got, err := Ask(within(t), s.socket, Query{Name: "peers"})
	if err != nil || string(got) != document {
		t.Errorf("Ask = %q, %v; want %q", got, err, document)
	}
}

func TestWhatIsNoAnswerIsRefusedWithTheSocketAndTheNextStep(t *testing.T) {
	for name, tc := range map[string]struct {
		answer []string
		is     error
		says   string
	}{
		"nothing":          {nil, ErrAnswer, "closed the connection without one; it may be ending, or is older"},
		"cut off":          {[]string{`{"version":1,"query":"peers","peers":[{"ip":`}, ErrAnswer, "cut off after 44 bytes"},
		"garbage":          {[]string{"\x00\x01welcome"}, ErrAnswer, `in "\x00\x01welcome"; is this the socket of a machnetd?`},
		"turned away":      {[]string{"MACHNETA\x02\x00"}, ErrAnswer, "turned it away, as it does where too many are connected"},
		"two documents":    {[]string{`{"version":1,"query":"peers"}`, `{}`}, ErrAnswer, "more than one JSON document"},
		"no object":        {[]string{`[1]`}, ErrAnswer, "is this the socket of a machnetd?"},
		"no version":       {[]string{`{"query":"peers"}`}, ErrAnswer, "it has no version"},
		"another version":  {[]string{`{"version":2,"query":"peers"}`}, ErrVersion, "answers in version 2, and this program knows version 1"},
		"another question": {[]string{`{"version":1,"query":"stats"}`}, ErrAnswer, `it answers "stats"`},
		"another shape":    {[]string{`{"version":1,"query":"peers","peers":7}`}, ErrAnswer, "use the machnet of the same release"},
		"a large packet":   {[]string{strings.Repeat(" ", largestPacket+1)}, ErrAnswer, "a packet of more than 32768 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeSidecar(t, saying(tc.answer...))
			_, err := Peers(within(t), s.socket)
			if !errors.Is(err, tc.is) {
				t.Fatalf("Peers = %v, want %v", err, tc.is)
			}
			for _, words := range []string{"peers of machnetd at " + s.socket + ": ", tc.says} {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("Peers = %q, want %q in it", err, words)
				}
			}
		})
	}
}

func TestARefusalIsTheSidecarsSentenceOnOneLine(t *testing.T) {
	s := newFakeSidecar(t, saying(`{"version":1,"query":"drain","error":"channel 9: there is none\n\u001b[2J; see channels"}`))
	err := Drain(within(t), s.socket, 9)
	refusal := (*Refusal)(nil)
	if !errors.As(err, &refusal) {
		t.Fatalf("Drain = %v, want a *Refusal", err)
	}
	if want := "drain of machnetd at " + s.socket + ": channel 9: there is none  [2J; see channels"; err.Error() != want {
		t.Errorf("Drain = %q, want %q", err, want)
	}
}

func TestAnAnswerBeyondTheBoundIsNotKept(t *testing.T) {
	const most = 3 * largestPacket
	for name, tc := range map[string]struct {
		packets int
		refused bool
	}{"at the bound": {3, false}, "beyond": {4, true}} {
		t.Run(name, func(t *testing.T) {
			s := newFakeSidecar(t, func(conn net.Conn) {
				for range tc.packets {
					if _, err := conn.Write(make([]byte, largestPacket)); err != nil {
						return
					}
				}
			})
			document, err := exchange(within(t), s.socket, []byte("{}"), most)
			if refused := errors.Is(err, ErrAnswer); refused != tc.refused || !refused && len(document) != most {
				t.Errorf("exchange = %d bytes, %v; refused is to be %v", len(document), err, tc.refused)
			}
		})
	}
}

func TestAContextEndsTheWaitForASidecarThatIsSilent(t *testing.T) {
	silent := func(conn net.Conn) {
		_, _ = conn.Write([]byte(`{"version":1,`))
		_, _ = conn.Read(make([]byte, 1)) // until the other end closes
	}
	t.Run("cancelled", func(t *testing.T) {
		s := newFakeSidecar(t, silent)
		ctx, cancel := context.WithCancelCause(within(t))
		cause := errors.New("a cause")
		go func() {
			<-s.question
			cancel(cause)
		}()
		if _, err := Stats(ctx, s.socket); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || !strings.Contains(err.Error(), s.socket) {
			t.Errorf("Stats = %v, want %v and the cause", err, context.Canceled)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		s := newFakeSidecar(t, silent)
		ctx, cancel := context.WithTimeout(within(t), 10*time.Millisecond)
		defer cancel()
		if _, err := Stats(ctx, s.socket); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), s.socket) {
			t.Errorf("Stats = %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestASidecarWithAFullBacklogIsAwaited(t *testing.T) {
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	address := &syscall.SockaddrUnix{Name: filepath.Join(folder, "s")}
	open := func() int {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		return fd
	}
	listener := open()
	if err := errors.Join(syscall.Bind(listener, address), syscall.Listen(listener, 0)); err != nil {
		t.Fatal(err)
	}
	waiting := 0
	for ; err == nil; waiting++ {
		err = syscall.Connect(open(), address)
	}
	if err != syscall.EAGAIN {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(within(t), 10*time.Millisecond)
	defer cancel()
	if _, err := Peers(short, address.Name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a full backlog Peers = %v, want %v", err, context.DeadlineExceeded)
	}
	asked := make(chan error)
	go func() {
		_, err := Peers(within(t), address.Name)
		asked <- err
	}()
	for range waiting { // the last of them is the question
		fd := -1
		for fd < 0 {
			if fd, _, err = syscall.Accept(listener); err != nil && err != syscall.EAGAIN {
				t.Fatal(err)
			}
		}
		_ = syscall.Close(fd)
	}
	if err := <-asked; !errors.Is(err, ErrAnswer) {
		t.Errorf("once there was room Peers = %v, want that the sidecar closed the connection", err)
	}
}

func TestASocketWithoutASidecarIsAnErrorThatSaysWhatToDo(t *testing.T) {
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stream := filepath.Join(folder, "stream")
	listener, err := net.Listen("unix", stream)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	left := filepath.Join(folder, "left")
	dead, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: left, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	for socket, says := range map[string]string{
		filepath.Join(folder, "missing"): "there is no such socket; start machnetd, or name its socket",
		file:                             "nobody listens there any more; start machnetd, or name its socket",
		left:                             "nobody listens there any more; start machnetd, or name its socket",
		stream:                           "this is not a control socket",
	} {
		t.Run(filepath.Base(socket), func(t *testing.T) {
			_, err := Stats(within(t), socket)
			if !errors.Is(err, ErrNoSidecar) || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), says) {
				t.Errorf("Stats = %v, want %q with %q", err, ErrNoSidecar, says)
			}
		})
	}
	t.Run("mounted as a file", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root may mount")
		}
		const inside = "MACHNET_MOUNTED_SOCKET" // in a process whose mounts are its own
		socket := os.Getenv(inside)
		if socket == "" {
			cmd := exec.Command(os.Args[0], "-test.run=^TestASocketWithoutASidecarIsAnErrorThatSaysWhatToDo$/^mounted_as_a_file$")
			cmd.Env = append(os.Environ(), inside+"="+left)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("in a process of its own: %v\n%s", err, out)
			}
			return
		}
		if err := syscall.Mount(socket, socket, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := Stats(within(t), socket); !errors.Is(err, ErrNoSidecar) || !strings.Contains(err.Error(), "mount its folder, and start machnetd") {
			t.Errorf("Stats = %v, want that the folder is to be mounted", err)
		}
	})
	t.Run("closed to this user", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may open every socket")
		}
		closed := filepath.Join(folder, "closed")
		if err := os.Mkdir(closed, 0); err != nil {
			t.Fatal(err)
		}
		_, err := Stats(within(t), filepath.Join(closed, "s"))
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "control.mode") {
			t.Errorf("Stats = %v, want %v", err, fs.ErrPermission)
		}
	})
}

func TestTheSocketIsTheOneNamedElseTheEnvironmentsElseTheUsual(t *testing.T) {
	t.Setenv("MACHNET_SOCKET", "")
	if got := Socket(""); got != DefaultSocket {
		t.Errorf("without any it is %q, want %q", got, DefaultSocket)
	}
	t.Setenv("MACHNET_SOCKET", "/environment")
	if got := Socket(""); got != "/environment" {
		t.Errorf("with MACHNET_SOCKET it is %q", got)
	}
	if got := Socket("/named"); got != "/named" {
		t.Errorf("named, it is %q", got)
	}
}

func TestACountThatIsNotKeptIsNotZero(t *testing.T) {
	c := Counters{"zero": pointer(uint64(0)), "none": nil}
	for name, want := range map[string]bool{"zero": true, "none": false, "unknown": false} {
		if _, counted := c.Get(name); counted != want {
			t.Errorf("%s: counted is %v, want %v", name, counted, want)
		}
	}
}

// packets is a connection that gives one packet a read; an empty one stands for an end that Linux tells too early.
type packets []string

func (p *packets) Read(b []byte) (int, error) {
	if len(*p) == 0 || (*p)[0] == "" {
		*p = (*p)[min(1, len(*p)):]
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	*p = (*p)[1:]
	return n, nil
}

func TestAnEndThatIsToldBeforeTheLastPacketsIsNone(t *testing.T) {
	for _, p := range []packets{{"ab", "c"}, {"", "ab", "c"}, {"ab", "", "c", ""}, {"", "ab", "", "c"}} {
		if document, err := readAnswer(&p, 10); err != nil || string(document) != "abc" {
			t.Errorf("%q, %v", document, err)
		}
	}
}
