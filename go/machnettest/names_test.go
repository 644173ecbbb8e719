//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/go/machnettest"
)

// zone is what a name server knows: addresses by name, each name with its last dot.
type zone map[string][]netip.Addr

// resolver asks the zone, over connections within the process.
func (z zone) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			for {
				var length [2]byte
				if _, err := io.ReadFull(server, length[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(server, query); err != nil {
					return
				}
				answer := z.answer(query)
				if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
		return client, nil
	}}
}

// The types of a DNS question, and the bits and codes of an answer (RFC 1035, RFC 3596).
const (
	typeA, typeAAAA = 1, 28
	answerBits      = 0x8580 // an answer, with authority, by a server that recurses
	noSuchName      = 3
)

// answer is the DNS message that answers a question of one name.
func (z zone) answer(query []byte) []byte {
	const header = 12
	end := header
	var name strings.Builder
	for query[end] != 0 {
		length := int(query[end])
		name.Write(query[end+1 : end+1+length])
		name.WriteByte('.')
		end += 1 + length
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	question := query[header : end+5]
	found, known := z[strings.ToLower(name.String())]
	bits, count, records := uint16(answerBits), uint16(0), []byte(nil)
	if !known {
		bits |= noSuchName
	}
	for _, ip := range found {
		if ip.Is4() != (kind == typeA) || kind != typeA && kind != typeAAAA {
			continue
		}
		count++
		records = append(records, 0xc0, header, 0, byte(kind), 0, 1, 0, 0, 0, 60) // the name of the question, the type, IN, 60 s
		records = binary.BigEndian.AppendUint16(records, uint16(len(ip.AsSlice())))
		records = append(records, ip.AsSlice()...)
	}
	answer := append([]byte(nil), query[:2]...) // the number of the query
	for _, field := range []uint16{bits, 1, count, 0, 0} {
		answer = binary.BigEndian.AppendUint16(answer, field)
	}
	return append(append(answer, question...), records...)
}

func addrs(texts ...string) []netip.Addr {
	var found []netip.Addr
	for _, text := range texts {
		found = append(found, netip.MustParseAddr(text))
	}
	return found
}

func TestADialTriesAllAddressesOfAName(t *testing.T) {
	_, _, near, far := hosts(t, machnettest.Options{})
	listener, err := (&machnet.ListenConfig{Stack: far}).Listen(t.Context(), "machnet", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go echo(listener)
	// Nobody is at 10.0.0.99, and nobody listens at 10.0.0.1.
	names := zone{
		"silent.test.":  addrs("10.0.0.99", "10.0.0.2"),
		"refuses.test.": addrs("10.0.0.1", "10.0.0.2"),
		"loops.test.":   addrs("127.0.0.1", "10.0.0.2"),
		"none.test.":    addrs("10.0.0.1", "10.0.0.99"),
		"both.test.":    addrs("2001:db8::1", "10.0.0.2"),
		"empty.test.":   addrs("10.0.0.91", "10.0.0.92", "10.0.0.93", "10.0.0.94", "10.0.0.95", "10.0.0.96"), // a second of silence each
	}
	dial := func(ctx context.Context, name string) (net.Conn, error) {
		d := machnet.Dialer{Stack: near, Resolver: names.resolver()}
		return d.DialContext(ctx, "machnet", name+":"+port)
	}
	for _, name := range []string{"silent.test.", "refuses.test.", "loops.test.", "both.test."} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			c, err := dial(ctx, name)
			if err != nil {
				t.Fatalf("dial %s, whose addresses are %v: %v", name, names[name], err)
			}
			if got := c.RemoteAddr().String(); got != "10.0.0.2:"+port {
				t.Errorf("connected to %s", got)
			}
			c.Close()
		})
	}
	t.Run("none of them", func(t *testing.T) {
		_, err := dial(t.Context(), "none.test.")
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "10.0.0.1") {
			t.Errorf("dial = %v, want that of the first address, which refuses", err)
		}
	})
	t.Run("a context that ends meanwhile", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := dial(ctx, "empty.test."); !errors.Is(err, context.Canceled) {
			t.Errorf("dial = %v, want that it was cancelled", err)
		}
	})
}

