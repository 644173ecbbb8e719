package setup

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/cmd/netns"
)

// space is a host in a network namespace, with an interface eth1 that leads to a peer in a namespace of its own, and eth0, by which the
// default route is. The kernel has all kinds of things on eth1.
type space struct {
	t         *testing.T
	namespace *netns.Namespace
	peer      *netns.Namespace
	folder    string // for files
	env       []string
}

// furnish is what the kernel has of interfaces there.
var furnish = []string{
	"link set lo up",
	"link add eth0 address 02:00:00:00:00:10 type veth peer name far0", "link set far0 address 02:00:00:00:00:20 up", "link set eth0 up",
	"link add eth2 address 02:00:00:00:00:12 type veth peer name far2", "link set eth2 addrgenmode none", "link set far2 addrgenmode none",
	"link set far2 address 02:00:00:00:00:22", "link set eth2 up", "link set eth2 down",
	"address add 192.0.2.10/24 dev eth0", "route add default via 192.0.2.1 dev eth0 metric 50",
	"address add 10.1.2.3/24 broadcast + dev eth1",
	"address add 10.1.2.4/24 dev eth1 label eth1:two",
	"address add 10.1.3.5/24 dev eth1 noprefixroute scope link",
	"address add 10.1.4.5/24 dev eth1 metric 77 valid_lft 5000 preferred_lft 4000",
	"address add 10.1.9.1 peer 10.1.9.2/32 dev eth1",
	"address add fd00:1::3/64 dev eth1",
	"route add default via 10.1.2.1 dev eth1 metric 100 proto dhcp src 10.1.2.3 mtu 1400 advmss 1300",
	"route add default via 10.1.2.1 dev eth1 table 101",
	"route add 10.20.0.0/16 via 10.1.2.2 dev eth1 metric 7 initcwnd 20 initrwnd 30 quickack 1",
	"route add 10.21.0.0/16 dev eth1 scope link tos 0x10 proto static",
	"route add 10.22.0.0/16 nexthop via 10.1.2.8 dev eth1 weight 3 nexthop via 192.0.2.9 dev eth0 weight 2",
	"route add 10.23.0.0/16 dev eth0 scope link src 10.1.2.3", // not by eth1, and ends with its address
	"route add 10.24.0.0/16 via 172.31.0.1 dev eth1 onlink",
	"rule add from 10.1.2.3 lookup 101 priority 3000", "rule add oif eth1 lookup 101 priority 3001",
	"neighbour add 10.1.2.77 lladdr 02:00:00:00:00:77 nud permanent dev eth1",
	"-6 route add fd00:9::/64 via fd00:1::1 dev eth1 metric 300",
}

func newSpace(t *testing.T) *space {
	t.Helper()
	chosen(t)
	if err := netns.Available(); err != nil {
		t.Skipf("not tried: %v", err)
	}
	s := &space{t: t, folder: t.TempDir()}
	for _, n := range []**netns.Namespace{&s.namespace, &s.peer} {
		made, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { made.Close() })
		*n = made
	}
	if err := netns.Veth(netns.End{Namespace: s.namespace, Device: "eth1"}, netns.End{Namespace: s.peer, Device: "eth1"}, 1500); err != nil {
		t.Fatal(err)
	}
	for i, n := range []*netns.Namespace{s.namespace, s.peer} {
		if err := n.Run("ip", "link", "set", "dev", "eth1", "address", []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range furnish {
		if err := s.namespace.Run("ip", strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	s.Do("echo 1 > /proc/sys/net/ipv4/conf/eth1/forwarding")
	for began := time.Now(); strings.Contains(s.Do("ip -6 address"), "tentative"); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the kernel does not find an address of IPv6 to be free")
		}
	}
	return s
}

// run runs a shell command in the namespace, and gives what it printed.
func (s *space) run(command string) (string, error) {
	cmd := exec.Command("sh", "-c", command)
	// The environment of a session by SSH would have its interface looked for here.
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SSH_CONNECTION=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, s.env...)
	var out []byte
	err := s.namespace.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

func (s *space) Do(command string) string {
	s.t.Helper()
	out, err := s.run(command)
	if err != nil {
		s.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return out
}

// setup is the command with files of the test's own.
func (s *space) setup(flags string) string {
	return program(s.t, "machnet") + " setup --config " + s.folder + "/etc/machnetd.toml --state " + s.folder + "/lib/setup.json " + flags
}

// refused runs a command that must fail, and gives what it said.
func (s *space) refused(command string) string {
	s.t.Helper()
	out, err := s.run(command)
	if err == nil {
		s.t.Fatalf("%s went well: %s", command, out)
	}
	return line([]byte(out))
}

// given writes a configuration that was there before.
func (s *space) given(text string) {
	s.t.Helper()
	if err := errors.Join(os.MkdirAll(s.folder+"/etc", 0o755), os.WriteFile(s.folder+"/etc/machnetd.toml", []byte(text), 0o640)); err != nil {
		s.t.Fatal(err)
	}
}

// settings are those that the configuration has.
func (s *space) settings() string {
	s.t.Helper()
	text, err := os.ReadFile(s.folder + "/etc/machnetd.toml")
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}
