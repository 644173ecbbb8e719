package e2e

import (
	"testing"

	"github.com/machnet/machnet/go/machnet"
	"github.com/machnet/machnet/tests/conformance"
)

// What connections promise, between two hosts, and within one sidecar at its own address.
func TestConnectionsDoWhatTheyPromise(t *testing.T) {
	p := sharedPair(t)
	for name, stacks := range map[string]func(t *testing.T) (from, to *machnet.Stack){
		"two hosts": func(t *testing.T) (from, to *machnet.Stack) { return p.a.attach(t), p.b.attach(t) },
		"one host":  func(t *testing.T) (from, to *machnet.Stack) { s := p.a.attach(t); return s, s },
	} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, func(t *testing.T) conformance.Pair {
				from, to := stacks(t)
				return conformance.Pair{From: from, To: to}
			})
		})
	}
}

// What the tests of connections use, too.
var (
	size     = conformance.Size
	pattern  = conformance.Pattern
	echoEach = conformance.EchoEach
)