func TestADialToWhatMachnetDoesNotReachSaysWhatToDo(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	d := machnet.Dialer{Stack: near, Timeout: 10 * time.Second, Resolver: zone{"six.test.": addrs("2001:db8::1", "2001:db8::2")}.resolver()}
	for name, tc := range map[string]struct {
		address string
		is      error
		says    []string
	}{
		"loopback":          {"127.0.0.1:7000", syscall.EHOSTUNREACH, []string{`":7000"`, `"10.0.0.1:7000"`, "kernel"}},
		"another of those":  {"127.0.1.1:7000", syscall.EHOSTUNREACH, []string{`"10.0.0.1:7000"`}},
		"localhost":         {"localhost:7000", syscall.EHOSTUNREACH, []string{`":7000"`}},
		"IPv6 in the name":  {"six.test.:7000", nil, []string{"IPv4 only", "2001:db8::1, 2001:db8::2", "A record"}},
		"IPv6 in so many":   {"[2001:db8::1]:7000", nil, []string{"IPv4 only"}},
		"a name of nothing": {"nothing.test.:7000", nil, []string{"no such host", "nothing.test."}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := d.DialContext(t.Context(), "machnet", tc.address)
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("dial %s = %v; want a net.OpError of a dial that wraps %v", tc.address, err, tc.is)
			}
			for _, words := range tc.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("dial %s = %v; the error does not say %q", tc.address, err, words)
				}
				if strings.Count(err.Error(), words) > 1 {
					t.Errorf("dial %s = %v; the error says %q more than once", tc.address, err, words)
				}
			}
		})
	}
}

func TestAListenerTakesTheAddressOfANameThatIsTheSidecars(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	usual := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = usual })
	net.DefaultResolver = zone{"me.test.": addrs("127.0.1.1", "10.0.0.1"), "other.test.": addrs("127.0.1.1", "10.0.0.2")}.resolver()
	lc := machnet.ListenConfig{Stack: near}
	l, err := lc.Listen(t.Context(), "machnet", "me.test.:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.Addr().String(); got != "10.0.0.1:7000" {
		t.Errorf("listens on %s", got)
	}
	if _, err := lc.Listen(t.Context(), "machnet", "me.test.:7000"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listening again = %v, want EADDRINUSE and not what is wrong with the other address", err)
	}
	if _, err := lc.Listen(t.Context(), "machnet", "other.test.:7000"); err == nil || !strings.Contains(err.Error(), "127.0.1.1") {
		t.Errorf("listening on others' addresses = %v, want what is wrong with the first", err)
	}
}

func TestAddressesThatNobodyCanDialAreRefusedInWords(t *testing.T) {
	_, _, near, _ := hosts(t, machnettest.Options{})
	six := &machnet.Addr{IP: netip.MustParseAddr("2001:db8::1"), Port: 7000}
	for name, a := range map[string]*machnet.Addr{
		"IPv6": six, "none": nil, "no port": {IP: netip.MustParseAddr("10.0.0.2")},
		"multicast": {IP: netip.MustParseAddr("224.0.0.1"), Port: 1}, "broadcast": {IP: netip.MustParseAddr("::ffff:255.255.255.255"), Port: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var address *net.AddrError
			if _, err := (&machnet.Dialer{Stack: near}).DialMachnet(t.Context(), a); !errors.As(err, &address) {
				t.Errorf("dialling %v = %v, want a *net.AddrError", a, err)
			}
		})
	}
	if _, err := (&machnet.Dialer{Stack: near, LocalAddr: six}).Dial("machnet", "10.0.0.2:7000"); err == nil {
		t.Errorf("dialled from %v", six)
	}
	for _, a := range []*machnet.Addr{six, nil} {
		if _, err := (&machnet.ListenConfig{Stack: near}).ListenMachnet(t.Context(), a); err == nil {
			t.Errorf("listened on %v", a)
		}
	}
}
