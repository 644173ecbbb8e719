package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// answering is the socket of a sidecar that answers one question with this document.
func answering(t *testing.T, document string) (socket string, question <-chan string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket = filepath.Join(folder, "s")
	listener, err := net.Listen("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	asked := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		packet := make([]byte, 4096)
		n, _ := conn.Read(packet)
		asked <- string(packet[:n])
		_, _ = conn.Write([]byte(document))
	}()
	return socket, asked
}

// ctl runs `machnet ctl` and returns its exit code and what it printed.
func ctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"ctl"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestCtlAsksAndShowsTables(t *testing.T) {
	const stats = `{"version":1,"query":"stats","machnetd":"0.1.0","pid":7,"uptime_s":3661,"ip":"10.0.0.1",
		"engines":[{"engine":0,"counters":{"stalls":0,"rx_frames":12345},"queue":{"ring_drops":2}},{"engine":1,"counters":{"rx_frames":6}}],
		"port":{"driver":"net_memif","state":"up","counters":{"link_ups":1,"rx_missed":null}}}`
	for name, tc := range map[string]struct {
		args                   []string
		question, answer, want string
	}{
		"stats": {
			[]string{"stats"}, `{"version":1,"query":"stats"}`, stats, `machnetd 0.1.0, pid 7, up 1h1m1s, IP 10.0.0.1, NIC net_memif, up

OF        COUNTER     VALUE
engine/0  rx_frames   12345
queue/0   ring_drops  2
engine/1  rx_frames   6
port      link_ups    1

1 zero, 1 not counted by this NIC's driver: left out, --all shows them
`},
		"stats --all": {
			[]string{"stats", "--all"}, `{"version":1,"query":"stats"}`, stats, `machnetd 0.1.0, pid 7, up 1h1m1s, IP 10.0.0.1, NIC net_memif, up

OF        COUNTER     VALUE
engine/0  rx_frames   12345
engine/0  stalls      0
queue/0   ring_drops  2
engine/1  rx_frames   6
port      link_ups    1
port      rx_missed   not-counted
`},
		"health": {
			[]string{"health"}, `{"version":1,"query":"health"}`,
			`{"version":1,"query":"health","healthy":true,"engines":[{"engine":0,"state":"asleep","late_ns":0},{"engine":1,"state":"running","late_ns":0}],"nic":{"driver":"net_ena","state":"gone"}}`,
			"healthy: engine 0 asleep, engine 1 running, NIC net_ena gone\n"},
		"health --ready": {
			[]string{"health", "--ready"}, `{"version":1,"query":"health"}`, `{"version":1,"query":"health","healthy":true,"engines":[],"nic":{"driver":"net_ena","state":"up"}}`,
			"healthy: , NIC net_ena up\n"},
		"health --json": {
			[]string{"health", "--json"}, `{"version":1,"query":"health"}`, `{"version":1,"query":"health","healthy":true}`, `{"version":1,"query":"health","healthy":true}` + "\n"},
		"channels": {
			[]string{"channels"}, `{"version":1,"query":"channels"}`,
			`{"version":1,"query":"channels","channels":[{"channel":13,"engine":1,"application":8,"pid":3,"uid":4,"state":"attached","connections":0,"listeners":0,
			"units":{"total":16,"submitted":0,"delivered":0,"reserved":0}},{"channel":12,"engine":0,"application":7,"pid":3,"uid":4,"state":"draining","connections":5,"listeners":6,
			"units":{"total":1024,"submitted":7,"delivered":8,"reserved":9}}]}`,
			`CHANNEL  APPLICATION  ENGINE  PID  UID  STATE     CONNECTIONS  LISTENERS  UNITS  SUBMITTED  DELIVERED  RESERVED
12       7            0       3    4    draining  5            6          1024   7          8          9
13       8            1       3    4    attached  0            0          16     0          0          0
`},
		"no channels": {
			[]string{"channels"}, `{"version":1,"query":"channels"}`, `{"version":1,"query":"channels","channels":[]}`,
			"CHANNEL  APPLICATION  ENGINE  PID  UID  STATE  CONNECTIONS  LISTENERS  UNITS  SUBMITTED  DELIVERED  RESERVED\n"},
		"connections": {
			[]string{"connections"}, `{"version":1,"query":"connections"}`,
			`{"version":1,"query":"connections","connections":[
			{"engine":1,"connection":"1-8","channel":null,"local":"10.0.0.1:81","peer":"","state":"a word\u001b[2J","origin":"dialled","queued":0,"in_flight":0,"rtt_ns":null},
			{"engine":0,"connection":"0-7","channel":1,"local":"10.0.0.1:80","peer":"10.0.0.2:4000","state":"open","origin":"accepted","queued":2,"in_flight":3,"rtt_ns":23456}]}`,
			`ENGINE  ID   CHANNEL  LOCAL        PEER           STATE       ORIGIN    QUEUED  IN-FLIGHT  RTT
0       0-7  1        10.0.0.1:80  10.0.0.2:4000  open        accepted  2       3          23.5us
1       1-8  -        10.0.0.1:81  -              a_word_[2J  dialled   0       0          -
`},
		"connections of a channel": {
			[]string{"connections", "3"}, `{"version":1,"query":"connections","channel":3}`, `{"version":1,"query":"connections","connections":[]}`,
			"ENGINE  ID  CHANNEL  LOCAL  PEER  STATE  ORIGIN  QUEUED  IN-FLIGHT  RTT\n"},
		"peers": {
			[]string{"peers"}, `{"version":1,"query":"peers"}`,
			`{"version":1,"query":"peers","peers":[{"ip":"10.0.0.10","next_hop":null,"mac":null,"state":"asking","connections":0,"heard_ns_ago":null},
			{"ip":"10.0.0.2","next_hop":"10.0.0.2","mac":"02:00:00:00:00:02","state":"known","connections":1,"heard_ns_ago":2500000000}]}`,
			`IP         NEXT-HOP  MAC                STATE   CONNECTIONS  HEARD-AGO
10.0.0.2   10.0.0.2  02:00:00:00:00:02  known   1            2.5s
10.0.0.10  -         -                  asking  0            -
`},
		"connection": {
			[]string{"connection", "0", "7-1"}, `{"version":1,"query":"connection","engine":0,"connection":"7-1"}`,
			`{"version":1,"query":"connection","engine":0,"connection":"7-1","channel":1,"local":"10.0.0.1:80","peer":"10.0.0.2:4000","state":"open","origin":"accepted",
			"queued":2,"in_flight":1,"rtt_ns":null,"window":16,"unit_size":1424,"credit":8,"promised":9,"waits":"receive ring","timeout_ns":1500000,"next_hop":"10.0.0.2",
			"next_hop_mac":null,"local_udp_port":50000,"peer_udp_port":50001,"pair":"given up","peer_queue":3,"misdirected":7,"counters":{"rtos":0,"lost":3}}`,
			`WHAT            VALUE
engine          0
id              7-1
channel         1
local           10.0.0.1:80
peer            10.0.0.2:4000
state           open
origin          accepted
queued          2
in-flight       1
rtt             -
window          16
unit-size       1424
credit          8
promised        9
peer-waits-for  receive_ring
timeout         1.5ms
next-hop        10.0.0.2
next-hop-mac    -
local-udp-port  50000
peer-udp-port   50001
pair            given_up
peer-queue      3
misdirected     7

OF          COUNTER  VALUE
connection  lost     3

1 zero, 0 not counted by this NIC's driver: left out, --all shows them
`},
		"drain":  {[]string{"drain", "3"}, `{"version":1,"query":"drain","channel":3}`, `{"version":1,"query":"drain"}`, "channel 3 is draining\n"},
		"--json": {[]string{"peers", "--json"}, `{"version":1,"query":"peers"}`, `{"version":1, "query":"peers","peers":[]}`, `{"version":1, "query":"peers","peers":[]}` + "\n"},
		"drain --json": {
			[]string{"drain", "--json", "3"}, `{"version":1,"query":"drain","channel":3}`, `{"version":1,"query":"drain"}`, `{"version":1,"query":"drain"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			socket, question := answering(t, tc.answer)
			code, out, errs := ctl(t, append(tc.args, "--socket", socket)...)
			if code != 0 || errs != "" {
				t.Fatalf("ended with %d: %s", code, errs)
			}
			if asked := <-question; asked != tc.question {
				t.Errorf("asked %s, want %s", asked, tc.question)
			}
			if out != tc.want {
				t.Errorf("printed\n%s\nwant\n%s", out, tc.want)
			}
		})
	}
}

func TestCtlEndsWithOneWhereTheSidecarIsNotHealthy(t *testing.T) {
	const stalled = `{"version":1,"query":"health","healthy":false,"engines":[{"engine":0,"state":"running","late_ns":0},{"engine":1,"state":"stalled","late_ns":3200000000}],"nic":{"driver":"net_ena","state":"up"}}`
	const down = `{"version":1,"query":"health","healthy":true,"engines":[{"engine":0,"state":"running","late_ns":0}],"nic":{"driver":"net_ena","state":"link-down"}}`
	for name, tc := range map[string]struct {
		args              []string
		answer, out, says string
	}{
		"a line":            {[]string{"health"}, stalled, "", "healthy; engine 1 has not moved for 3.2s; "},
		"a document":        {[]string{"health", "--json"}, stalled, stalled + "\n", "healthy; engine 1 has not moved for 3.2s; "},
		"the NIC":           {[]string{"health", "--ready"}, down, "", "ready; its NIC, net_ena, is link-down; "},
		"the NIC, document": {[]string{"health", "--ready", "--json"}, down, down + "\n", "ready; its NIC, net_ena, is link-down; "},
	} {
		t.Run(name, func(t *testing.T) {
			socket, _ := answering(t, tc.answer)
			code, out, errs := ctl(t, append(tc.args, "--socket", socket)...)
			want := "machnet ctl: machnetd at " + socket + " is not " + tc.says
			if code != 1 || out != tc.out || !strings.HasPrefix(errs, want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("ended with %d, printed %q, and said %q; want %q", code, out, errs, want)
			}
		})
	}
}

func TestCtlSaysWhatIsWrongInOneLine(t *testing.T) {
	socket, _ := answering(t, `{"version":1,"query":"log","error":"level \"loud\": unknown; use off, error, warn, info, debug or trace"}`)
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":           {nil, 2, "say what to ask"},
		"a flag first":      {[]string{"--json"}, 2, "first what to ask, then flags"},
		"unknown":           {[]string{"weather"}, 2, `"weather" is no question; ` + "`machnet ctl -h` lists them"},
		"unknown flag":      {[]string{"stats", "--loud"}, 2, "`machnet ctl stats -h` lists the flags"},
		"no timeout":        {[]string{"stats", "--timeout", "0s"}, 2, "--timeout 0s"},
		"too many":          {[]string{"connections", "1", "2"}, 2, `arguments ["1" "2"]: write ` + "`machnet ctl connections [CHANNEL]`"},
		"too few":           {[]string{"connection", "0"}, 2, `arguments ["0"]: write ` + "`machnet ctl connection ENGINE ID`"},
		"none wanted":       {[]string{"stats", "1"}, 2, "this command takes flags only"},
		"no channel":        {[]string{"drain", "one"}, 2, `channel "one": a number, as ` + "`machnet ctl channels` lists it"},
		"no engine":         {[]string{"connection", "-1", "0-7"}, 2, "flag"},
		"engine too large":  {[]string{"connection", "65536", "0-7"}, 2, `engine "65536"`},
		"nobody there":      {[]string{"stats", "--socket", "/nowhere/s"}, 1, "stats of machnetd at /nowhere/s: no sidecar: there is no such socket; start machnetd"},
		"the sidecar's own": {[]string{"log", "loud", "--socket", socket}, 1, `level "loud": unknown; use off`},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ctl(t, tc.args...)
			if code != tc.code || out != "" || !strings.Contains(errs, tc.says) || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "machnet ctl: ") {
				t.Errorf("ended with %d (%s), want %d and one line with %q", code, errs, tc.code, tc.says)
			}
		})
	}
}

func TestCtlGivesUpOnASidecarThatIsSilent(t *testing.T) {
	folder, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	listener, err := net.Listen("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	code, _, errs := ctl(t, "stats", "--socket", socket, "--timeout", "20ms")
	if code != 1 || !strings.Contains(errs, "machnetd has not answered in 20ms (--timeout)") {
		t.Errorf("ended with %d: %s", code, errs)
	}
}

func TestCtlHelpNamesEveryQuestion(t *testing.T) {
	_, out, _ := ctl(t, "-h")
	for _, q := range questions() {
		if !strings.Contains(out, "  "+q.name) {
			t.Errorf("`machnet ctl -h` does not name %s", q.name)
		}
		if code, help, _ := ctl(t, q.name, "-h"); code != 0 || !strings.HasPrefix(help, "usage: machnet ctl "+q.name+" [flags]") || !strings.Contains(help, "-socket") {
			t.Errorf("`machnet ctl %s -h` ended with %d and printed %q", q.name, code, help)
		}
	}
}

func TestTimesAreShownInTheLargestUnitThatHasOne(t *testing.T) {
	for ns, want := range map[uint64]string{0: "0ns", 999: "999ns", 1000: "1.0us", 23456: "23.5us", 1e6: "1.0ms", 1e9: "1.0s", 90e9: "90.0s"} {
		if got := optionalTime(&ns); got != want {
			t.Errorf("%d ns is shown as %q, want %q", ns, got, want)
		}
	}
}
