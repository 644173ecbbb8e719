package vm

import (
	"strings"
	"testing"
)

func TestCommandsRunInAGuest(t *testing.T) {
	onModel(t, Virtio)
	g := Start(t, Config{Hugepages: 8, NICs: []NIC{{Model: Virtio}}})
	g.Put("/root/words", []byte("of the host\n"), 0o600)
	for command, want := range map[string]struct {
		out  string
		code int
	}{
		"cat /root/words; exit 7":                         {"of the host\n", 7},
		"stat -c %a /root/words":                          {"600\n", 0},
		"echo out; echo err >&2":                          {"out\nerr\n", 0},
		"kill -TERM $$":                                   {"", 128 + 15},
		"sleep 1000 & echo at once":                       {"at once\n", 0},
		"cat /proc/sys/vm/nr_hugepages":                   {"8\n", 0},
		"cat /sys/bus/pci/devices/" + g.PCI(0) + "/class": {"0x020000\n", 0},
	} {
		if out, code := g.Run(command); out != want.out || code != want.code {
			t.Errorf("%q printed %q and ended with status %d; want %q and %d", command, out, code, want.out, want.code)
		}
	}
	if out, _ := g.Run("machnetd --version; machnet --help"); !strings.Contains(out, "machnetd") || !strings.Contains(out, "ping") {
		t.Errorf("machnetd and machnet print %q", out)
	}
}
