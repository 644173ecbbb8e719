//go:build !linux

package core

import (
	"errors"
	"sync/atomic"
)

func yieldCore() {}

// pollable has no meaning here: nothing attaches.
type pollable struct{}

var errNoPoller = errors.New("not supported on this system")

func newPollable(int, string) (*pollable, error)     { return nil, errNoPoller }
func (p *pollable) wait(func(fd uintptr) bool) error { return errNoPoller }
func (p *pollable) interrupt()                       {}
func (p *pollable) reset()                           {}
func (p *pollable) close()                           {}

type drain struct {
	look  func(fd uintptr) bool
	ended atomic.Bool
}

func newDrain() *drain { return &drain{} }

func hungUp(uintptr) bool { return true }
