package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/machnet/machnet/go/control"
)

// asked is a question with its arguments and flags.
type asked struct {
	query  control.Query
	socket string
	ready  bool // health, of the NIC as well
	all    bool // counters, also those that are zero or not counted
}

// none stands in a table for what there is not.
const none = "-"

// table aligns columns by at least two spaces. No cell is empty or has a space in it, so that awk and its like can take lines apart.
type table struct{ to *tabwriter.Writer }

func newTable(out io.Writer, heads ...any) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(heads...)
	return t
}

func (t table) row(cells ...any) {
	words := make([]string, len(cells))
	for i, cell := range cells {
		words[i] = printable(fmt.Sprint(cell))
	}
	fmt.Fprintln(t.to, strings.Join(words, "\t"))
}

// printable keeps one word of what another process wrote: nothing that moves a cursor, or is taken for a second column.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, text)
	if text == "" {
		return none
	}
	return text
}

func statsTable(ctx context.Context, a asked, out io.Writer) error {
	stats, err := control.Stats(ctx, a.socket)
	if err != nil {
		return err
	}
	up := time.Duration(stats.Uptime) * time.Second
	fmt.Fprintf(out, "machnetd %s, pid %d, up %v, IP %s, NIC %s, %s\n\n", printable(stats.Machnetd), stats.PID, up, printable(stats.IP), printable(stats.Port.Driver), printable(stats.Port.State))
	t := newCounterTable(out, a.all)
	for _, e := range stats.Engines {
		t.show("engine/"+strconv.Itoa(e.Engine), e.Counters)
		t.show("queue/"+strconv.Itoa(e.Engine), e.Queue)
	}
	t.show("port", stats.Port.Counters)
	return t.end(out)
}

func aboutTable(ctx context.Context, a asked, out io.Writer) error {
	about, err := control.Describe(ctx, a.socket)
	if err != nil {
		return err
	}
	s, nic := about.Settings, about.NIC
	t := newTable(out, "WHAT", "VALUE")
	for _, row := range [][2]any{
		{"machnetd", about.Machnetd}, {"pid", about.PID}, {"dpdk", about.DPDK}, {"channel", about.Channel},
		{"ip", fmt.Sprintf("%s/%d", s.IP, s.Prefix)}, {"gateway", optional(s.Gateway)}, {s.NIC[0], s.NIC[1]}, {"mtu", s.MTU},
		{"descriptors", s.Descriptors}, {"checksum-offload", s.ChecksumOffload}, {"engines", s.Engines}, {"cores", fmt.Sprint(s.Cores)},
		{"idle", s.Idle}, {"exclusive", s.Exclusive}, {"udp-ports", fmt.Sprintf("%d-%d", s.UDPPorts[0], s.UDPPorts[1])}, {"reverse", s.Reverse},
		{"hugepages", s.Hugepages}, {"memory-mib", s.MemoryMiB}, {"socket", s.Socket},
		{"nic-driver", nic.Driver}, {"nic-mac", nic.MAC}, {"nic-mtu", nic.MTU}, {"nic-queues", nic.Queues}, {"nic-descriptors", nic.Descriptors},
		{"nic-tx-checksum", nic.TxChecksum}, {"nic-rx-checksum", nic.RxChecksum}, {"nic-interrupts", nic.Interrupts},
	} {
		t.row(row[0], row[1])
	}
	return t.to.Flush()
}

// counterTable shows counters, a line each; those without news only if all are wanted.
type counterTable struct {
	table
	all             bool
	zero, uncounted int // left out
}

func newCounterTable(out io.Writer, all bool) *counterTable {
	return &counterTable{table: newTable(out, "OF", "COUNTER", "VALUE"), all: all}
}

func (t *counterTable) show(of string, counters control.Counters) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		switch n, counted := counters.Get(name); {
		case counted && (n > 0 || t.all):
			t.row(of, name, n)
		case counted:
			t.zero++
		case t.all:
			t.row(of, name, "not-counted")
		default:
			t.uncounted++
		}
	}
}

