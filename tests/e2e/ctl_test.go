package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/control"
	"github.com/machnet/machnet/go/machnet"
)

// ctl runs `machnet ctl` to its end, and returns what it printed.
func (s *sidecar) ctl(t *testing.T, args ...string) string {
	t.Helper()
	c := startCommand(t, slices.Concat([]string{"ctl"}, args, []string{"--socket", s.socket})...)
	if code := c.exit(t, patience); code != 0 {
		t.Fatalf("machnet ctl %q ended with %d: %s", args, code, c.errs)
	}
	return c.out.String()
}

// line is the fields of the one line of a table that begins with these.
func line(t *testing.T, table string, begins ...string) []string {
	t.Helper()
	for text := range strings.Lines(table) {
		if fields := strings.Fields(text); len(fields) >= len(begins) && slices.Equal(fields[:len(begins)], begins) {
			return fields
		}
	}
	t.Fatalf("no line begins with %q:\n%s", begins, table)
	return nil
}

// sole is the one element of a list.
func sole[T any](t *testing.T, all []T, err error) T {
	t.Helper()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d answers (%v), want one: %+v", len(all), err, all)
	}
	return all[0]
}

func TestCtlShowsChannelsConnectionsAndPeers(t *testing.T) {
	p := newPair(t)
	from, to := p.a.attach(t), p.b.attach(t)
	dialled, accepted := connect(t, from, to)
	port := listen(t, to).Addr().(*machnet.Addr).Port
	for range 3 { // the window opens, and a round trip is measured
		if err := dialled.Send([]byte("read")); err != nil {
			t.Fatal(err)
		}
		if _, err := accepted.ReadMessage(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("channels", func(t *testing.T) {
		for s, listeners := range map[*sidecar]int{p.a: 0, p.b: 1} {
			channels, err := control.Channels(within(t), s.socket)
			c := sole(t, channels, err)
			want := control.Channel{
				Channel: c.Channel, Engine: 0, Application: c.Application, PID: os.Getpid(), UID: uint32(os.Getuid()), State: "attached", Connections: 1, Listeners: listeners,
				Units: control.Units{Total: 1024, Submitted: c.Units.Submitted, Delivered: c.Units.Delivered, Reserved: c.Units.Reserved},
			}
			if c != want || c.Application == 0 {
				t.Errorf("%s has channel %+v, want %+v", s.ip, c, want)
			}
			row := line(t, s.ctl(t, "channels"), fmt.Sprint(c.Channel), fmt.Sprint(c.Application), "0", fmt.Sprint(os.Getpid()), fmt.Sprint(os.Getuid()), "attached", "1", fmt.Sprint(listeners), "1024")
			if len(row) != 12 {
				t.Errorf("the table has %d columns: %q", len(row), row)
			}
		}
	})

	t.Run("listeners", func(t *testing.T) {
		listeners, err := control.Listeners(within(t), p.b.socket)
		l := sole(t, listeners, err)
		want := control.Listener{
			Port: int(port), Channel: l.Channel, Engine: 0, PID: os.Getpid(), UID: uint32(os.Getuid()), ReusePort: false, Group: true, Backlog: 128, Waiting: 0,
		}
		if l != want {
			t.Errorf("listener %+v, want %+v", l, want)
		}
		row := line(t, p.b.ctl(t, "listeners"), fmt.Sprint(port), fmt.Sprint(l.Channel), "0", fmt.Sprint(os.Getpid()), fmt.Sprint(os.Getuid()), "false", "128", "0")
		if len(row) != 8 {
			t.Errorf("the table has %d columns: %q", len(row), row)
		}
	})

	t.Run("connections", func(t *testing.T) {
		for s, end := range map[*sidecar]struct {
			conn   *machnet.Conn
			origin string
		}{p.a: {dialled, "dialled"}, p.b: {accepted, "accepted"}} {
			channels, err := control.Channels(within(t), s.socket)
			channel := sole(t, channels, err).Channel
			connections, err := control.Connections(within(t), s.socket)
			c := sole(t, connections, err)
			if c.Channel == nil || *c.Channel != channel {
				t.Errorf("%s: the connection is of channel %v, want %d", s.ip, c.Channel, channel)
			}
			if c.Local != end.conn.LocalAddr().String() || c.Peer != end.conn.RemoteAddr().String() || c.State != "open" || c.Origin != end.origin {
				t.Errorf("%s: the connection is %+v, want one from %v to %v, open, %s", s.ip, c, end.conn.LocalAddr(), end.conn.RemoteAddr(), end.origin)
			}
			of, err := control.ConnectionsOf(within(t), s.socket, channel)
			if one := sole(t, of, err); one.Connection != c.Connection {
				t.Errorf("%s: channel %d has connection %s, want %s", s.ip, channel, one.Connection, c.Connection)
			}
			row := line(t, s.ctl(t, "connections", fmt.Sprint(channel)), "0", c.Connection, fmt.Sprint(channel), c.Local, c.Peer, "open", end.origin)
			if len(row) != 10 {
				t.Errorf("the table has %d columns: %q", len(row), row)
			}

			state, err := control.ConnectionState(within(t), s.socket, c.Engine, c.Connection)
			if err != nil {
				t.Fatal(err)
			}
			if state.Peer != c.Peer || state.Window == 0 || state.UnitSize == 0 || state.Waits != nil {
				t.Errorf("%s: the connection's state is %+v", s.ip, state)
			}
			sent, received := map[string]uint64{"dialled": 3}[end.origin], map[string]uint64{"accepted": 3}[end.origin]
			if n, _ := state.Counters.Get("units_sent"); n != sent {
				t.Errorf("%s: %d units sent, want %d", s.ip, n, sent)
			}
			if n, _ := state.Counters.Get("units_delivered"); n != received {
				t.Errorf("%s: %d units delivered, want %d", s.ip, n, received)
			}
			table := s.ctl(t, "connection", fmt.Sprint(c.Engine), c.Connection)
			if peer := line(t, table, "peer"); peer[1] != c.Peer {
				t.Errorf("%s: the table shows peer %q, want %s", s.ip, peer, c.Peer)
			}
			line(t, table, "connection", "packets_sent")
		}
	})

	t.Run("peers", func(t *testing.T) {
		for s, other := range map[*sidecar]string{p.a: "10.0.0.2", p.b: "10.0.0.1"} {
			peers, err := control.Peers(within(t), s.socket)
			peer := sole(t, peers, err)
			if peer.IP != other || peer.MAC == nil || peer.State != "known" || peer.Connections != 1 || peer.Heard == nil {
				t.Errorf("%s: the peer is %+v, want %s, known, with one connection", s.ip, peer, other)
			} else if _, err := net.ParseMAC(*peer.MAC); err != nil {
				t.Error(err)
			}
			line(t, s.ctl(t, "peers"), other, other, *peer.MAC, "known", "1")
		}
	})

	t.Run("stats", func(t *testing.T) {
		stats := p.a.stats(t)
		if stats.PID != p.a.cmd.Process.Pid || stats.IP != p.a.ip || len(stats.Engines) != 1 || stats.Machnetd == "" || stats.Port.Driver == "" {
			t.Errorf("the sidecar says %+v", stats)
		}
		if n, counted := stats.Engines[0].Counters.Get("connects"); n != 1 || !counted {
			t.Errorf("%d connects, want 1", n)
		}
		if row := line(t, p.a.ctl(t, "stats"), "engine/0", "connects"); row[2] != "1" {
			t.Errorf("the table shows %q, want 1", row)
		}
		if row := line(t, p.a.ctl(t, "stats", "--all"), "engine/0", "channels_faulty"); row[2] != "0" {
			t.Errorf("the table shows %q, want 0", row)
		}
	})

	t.Run("about", func(t *testing.T) {
		about, err := control.Describe(within(t), p.a.socket)
		if err != nil {
			t.Fatal(err)
		}
		s := about.Settings
		if about.PID != p.a.cmd.Process.Pid || s.IP != p.a.ip || s.Prefix != 24 || s.Engines != 1 || s.Socket != p.a.socket || s.UDPPorts != [2]int{31580, 32603} {
			t.Errorf("the sidecar says %+v", about)
		}
		if about.NIC.Queues != 1 || about.NIC.MTU != s.MTU || about.Channel == 0 || !strings.HasPrefix(about.DPDK, "DPDK ") {
			t.Errorf("the sidecar says %+v", about)
		}
		line(t, p.a.ctl(t, "about"), "nic-driver", about.NIC.Driver)
	})

	t.Run("health", func(t *testing.T) {
		if text := p.a.ctl(t, "health"); !strings.HasPrefix(text, "healthy: engine 0 ") || strings.Count(text, "\n") != 1 {
			t.Errorf("the sidecar says %q", text)
		}
	})

	t.Run("every field has its place in go/control", func(t *testing.T) {
		connections, err := control.Connections(within(t), p.a.socket)
		one := sole(t, connections, err)
		type head struct {
			Version int    `json:"version"`
			Query   string `json:"query"`
		}
		for _, asked := range []struct {
			query control.Query
			into  any
		}{
			{control.Query{Name: "stats"}, &struct {
				head
				control.Statistics
			}{}},
			{control.Query{Name: "about"}, &struct {
				head
				control.About
			}{}},
			{control.Query{Name: "health"}, &struct {
				head
				control.HealthState
			}{}},
			{control.Query{Name: "channels"}, &struct {
				head
				Channels []control.Channel `json:"channels"`
			}{}},
			{control.Query{Name: "listeners"}, &struct {
				head
				Listeners []control.Listener `json:"listeners"`
			}{}},
			{control.Query{Name: "connections"}, &struct {
				head
				Connections []control.Connection `json:"connections"`
			}{}},
			{control.Query{Name: "connection", Engine: &one.Engine, Connection: one.Connection}, &struct {
				head
				control.State
			}{}},
			{control.Query{Name: "peers"}, &struct {
				head
				Peers []control.Peer `json:"peers"`
			}{}},
		} {
			document, err := control.Ask(within(t), p.a.socket, asked.query)
			if err != nil {
				t.Fatal(err)
			}
			// A field that Go's type lacks is lost on the way through it, and one that the sidecar does not send is new.
			if err := json.Unmarshal(document, asked.into); err != nil {
				t.Fatal(err)
			}
			through, err := json.Marshal(asked.into)
			if err != nil {
				t.Fatal(err)
			}
			var sent, kept any
			if err := errors.Join(json.Unmarshal(document, &sent), json.Unmarshal(through, &kept)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(sent, kept) {
				t.Errorf("the sidecar sent\n%s\nof which go/control keeps\n%s", document, through)
			}
		}
	})

	t.Run("--json", func(t *testing.T) {
		var answer struct {
			Version  int
			Query    string
			Channels []map[string]any
		}
		text := p.b.ctl(t, "channels", "--json")
		if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Version != 1 || answer.Query != "channels" || len(answer.Channels) != 1 {
			t.Errorf("printed %s (%v)", text, err)
		}
	})
}

func TestAnAnswerOfManyPacketsHasEveryConnection(t *testing.T) {
	onAnyLink(t)
	const many = 500
	p := newPair(t, "--flows", "1024")
	from, to := p.a.attach(t), p.b.attach(t)
	l := listen(t, to)
	go echoEach(l)
	want := map[string]bool{}
	for range many {
		want[dial(t, from, l.Addr()).LocalAddr().String()] = true
	}
	connections, err := control.Connections(within(t), p.a.socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range connections {
		delete(want, c.Local)
	}
	if len(connections) != many || len(want) != 0 {
		t.Errorf("%d connections, and %d of ours not among them; want %d", len(connections), len(want), many)
	}
}

func TestDrainedChannelDeliversWhatWasSentAndIsOver(t *testing.T) {
	p := newPair(t, "--linger", "20000") // the machine may be busy
	from, other, to := p.a.attach(t), p.a.attach(t), p.b.attach(t)
	dialled, accepted := connect(t, from, to)
	stays, far := connect(t, other, to)
	const size = 100_000
	if err := dialled.Send(pattern(size)); err != nil {
		t.Fatal(err)
	}
	connections, err := control.Connections(within(t), p.a.socket)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(connections, func(c control.Connection) bool { return c.Local == dialled.LocalAddr().String() })
	if at < 0 || connections[at].Channel == nil {
		t.Fatalf("no connection from %v with a channel: %+v", dialled.LocalAddr(), connections)
	}
	if err := control.Drain(within(t), p.a.socket, *connections[at].Channel); err != nil {
		t.Fatal(err)
	}
	_ = accepted.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(accepted)
	if string(got) != string(pattern(size)) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer has read %d bytes, then %v; want all %d, and then ECONNRESET, since nobody had closed", len(got), err, size)
	}
	_ = dialled.SetDeadline(time.Now().Add(patience))
	if _, err := dialled.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("a read on the drained channel fails with %v, want ENETDOWN", err)
	}
	go func() { _, _ = io.Copy(far, far) }()
	_ = stays.SetDeadline(time.Now().Add(patience))
	pingPong(t, stays, make([]byte, 64))

	err = control.Drain(within(t), p.a.socket, 1<<40)
	if refusal := (*control.Refusal)(nil); !errors.As(err, &refusal) {
		t.Errorf("draining a channel that there is not: %v, want a refusal", err)
	}
}

func TestTheLogLevelOfARunningSidecar(t *testing.T) {
	onAnyLink(t)
	p := newPair(t) // which logs at level warn
	s := p.a
	s.ctl(t, "log", "info")
	s.loggedCounters(t)
	err := control.SetLogLevel(within(t), s.socket, "loud")
	if refusal := (*control.Refusal)(nil); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "loud") {
		t.Errorf("an unknown level: %v, want a refusal that names it", err)
	}
}

func TestOnlyRootAndTheSidecarsUserMayChangeASidecar(t *testing.T) {
	onAnyLink(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const nobody = 65534
	p := newPair(t, "--mode", "0666")
	_ = p.a.attach(t)
	folder := shortTempDir(t)
	for _, open := range []string{folder, filepath.Dir(p.a.socket)} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(folder, "machnet") // where that user can reach it
	run(t, nil, "cp", machnetCommand, program)
	asNobody := func(args ...string) (string, error) {
		cmd := exec.Command(program, slices.Concat([]string{"ctl"}, args, []string{"--socket", p.a.socket})...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := asNobody("channels"); err != nil {
		t.Errorf("another user who may connect may ask, but: %v, %s", err, out)
	}
	channels, err := control.Channels(within(t), p.a.socket)
	channel := sole(t, channels, err).Channel
	for _, order := range [][]string{{"drain", fmt.Sprint(channel)}, {"log", "trace"}} {
		out, err := asNobody(order...)
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "root") || strings.Count(out, "\n") != 1 {
			t.Errorf("%q of another user: %v, %q; want exit code 1, and one line that says who may", order, err, out)
		}
	}
	channels, err = control.Channels(within(t), p.a.socket)
	if c := sole(t, channels, err); c.State != "attached" {
		t.Errorf("the channel is %s", c.State)
	}
}
