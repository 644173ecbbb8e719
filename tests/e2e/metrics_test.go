package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/machnet/machnet/go/control"
)

// freeAddress is one of this machine at which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// scrape reads /metrics as Prometheus does.
func scrape(t testing.TB, address string) []byte {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics: %s, %v: %s", response.Status, err, text)
	}
	if kind := response.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("the content type is %q", kind)
	}
	return text
}

func parseMetrics(t testing.TB, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

// label is the value of a metric's label.
func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestMetricsAreOffUnlessAskedFor(t *testing.T) {
	onAnyLink(t)
	p := newPair(t)
	if at := p.a.listensAt(t); len(at) != 0 {
		t.Errorf("without settings for it machnetd listens for TCP at %q", at)
	}
}

// listensAt are the TCP sockets at which a sidecar listens, as the kernel lists them.
func (s *sidecar) listensAt(t *testing.T) (at []string) {
	t.Helper()
	own := map[string]bool{}
	folder := fmt.Sprintf("/proc/%d", s.cmd.Process.Pid)
	fds, err := os.ReadDir(folder + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(folder, "fd", fd.Name())); err == nil {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	const address, state, inode, listening = 1, 3, 9, "0A"
	for _, family := range []string{"tcp", "tcp6"} {
		table, err := os.ReadFile(folder + "/net/" + family)
		if err != nil {
			continue // a kernel without it
		}
		for row := range strings.Lines(string(table)) {
			if fields := strings.Fields(row); len(fields) > inode && fields[state] == listening && own[fields[inode]] {
				at = append(at, fields[address])
			}
		}
	}
	return at
}

func TestPrometheusReadsTheMetrics(t *testing.T) {
	onAnyLink(t)
	address := freeAddress(t)
	folder := shortTempDir(t)
	w := newWire(t, folder)
	s, err := startSidecar(folder, "10.0.0.1", w.a, "--metrics", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	if at := s.listensAt(t); len(at) != 1 {
		t.Errorf("machnetd listens for TCP at %q, want one place", at)
	}
	stack := s.attach(t)
	connect(t, stack, stack)
	before := s.countersOf(t)["engine 0"]
	text := scrape(t, address)
	after := s.countersOf(t)["engine 0"]

	t.Run("the names keep to the conventions", func(t *testing.T) {
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
	families := parseMetrics(t, text)
	t.Run("what they say", func(t *testing.T) {
		for name, family := range families {
			if family.GetHelp() == "" || family.GetType() == dto.MetricType_UNTYPED {
				t.Errorf("%s has help %q and type %v", name, family.GetHelp(), family.GetType())
			}
			if !strings.HasPrefix(name, "machnet_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("%s is no name of ours", name)
			}
		}
		build := families["machnet_build_info"]
		if build == nil || label(build.GetMetric()[0], "version") != s.stats(t).Machnetd {
			t.Errorf("machnet_build_info is %v", build)
		}
	})
	t.Run("they are the counters of the control socket", func(t *testing.T) {
		read := func(name string) (int, bool) {
			for candidate, unit := range map[string]float64{
				"machnet_engine_" + name + "_total": 1, "machnet_engine_" + name: 1, "machnet_" + name + "_total": 1,
				"machnet_engine_" + name + "_seconds_total": 1e9, // the control socket says nanoseconds
			} {
				if family := families[candidate]; family != nil && len(family.GetMetric()) == 1 && label(family.GetMetric()[0], "engine") == "0" {
					m := family.GetMetric()[0]
					return int(math.Round((m.GetCounter().GetValue() + m.GetGauge().GetValue()) * unit)), true
				}
			}
			return 0, false
		}
		for name, least := range before {
			n, found := read(name)
			if !found || n < least || n > after[name] {
				t.Errorf("%s is %d (found: %v), and was %d before and %d after", name, n, found, least, after[name])
			}
		}
	})
	t.Run("the dashboard finds what it shows", func(t *testing.T) {
		for _, name := range dashboardMetrics(t) {
			if families[name] == nil && !strings.HasPrefix(name, "machnet_port_") && !strings.HasPrefix(name, "machnet_queue_") { // which this driver may not count
				t.Errorf("%s is not among the metrics", name)
			}
		}
	})
	t.Run("they say nothing of what is not counted here", func(t *testing.T) {
		for name, n := range s.stats(t).Port.Counters {
			if family := families["machnet_port_"+name+"_total"]; (family != nil) != (n != nil) {
				t.Errorf("%s is %v at the control socket, and %v here", name, n, family)
			}
		}
	})
}

// dashboardMetrics are the names of the metrics in docs/grafana-dashboard.json.
func dashboardMetrics(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
		Templating, Annotations any
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("panel %q shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			found := metricName.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("panel %q: no metric in %q", panel.Title, target.Expr)
			}
			for _, name := range found {
				names[name] = true
			}
		}
	}
	elsewhere, err := json.Marshal([]any{dashboard.Templating, dashboard.Annotations})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metricName.FindAllString(string(elsewhere), -1) {
		names[name] = true
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	return all
}

var metricName = regexp.MustCompile(`\b(machnet|process)_[a-z0-9_]+`)

func TestEveryMetricOfTheDashboardIsDocumented(t *testing.T) {
	onAnyLink(t)
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, name := range metricName.FindAllString(string(text), -1) {
		documented[name] = true
	}
	names := dashboardMetrics(t)
	if len(names) < 20 {
		t.Errorf("only %d metrics are shown: %q", len(names), names)
	}
	for _, name := range names {
		if !documented[name] {
			t.Errorf("docs/metrics.md does not say what %s is", name)
		}
	}
}

// BenchmarkScrape is how long Prometheus waits for the metrics of a sidecar with 10 000 connections.
func BenchmarkScrape(b *testing.B) {
	address := freeAddress(b)
	withManyConnections(b, "--metrics", address)
	for b.Loop() {
		b.StopTimer()
		time.Sleep(150 * time.Millisecond) // the page is kept for 100 ms
		b.StartTimer()
		scrape(b, address)
	}
}

// BenchmarkConnections is how long it takes to list 10 000 connections.
func BenchmarkConnections(b *testing.B) {
	s := withManyConnections(b)
	for b.Loop() {
		if connections, err := control.Connections(within(b), s.socket); err != nil || len(connections) != manyConnections {
			b.Fatalf("%d connections, %v", len(connections), err)
		}
	}
}

const manyConnections = 10_000

// withManyConnections is a sidecar with manyConnections, which are idle.
func withManyConnections(b *testing.B, flags ...string) *sidecar {
	b.Helper()
	folder := shortTempDir(b)
	flags = append(flags, "--flows", fmt.Sprint(manyConnections), "--units", "32768")
	s, err := startSidecar(folder, "10.0.0.1", memifWire(folder).a, flags...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.stop)
	stack := s.attach(b)
	l := listen(b, stack)
	go echoEach(l)
	for range manyConnections / 2 { // both ends are this sidecar's
		dial(b, stack, l.Addr())
	}
	stats, err := control.Stats(within(b), s.socket)
	if err != nil {
		b.Fatal(err)
	}
	if flows, _ := stats.Engines[0].Counters.Get("flows"); flows != manyConnections {
		b.Fatalf("%d flows, want %d", flows, manyConnections)
	}
	return s
}
