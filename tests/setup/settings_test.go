package setup

import (
	"strings"
	"testing"
)

func TestTheSettingsAreWhatTheKernelHad(t *testing.T) {
	for name, tc := range map[string]struct{ flags, before, want, said string }{
		"a new file": {"--nic eth1 --af-packet --engines 2", "",
			"# Settings of machnetd; docs/configuration.md has all of them. Those of the NIC are by `machnet setup`.\n\n" +
				"[host]\nip = \"10.1.2.3/24\"\ngateway = \"10.1.2.1\"\n\n[nic]\nvdev = \"net_af_packet0,iface=eth1\"\nmtu = 1500\n\n[engines]\ncount = 2\n", ""},
		"a file that is there": {"--nic eth1 --af-packet", before,
			"# ours\n[host]\nip = \"10.1.2.3/24\"\ngateway = \"10.1.2.1\"\n[nic]\ndescriptors = 128\nvdev = \"net_af_packet0,iface=eth1\"\nmtu = 1500\n\n[control]\nsocket = \"/tmp/s.sock\"\n",
			`host.ip was "10.9.9.9/24" and is "10.1.2.3/24" now`},
		"xdp": {"--nic eth1 --xdp --ip 10.1.2.99/24", "[nic]\nxdp_mode = \"copy\"\n[log]\nlevel = \"debug\"\n",
			"[nic]\nxdp = \"eth1\"\nmtu = 1500\n[log]\nlevel = \"debug\"\n\n[host]\nip = \"10.1.2.99/24\"\ngateway = \"10.1.2.1\"\n\n[engines]\ncount = 1\n",
			`nic.xdp_mode = "copy" is taken out: it is for another NIC`},
		"another address": {"--nic eth1 --af-packet --ip 10.7.7.7/32 --gateway 10.7.0.1", "",
			"# Settings of machnetd; docs/configuration.md has all of them. Those of the NIC are by `machnet setup`.\n\n" +
				"[host]\nip = \"10.7.7.7/32\"\ngateway = \"10.7.0.1\"\n\n[nic]\nvdev = \"net_af_packet0,iface=eth1\"\nmtu = 1500\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			if tc.before != "" {
				s.given(tc.before)
			}
			said := s.Do(s.setup(tc.flags))
			if !strings.Contains(said, tc.said) {
				t.Errorf("it says %q, without %q", said, tc.said)
			}
			if got := s.settings(); got != tc.want {
				t.Errorf("the settings are\n%s\nwant\n%s", got, tc.want)
			}
			// machnetd must like them, on this machine.
			if out, err := s.run(program(t, "machnetd") + " --socket " + s.folder + "/s.sock --check --config " + s.folder + "/etc/machnetd.toml"); err != nil {
				t.Errorf("machnetd --check: %v: %s", err, out)
			}
		})
	}
}

