package vm

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// models are the NICs that sidecars are tried over, with as many queues as they spread flows over.
var models = []struct {
	name string
	nic  NIC
	qemu QEMU
}{
	{"virtio, 2 queues", NIC{Model: Virtio, Queues: 2}, Installed},
	{"igb, 2 queues", NIC{Model: Igb, Queues: 2}, Backports},
	{"vmxnet3, 1 queue", NIC{Model: Vmxnet3}, Installed},
	{"e1000e, 1 queue", NIC{Model: E1000e}, Installed},
}

// chosen are the models whose tests run: those that `make test-vm MODELS=...` names.
var chosen = strings.Split(os.Getenv("MACHNET_VM_MODELS"), ",")

// onModel skips a test unless its model was named.
func onModel(t *testing.T, model string) {
	t.Helper()
	short := strings.TrimSuffix(model, "-net-pci")
	if !slices.Contains(chosen, short) && !slices.Contains(chosen, "all") {
		t.Skipf("not chosen: guests with %s take minutes; run `make test-vm`, or `make test-vm MODELS=%s`", short, short)
	}
}