// end writes the table, and how much it leaves out.
func (t *counterTable) end(out io.Writer) error {
	if err := t.to.Flush(); err != nil || t.zero+t.uncounted == 0 {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d zero, %d not counted by this NIC's driver: left out, --all shows them\n", t.zero, t.uncounted)
	return err
}

func channelsTable(ctx context.Context, a asked, out io.Writer) error {
	channels, err := control.Channels(ctx, a.socket)
	if err != nil {
		return err
	}
	slices.SortFunc(channels, func(a, b control.Channel) int { return cmp.Compare(a.Channel, b.Channel) })
	t := newTable(out, "CHANNEL", "APPLICATION", "ENGINE", "PID", "UID", "STATE", "CONNECTIONS", "LISTENERS", "UNITS", "SUBMITTED", "DELIVERED", "RESERVED")
	for _, c := range channels {
		t.row(c.Channel, c.Application, c.Engine, c.PID, c.UID, c.State, c.Connections, c.Listeners, c.Units.Total, c.Units.Submitted, c.Units.Delivered, c.Units.Reserved)
	}
	return t.to.Flush()
}

func listenersTable(ctx context.Context, a asked, out io.Writer) error {
	listeners, err := control.Listeners(ctx, a.socket)
	if err != nil {
		return err
	}
	slices.SortFunc(listeners, func(a, b control.Listener) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Channel, b.Channel))
	})
	t := newTable(out, "PORT", "CHANNEL", "ENGINE", "PID", "UID", "REUSE-PORT", "BACKLOG", "WAITING")
	for _, l := range listeners {
		t.row(l.Port, l.Channel, l.Engine, l.PID, l.UID, l.ReusePort, l.Backlog, l.Waiting)
	}
	return t.to.Flush()
}

func connectionsTable(ctx context.Context, a asked, out io.Writer) error {
	var connections []control.Connection
	var err error
	if a.query.Channel != nil {
		connections, err = control.ConnectionsOf(ctx, a.socket, *a.query.Channel)
	} else {
		connections, err = control.Connections(ctx, a.socket)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(connections, func(a, b control.Connection) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Local, b.Local), cmp.Compare(a.Peer, b.Peer))
	})
	t := newTable(out, "ENGINE", "ID", "CHANNEL", "LOCAL", "PEER", "STATE", "ORIGIN", "QUEUED", "IN-FLIGHT", "RTT")
	for _, c := range connections {
		t.row(c.Engine, c.Connection, optional(c.Channel), c.Local, c.Peer, c.State, c.Origin, c.Queued, c.InFlight, optionalTime(c.RTT))
	}
	return t.to.Flush()
}

func connectionTable(ctx context.Context, a asked, out io.Writer) error {
	c, err := control.ConnectionState(ctx, a.socket, *a.query.Engine, a.query.Connection)
	if err != nil {
		return err
	}
	t := newTable(out, "WHAT", "VALUE")
	for _, row := range [][2]any{
		{"engine", c.Engine}, {"id", c.Connection.Connection}, {"channel", optional(c.Channel)}, {"local", c.Local}, {"peer", c.Peer},
		{"state", c.State}, {"origin", c.Origin}, {"queued", c.Queued}, {"in-flight", c.InFlight}, {"rtt", optionalTime(c.RTT)},
		{"window", c.Window}, {"unit-size", c.UnitSize}, {"credit", c.Credit}, {"promised", c.Promised}, {"peer-waits-for", optional(c.Waits)},
		{"timeout", optionalTime(&c.Timeout)}, {"next-hop", optional(c.NextHop)}, {"next-hop-mac", optional(c.NextHopMAC)}, {"local-udp-port", c.LocalPort}, {"peer-udp-port", c.PeerPort},
		{"pair", optional(c.Pair)}, {"peer-queue", optional(c.PeerQueue)}, {"misdirected", c.Misdirected},
	} {
		t.row(row[0], row[1])
	}
	if err := t.to.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	counters := newCounterTable(out, a.all)
	counters.show("connection", c.Counters)
	return counters.end(out)
}

func peersTable(ctx context.Context, a asked, out io.Writer) error {
	peers, err := control.Peers(ctx, a.socket)
	if err != nil {
		return err
	}
	slices.SortFunc(peers, func(a, b control.Peer) int { return address(a.IP).Compare(address(b.IP)) })
	t := newTable(out, "IP", "NEXT-HOP", "MAC", "STATE", "CONNECTIONS", "HEARD-AGO")
	for _, p := range peers {
		t.row(p.IP, optional(p.NextHop), optional(p.MAC), p.State, p.Connections, optionalTime(p.Heard))
	}
	return t.to.Flush()
}

// address is for sorting; what is none comes first.
func address(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func optional[T any](v *T) string {
	if v == nil {
		return none
	}
	return fmt.Sprint(*v)
}

// optionalTime shows nanoseconds in the largest unit of which there is at least one.
func optionalTime(ns *uint64) string {
	if ns == nil {
		return none
	}
	n := float64(*ns)
	switch {
	case n < 1e3:
		return fmt.Sprintf("%.0fns", n)
	case n < 1e6:
		return fmt.Sprintf("%.1fus", n/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1fms", n/1e6)
	}
	return fmt.Sprintf("%.1fs", n/1e9)
}