func TestWhatCannotWorkIsRefusedInOneSentence(t *testing.T) {
	for name, tc := range map[string]struct{ prepare, flags, before, want string }{
		"no NIC":                           {"", "--af-packet", "", "wrong usage: name the NIC: --nic eth1, or its PCI or MAC address"},
		"a NIC that is not there":          {"", "--nic eth9 --af-packet", "", "set up eth9: no interface eth9; this machine's NICs are eth1, "},
		"no PCI device":                    {"", "--nic eth1", "", "set up eth1: it is no PCI device but veth, and DPDK drives PCI devices; use --xdp or --af-packet, with which the kernel keeps it"},
		"two ways":                         {"", "--nic eth1 --xdp --af-packet", "", "--xdp and --af-packet are two ways to drive a NIC; use one"},
		"the default route":                {"", "--nic eth0 --af-packet", "", "set up eth0: the default route is by it: the kernel would lose it, and who comes by it is cut off; --xdp leaves it with the kernel; to take it none the less, from a console, say it twice: --cut-off eth0 --yes-cut-me-off"},
		"an SSH session":                   {"export SSH_CONNECTION='10.1.2.9 50000 10.1.2.4 22'", "--nic eth1 --af-packet", "", "set up eth1: it carries an SSH session (SSH_CONNECTION is from 10.1.2.9 to 10.1.2.4): the kernel would lose it"},
		"xdp with a session's":             {"export SSH_CONNECTION='10.1.2.9 50000 10.1.2.4 22'", "--nic eth1 --xdp --ip 10.1.2.4/24", "", "--ip 10.1.2.4/24: an SSH session is by this address (SSH_CONNECTION is from 10.1.2.9 to 10.1.2.4), and the kernel would lose it"},
		"xdp with the first of its subnet": {"ip address add 10.1.3.6/24 dev eth1 scope link", "--nic eth1 --xdp --ip 10.1.3.5/24", "", "--ip 10.1.3.5/24: it is the first of its subnet, and 10.1.3.6 and others of that would go or change with it"},
		"told once":                        {"", "--nic eth0 --af-packet --yes-cut-me-off", "", "--cut-off INTERFACE and --yes-cut-me-off count together only"},
		"told of another":                  {"", "--nic eth0 --af-packet --cut-off eth1 --yes-cut-me-off", "", "set up eth0: the default route is by it"},
		"xdp without an address":           {"", "--nic eth1 --xdp", "", "with --xdp the kernel keeps eth1 and its address 10.1.2.3, and the sidecar needs an address of its own there"},
		"xdp with the kernel's":            {"", "--nic eth1 --xdp --ip 10.1.2.3/24", "", "--ip 10.1.2.3/24 is the kernel's own address on eth1, by which others reach it"},
		"xdp with too few engines":         {"", "--nic eth1 --xdp --ip 10.1.2.99/24 --engines 3", "", "--engines 3, and eth1 has 1 receive queues: with --xdp each needs an engine"},
		"no address":                       {"", "--nic eth2 --af-packet", "", "set up eth2: it has no IPv4 address that the sidecar could have; name one: --ip ADDRESS/PREFIX"},
		"no gateway for a /32":             {"", "--nic eth2 --af-packet --ip 10.7.7.7/32", "", "the address 10.7.7.7/32 has nobody on its link, and the kernel knows no gateway by eth2; name it: --gateway ADDRESS"},
		"a bad address":                    {"", "--nic eth1 --af-packet --ip 10.7.7.7", "", `--ip "10.7.7.7": an IPv4 address with the length of its prefix, such as 10.0.0.5/24`},
		"a small MTU":                      {"ip link set eth2 mtu 500", "--nic eth2 --af-packet --ip 10.3.0.1/24", "", "its MTU is 500, and machnetd takes 576 to 9001; raise it (ip link set dev eth2 mtu 1500)"},
		"settings that are no TOML":        {"", "--nic eth1 --af-packet", "[host\n", "machnetd.toml: is no TOML as it is"},
		"settings in one line":             {"", "--nic eth1 --af-packet", "host = { ip = \"10.0.0.1/24\" }\n", "is written in a way that machnet setup cannot edit; write each key on a line of its own below its [section], or set these yourself: [host] ip = \"10.1.2.3/24\""},
		"a driver that there is none":      {"", "--nic eth1 --xdp --driver uio_pci_generic --ip 10.1.2.99/24", "", "--driver uio_pci_generic is for DPDK, and with --xdp and --af-packet the kernel keeps the NIC; leave it out"},
		"another NIC is set up": {"%s --nic eth2 --af-packet --ip 10.3.0.1/24 >/dev/null", "--nic eth1 --af-packet", "",
			"says that eth2 is set up already by `machnet setup --nic eth2 --af-packet --ip 10.3.0.1/24"},
		"undo of another": {"%s --nic eth2 --af-packet --ip 10.3.0.1/24 >/dev/null", "--undo --nic eth1", "", "take back the setup of eth1: "},
		"no root":         {"", "--nic eth1 --af-packet", "", "it changes what only root may change; run it as root, or see by --dry-run what it would do"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			if tc.before != "" {
				s.given(tc.before)
			}
			command := s.setup(tc.flags)
			if name == "no root" {
				command = "setpriv --reuid 65534 --clear-groups " + command
			}
			if tc.prepare != "" {
				command = strings.ReplaceAll(tc.prepare, "%s", s.setup("")) + "; " + command
			}
			state := network(t, s)
			said := s.refused(command)
			if !strings.HasPrefix(said, "machnet setup: ") || !strings.Contains(said, tc.want) {
				t.Errorf("it says %q, not %q", said, tc.want)
			}
			if tc.prepare == "" {
				same(t, "the network", state, func() string { return network(t, s) })
			}
		})
	}
}
