package vm

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// models are the NICs whose tests run: those that `make test-vm MODELS=...` names.
var models = strings.Split(os.Getenv("MACHNET_VM_MODELS"), ",")

// onModel skips a test unless its model was named.
func onModel(t *testing.T, model string) {
	t.Helper()
	short := strings.TrimSuffix(model, "-net-pci")
	if !slices.Contains(models, short) && !slices.Contains(models, "all") {
		t.Skipf("not chosen: guests with %s take minutes; run `make test-vm`, or `make test-vm MODELS=%s`", short, short)
	}
}
