package conformance_test

import (
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnettest"
	"github.com/machnet/machnet/tests/conformance"
)

// Two hosts in this process, whose links are good, or lose and mix up packets, or whose stacks need several channels for a few connections.
func TestConnectionsOfHostsInTheProcess(t *testing.T) {
	for name, options := range map[string]machnettest.Options{
		"good links":    {},
		"many channels": {Conns: 4, Engines: 2},
		"bad links":     {Engines: 2, Loss: 0.002, Duplication: 0.002, Reorder: 0.002, Corruption: 0.0005, Jitter: 10 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, func(t *testing.T) conformance.Pair {
				network := machnettest.NewNetwork(t, options)
				return conformance.Pair{From: network.Host(0).Stack(), To: network.Host(1).Stack()}
			})
		})
	}
}
