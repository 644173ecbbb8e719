//go:build !linux || !cgo || !(amd64 || arm64)

package machnettest

import (
	"net/netip"

	"github.com/machnet/machnet/go/machnet"
)

// world is what there is no world of here: whoever asks for one is told why.
type world struct{}

func newWorld(uint64, Link) (world, error) { return world{}, machnet.ErrUnsupported }

func (world) free()                                   {}
func (world) add(netip.Addr, HostOptions) (int, bool) { return 0, false }
func (world) connect(int) (uintptr, bool)             { return 0, false }
func (world) serve(int, uintptr)                      {}
func (world) kill(int)                                {}
func (world) restart(int) bool                        { return false }
func (world) setLink(int, int, Link)                  {}
func (world) counter(int, string) (int64, bool)       { return 0, false }
func (world) trace() string                           { return "" }
