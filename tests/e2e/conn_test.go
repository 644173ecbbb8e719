package e2e

import (
	"math/rand/v2"
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

// size is a length from least to most whose logarithm is spread evenly.
func size(r *rand.Rand, least, most int) int {
	n := most
	for n > least && r.IntN(3) > 0 {
		n /= 2
	}
	return max(least, n-r.IntN(n-n/2+1))
}

// pattern is n bytes that differ from place to place.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*57
	}
	return p
}
