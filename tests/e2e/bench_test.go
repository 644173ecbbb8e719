package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchRow is a row of `machnet bench --json`: a map, which tells what is missing from what is zero.
type benchRow map[string]any

// benchRows runs a short benchmark, of 64 bytes unless the flags say otherwise.
func benchRows(t *testing.T, args ...string) []benchRow {
	t.Helper()
	flags := []string{"bench", "--rounds", "1", "--duration", "50ms", "--json", "-"}
	if !slices.Contains(args, "--size") && !slices.Contains(args, "--throughput") {
		flags = append(flags, "--size", "64")
	}
	c := startCommand(t, append(flags, args...)...)
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if c.errs.String() != "" {
		t.Errorf("no terminal, but on standard error: %q", c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil {
		t.Fatalf("standard output is not JSON alone: %v", err)
	}
	c.leavesNothing(t)
	return rows
}

func (r benchRow) number(t *testing.T, name string, least, most float64) float64 {
	t.Helper()
	n, ok := r[name].(float64)
	if !ok || math.IsNaN(n) || n < least || n > most {
		t.Errorf("%v %v, %v in flight: %q is %v, want a number from %g to %g", r["transport"], r["placement"], r["inflight"], name, r[name], least, most)
	}
	return n
}

// check looks at every field that a row must have; kernel is the link of TCP and UDP.
func (r benchRow) check(t *testing.T, link, kernel string) {
	t.Helper()
	for name, allowed := range map[string][]string{
		"transport": {"machnet", "tcp", "udp"},
		"link":      {link},
		"kernel":    {kernel},
		"placement": {"own", "same", "engine alone", "unbound"},
	} {
		if s, _ := r[name].(string); !slices.Contains(allowed, s) {
			t.Errorf("%q is %v, want one of %v", name, r[name], allowed)
		}
	}
	if wait, _ := r["wait"].(string); wait == "" {
		t.Errorf("%q is %v, want words", "wait", r["wait"])
	}
	if _, ok := r["batched"].(bool); !ok {
		t.Errorf("%q is %v, want true or false", "batched", r["batched"])
	}
	const long = 100e6 // us, far more than any of these takes
	size := r.number(t, "size", 8, 8<<20)
	r.number(t, "rounds", 1, 1)
	r.number(t, "connections", 1, 20000)
	r.number(t, "loss_percent", 0, 50)
	p50, p99 := r.number(t, "p50_us", 0.1, long), r.number(t, "p99_us", 0.1, long)
	if p999 := r.number(t, "p999_us", 0.1, long); p50 > p99 || p99 > p999 {
		t.Errorf("percentiles fall: %g, %g, %g", p50, p99, p999)
	}
	rate := r.number(t, "msgs_per_s", 1, 1e8)
	if gbps := r.number(t, "gbps", 0, 1e3); math.Abs(gbps-rate*size*8/1e9) > gbps/100 {
		t.Errorf("%g Gb/s do not fit %g messages/s of %g bytes", gbps, rate, size)
	}
	r.number(t, "cpu_us_per_msg_app", 0.001, long)
	if sidecar := r.number(t, "cpu_us_per_msg_sidecar", 0, long); (sidecar > 0) != (r["transport"] == "machnet") && link != "as configured" {
		t.Errorf("%v: the sidecars' CPU time is %g us a message", r["transport"], sidecar)
	}
	r.number(t, "others_cpu_percent", 0, 100)
	r.number(t, "strangers_cpu_percent", 0, 100*float64(runtime.NumCPU()+1)) // counted in ticks of 10 ms
}

func TestBenchWritesEveryFieldAsJSON(t *testing.T) {
	onAnyLink(t)
	rows := benchRows(t, "--transport", "machnet,tcp,udp")
	var arms []string
	for _, r := range rows {
		r.check(t, "memif", "loopback")
		r.number(t, "ratio_p50_vs_tcp", 0.0001, 10000)
		r.number(t, "ratio_p50_vs_tcp_best", 0.0001, 10000)
		arms = append(arms, fmt.Sprintf("%v %v %v %v", r["transport"], r["placement"], r["inflight"], r["batched"]))
	}
	slices.Sort(arms)
	want := []string{
		"machnet own 1 false", "machnet own 32 false", "machnet own 32 true",
		"tcp own 1 false", "tcp own 32 false", "tcp own 32 true", "tcp same 1 false", "tcp same 32 false", "tcp same 32 true",
		"udp own 1 false", "udp own 32 false", "udp same 1 false", "udp same 32 false",
	}
	if !slices.Equal(arms, want) {
		t.Errorf("rows %q, want %q", arms, want)
	}
}

func TestBenchOverManyConnections(t *testing.T) {
	onAnyLink(t)
	rows := benchRows(t, "--connections", "3,40")
	if len(rows) != 6 {
		t.Errorf("%d rows, want Machnet's and TCP's two for each number of connections", len(rows))
	}
	for i, r := range rows {
		r.check(t, "memif", "loopback")
		if want := []float64{3, 40}[i/3]; r["connections"] != want || r["inflight"] != 1.0 {
			t.Errorf("row %d: %v connections with %v in flight, want %g and 1", i, r["connections"], r["inflight"], want)
		}
	}
	c := startCommand(t, "bench", "--connections", "2", "--transport", "tcp", "--rounds", "1", "--duration", "20ms")
	if code := c.exit(t, patience); code != 0 || !strings.Contains(c.out.String(), "connections  size") {
		t.Errorf("exit code %d, and no column of connections: %s", code, c.out)
	}
}

// What Go loses to C is told by rows of both, of which C's are the measure.
func TestBenchGo(t *testing.T) {
	onAnyLink(t)
	c := startCommand(t, "bench", "go", "--rounds", "1", "--duration", "50ms", "--size", "64,32768", "--inflight", "1,8", "--json", "-")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil || len(rows) != 12 {
		t.Fatalf("%d rows, %v: %s", len(rows), err, c.out)
	}
	for i, r := range rows {
		if want := []string{"c", "go", "go stream"}[i%3]; r["program"] != want || r["link"] != "memif" {
			t.Errorf("row %d is of %v over %v, want %s over memif", i, r["program"], r["link"], want)
		}
		for _, name := range []string{"size", "inflight", "rounds", "p50_us", "p99_us", "p999_us", "msgs_per_s", "cpu_us_per_msg_app", "cpu_us_per_msg_sidecar", "ratio_p50_vs_c", "ratio_p99_vs_c", "ratio_msgs_vs_c"} {
			r.number(t, name, 1e-3, 1e9)
		}
		r.number(t, "strangers_cpu_percent", 0, 100*float64(runtime.NumCPU()+1))
		if i%3 == 0 && (r["ratio_p50_vs_c"] != 1.0 || r["ratio_p99_vs_c"] != 1.0 || r["ratio_msgs_vs_c"] != 1.0) {
			t.Errorf("C is not its own measure: %v", r)
		}
	}
	c.leavesNothing(t)
	c = startCommand(t, "bench", "go", "--size", "65536", "--inflight", "8")
	if code := c.exit(t, patience); code != 2 || !strings.Contains(c.errs.String(), "at most 262144 bytes are in flight") {
		t.Errorf("exit code %d: %s", code, c.errs)
	}
}

// Who has waited for a measurement wants its rows.
func TestAFileThatCannotBeWrittenIsRefusedBeforeAnythingIsMeasured(t *testing.T) {
	onAnyLink(t)
	for _, what := range [][]string{{}, {"go"}, {"churn"}, {"hogs"}, {"isolation"}, {"paths"}, {"setup"}} {
		c := startCommand(t, slices.Concat([]string{"bench"}, what, []string{"--json", "/nonexistent/rows.json", "--rounds", "1000"})...)
		if code := c.exit(t, patience); code != 1 || !strings.Contains(c.errs.String(), "--json: open /nonexistent/rows.json") {
			t.Errorf("bench %v: exit code %d, %s", what, code, c.errs)
		}
	}
}

func TestBenchOverOneSidecar(t *testing.T) {
	onAnyLink(t)
	rows := benchRows(t, "--link", "local", "--inflight", "1")
	if len(rows) != 2 {
		t.Fatalf("%d rows, want Machnet's and TCP's", len(rows))
	}
	for _, r := range rows {
		r.check(t, "local", "loopback")
		r.number(t, "ratio_p50_vs_tcp", 0.0001, 10000)
	}
	if rows[0]["placement"] != "engine alone" || rows[1]["placement"] != "same" {
		t.Errorf("placements %v and %v", rows[0]["placement"], rows[1]["placement"])
	}
}

func TestBenchAtARateIsAnOpenLoop(t *testing.T) {
	onAnyLink(t)
	for _, r := range benchRows(t, "--rate", "1000") {
		r.check(t, "memif", "loopback")
		if r["loop"] != "open at 1000/s" {
			t.Errorf("loop is %v, want open at 1000/s", r["loop"])
		}
		r.number(t, "msgs_per_s", 1, 1500)
	}
}

func TestBenchAndPingThroughRunningSidecars(t *testing.T) {
	p := sharedPair(t)
	echo := startCommand(t, "echo", "--socket", p.b.socket, "--addr", ":7100")
	kernel := startCommand(t, "echo", "--transport", "tcp", "--addr", "127.0.0.1:0")
	address := func(c *command) string {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if _, at, ok := strings.Cut(strings.TrimSpace(c.out.String()), " at "); ok {
				return at
			}
		}
		t.Fatal("the echo does not say where it is")
		return ""
	}
	if at := address(echo); at != p.b.ip+":7100" {
		t.Errorf("the echo is at %s", at)
	}
	rows := benchRows(t, "--local", p.a.socket, "--remote", p.b.ip+":7100", "--remote-kernel", address(kernel), "--inflight", "1")
	if len(rows) != 2 {
		t.Errorf("%d rows, want Machnet's and TCP's", len(rows))
	}
	for _, r := range rows {
		r.check(t, "as configured", "as configured")
		if best, there := r["ratio_p50_vs_tcp_best"]; best != nil || !there {
			t.Errorf("a ratio of %v to TCP on one core, which was not measured", best)
		}
	}
	ping := startCommand(t, "ping", "--socket", p.a.socket, p.b.ip+":7100", "-c", "3", "-i", "1ms", "-W", "10s", "-s", "2000")
	if code := ping.exit(t, patience); code != 0 || strings.Count(ping.out.String(), "2000 B from 10.0.0.2:7100: seq=") != 3 ||
		!strings.Contains(ping.out.String(), "3 echoes: min ") {
		t.Errorf("ping ended with %d and said %s", code, ping.out)
	}
	for _, c := range []*command{echo, kernel} {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		if code := c.exit(t, patience); code != 0 || c.errs.String() != "" {
			t.Errorf("the echo ended with %d and said %q", code, c.errs)
		}
	}
}

func TestBenchOverVeth(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	var arms []string
	for _, r := range benchRows(t, "--link", "veth", "--transport", "machnet,tcp,udp", "--inflight", "1") {
		r.check(t, "veth", "veth")
		r.number(t, "loss_percent", 0, 0)
		r.number(t, "ratio_p50_vs_tcp", 0.0001, 10000)
		r.number(t, "ratio_p50_vs_tcp_best", 0.0001, 10000)
		arms = append(arms, fmt.Sprintf("%v %v", r["transport"], r["placement"]))
	}
	if want := []string{"machnet own", "tcp own", "tcp same", "udp own", "udp same"}; !slices.Equal(arms, want) {
		t.Errorf("rows %q, want %q", arms, want)
	}
}

// Both ways to a device of the kernel's are measured in one run, and beside each other.
func TestBenchOverBothWaysToADevice(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	rows := benchRows(t, "--link", "veth", "--backend", "af_packet,af_xdp", "--inflight", "1")
	var arms []string
	for _, r := range rows {
		r.check(t, "veth", "veth")
		arms = append(arms, fmt.Sprintf("%v %v %v", r["transport"], r["backend"], r["placement"]))
		if r["transport"] != "machnet" {
			if r["ratio_p50_vs_af_packet"] != nil {
				t.Errorf("TCP has a ratio to af_packet: %v", r["ratio_p50_vs_af_packet"])
			}
			continue
		}
		of := r.number(t, "p50_us", 0.1, 100e6) / rows[0].number(t, "p50_us", 0.1, 100e6)
		r.number(t, "ratio_p50_vs_af_packet", of*0.999, of*1.001)
		r.number(t, "ratio_msgs_vs_af_packet", 0.0001, 10000)
	}
	if want := []string{"machnet af_packet own", "machnet af_xdp own", "tcp  own", "tcp  same"}; !slices.Equal(arms, want) {
		t.Errorf("rows %q, want %q", arms, want)
	}
	for flags, want := range map[string]string{
		"--link veth --backend dpdk":                       `--backend "dpdk": use af_packet, af_xdp or both`,
		"--link veth --backend af_xdp,af_xdp":              "use af_packet, af_xdp or both",
		"--backend af_xdp":                                 "--backend af_xdp: only with --link veth",
		"--link veth --backend af_xdp --transport tcp,udp": "use it with machnet",
	} {
		c := startCommand(t, append([]string{"bench"}, strings.Fields(flags)...)...)
		if code := c.exit(t, patience); code != 2 || !strings.Contains(c.errs.String(), want) {
			t.Errorf("bench %s: exit code %d, %q, want %q", flags, code, c.errs, want)
		}
	}
}

func TestBenchOverMemifBesideTCPInFrames(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	rows := benchRows(t, "--link", "memif", "--kernel", "frames", "--transport", "machnet,tcp,udp", "--inflight", "1")
	for _, r := range rows {
		r.check(t, "memif", "frames")
	}
	if len(rows) != 5 {
		t.Errorf("%d rows, want Machnet's, and two of TCP and UDP each", len(rows))
	}
}

func TestBenchLosesFramesOfEveryTransport(t *testing.T) {
	onAnyLink(t)
	needNamespaces(t)
	for _, r := range benchRows(t, "--link", "veth", "--loss", "10", "--inflight", "1", "--duration", "500ms") {
		r.check(t, "veth", "frames")
		r.number(t, "loss_percent", 10, 10)
		// One round trip in five loses a frame. TCP sends it again after 200 ms at the earliest, so that few come back; without
		// loss it is ten thousand a second. Machnet needs some milliseconds at most.
		if r["transport"] == "tcp" {
			r.number(t, "msgs_per_s", 0, 500)
		} else if r.number(t, "p99_us", 0, 100e6) < 2*r.number(t, "p50_us", 0, 100e6) {
			t.Errorf("no tail in spite of the loss: p50 %v, p99 %v us", r["p50_us"], r["p99_us"])
		}
	}
}

func TestBenchMeasuresThroughput(t *testing.T) {
	onAnyLink(t)
	sizes := map[float64]bool{}
	for _, r := range benchRows(t, "--throughput", "--transport", "tcp") {
		r.check(t, "memif", "loopback")
		r.number(t, "inflight", 8, 8)
		if r["batched"] != false {
			t.Error("a buffered row that was not asked for")
		}
		size, _ := r["size"].(float64)
		sizes[size] = true
	}
	for _, want := range []float64{64, 512, 2 << 10, 8 << 10, 32 << 10, 128 << 10, 1 << 20, 8 << 20} {
		if !sizes[want] {
			t.Errorf("no row of %g bytes", want)
		}
	}
	for link, tc := range map[string]struct{ kernel, size string }{
		"memif": {"loopback", "8388608"},
		"local": {"loopback", "1048576"},
		"veth":  {"veth", "1048576"},
	} {
		t.Run(link, func(t *testing.T) {
			if link == "veth" {
				needNamespaces(t)
			}
			rows := benchRows(t, "--throughput", "--link", link, "--transport", "machnet", "--size", tc.size)
			if len(rows) != 1 {
				t.Fatalf("%d rows, want one", len(rows))
			}
			rows[0].check(t, link, tc.kernel)
		})
	}
}

func TestBenchShowsRatesForThroughput(t *testing.T) {
	onAnyLink(t)
	c := startCommand(t, "bench", "--throughput", "--transport", "tcp", "--rounds", "1", "--duration", "20ms", "--size", "64,65536")
	if code := c.exit(t, patience); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, want := range []string{"Gb/s / TCP best", "one way", "64 KiB"} {
		if !strings.Contains(c.out.String(), want) {
			t.Errorf("no %q in the table", want)
		}
	}
}

// fieldsOf reads the table of fields in a section of docs/bench.md.
func fieldsOf(t *testing.T, heading string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, table, hasTable := strings.Cut(section, "| field |")
	if !found || !hasTable {
		t.Fatalf("docs/bench.md has no section %q with a table of fields", heading)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		if names := strings.SplitN(line, "|", 3); len(names) == 3 { // the first column may name several
			for _, m := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(names[1], -1) {
				documented[m[1]] = true
			}
		}
	}
	return documented
}

// explained complains about fields of a row that the table does not have, and about others.
func explained(t *testing.T, documented map[string]bool, r benchRow) {
	t.Helper()
	for name := range r {
		if !documented[name] {
			t.Errorf("%q is not in docs/bench.md", name)
		}
	}
	for name := range documented {
		if _, ok := r[name]; !ok {
			t.Errorf("docs/bench.md explains %q, which no row has", name)
		}
	}
}

// docs/bench.md explains every field, and no other.
func TestEveryFieldOfARowIsDocumented(t *testing.T) {
	onAnyLink(t)
	documented := fieldsOf(t, "Fields")
	for _, r := range benchRows(t, "--transport", "tcp", "--inflight", "1") {
		explained(t, documented, r)
	}
}

func TestVethWithoutRootIsRefusedInOneSentence(t *testing.T) {
	onAnyLink(t)
	if os.Getuid() != 0 {
		t.Skip("only root can run a program as somebody else")
	}
	folder := shortTempDir(t)
	program := filepath.Join(folder, "machnet")
	text, err := os.ReadFile(machnetCommand)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, text, 0o755), os.Chmod(folder, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, asked := range []string{"--link veth", "--kernel frames"} {
		cmd := exec.Command(program, append([]string{"bench"}, strings.Fields(asked)...)...)
		cmd.Dir, cmd.Env = folder, append(os.Environ(), "TMPDIR="+folder)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		said, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || bytes.Count(said, []byte("\n")) != 1 ||
			!bytes.Contains(said, []byte(asked+": make a network namespace")) || !bytes.Contains(said, []byte("root")) {
			t.Errorf("bench %s by another user: %v, %q; want one sentence about root", asked, err, said)
		}
	}
}

// What is measured of neighbours is whole, and the table says what it is of.
func TestBenchChurn(t *testing.T) {
	c := startCommand(t, "bench", "churn", "--rounds", "2", "--duration", "50ms", "--units", "64", "--flows", "16", "--idle", "20", "--json", "-")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v: %s", len(rows), err, c.out)
	}
	row := rows[0]
	for name, want := range map[string]float64{"size": 64, "units": 64, "flows": 16, "idle_channels": 20, "rounds": 2} {
		if row[name] != want {
			t.Errorf("%s = %v, want %v", name, row[name], want)
		}
	}
	for _, name := range []string{"p50_us", "p99_us", "max_us", "churn_p50_us", "churn_p99_us", "churn_max_us", "ratio_p50", "ratio_p99", "attaches_per_s", "attach_p50_us", "attach_p99_us"} {
		row.number(t, name, 1e-3, 1e9)
	}
	if row["p50_us"].(float64)*row["ratio_p50"].(float64) > row["churn_p50_us"].(float64)*1.001 {
		t.Errorf("ratio_p50 is not of the medians: %v", row)
	}
	c.leavesNothing(t)

	c = startCommand(t, "bench", "churn", "--rounds", "1", "--duration", "50ms", "--units", "64", "--flows", "16")
	if code := c.exit(t, time.Minute); code != 0 || !strings.Contains(c.out.String(), "Channels of 64 units and 16 connections") {
		t.Fatalf("exit code %d: %s", code, c.out)
	}
	c = startCommand(t, "bench", "churn", "--pause", "-1s")
	if code := c.exit(t, time.Minute); code != 2 || !strings.Contains(c.errs.String(), "a pause cannot be negative") {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
}

// Isolation is measured in three arms, of which one has no noise.
func TestBenchIsolation(t *testing.T) {
	c := startCommand(t, "bench", "isolation", "--rounds", "1", "--duration", "50ms", "--noisy", "2", "--inflight", "8", "--json", "-")
	if code := c.exit(t, time.Minute); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
	var rows []benchRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v: %s", len(rows), err, c.out)
	}
	for i, arm := range []string{"unloaded", "dedicated", "shared"} {
		if rows[i]["arm"] != arm {
			t.Errorf("row %d is of %v, want %s", i, rows[i]["arm"], arm)
		}
		for _, name := range []string{"p50_us", "p99_us", "p999_us"} {
			rows[i].number(t, name, 1e-3, 1e9)
		}
		if noise := rows[i]["noisy_per_s"].(float64); (noise > 0) != (i > 0) {
			t.Errorf("%s: %v echoes/s of the noisy ones", arm, noise)
		}
	}
	c.leavesNothing(t)

	c = startCommand(t, "bench", "isolation", "--noisy", "0")
	if code := c.exit(t, time.Minute); code != 2 || !strings.Contains(c.errs.String(), "--noisy 0: 1 to 64 pairs") {
		t.Fatalf("exit code %d: %s", code, c.errs)
	}
}
