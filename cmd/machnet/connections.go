package main

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// connections are those of one client, as many as it was told to have.
type connections struct {
	dial func() (net.Conn, error)

	mu     sync.Mutex
	all    []net.Conn
	closed bool
}

// become dials what is missing, a few at a time, and closes what there is too much.
func (c *connections) become(n int) error {
	for len(c.all) > n {
		last := len(c.all) - 1
		_ = c.all[last].Close()
		c.mu.Lock()
		c.all = c.all[:last]
		c.mu.Unlock()
	}
	const atOnce = 32
	missing, failed := int64(n-len(c.all)), atomic.Bool{}
	var (
		dialled sync.WaitGroup
		once    sync.Once
		first   error
		taken   atomic.Int64
	)
	for range min(missing, atOnce) {
		dialled.Go(func() {
			for taken.Add(1) <= missing && !failed.Load() {
				conn, err := c.dial()
				if err == nil {
					err = c.add(conn)
				}
				if err != nil {
					once.Do(func() { first = err })
					failed.Store(true)
				}
			}
		})
	}
	dialled.Wait()
	return first
}

// add keeps a connection, unless they are closed already.
func (c *connections) add(conn net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.Join(net.ErrClosed, conn.Close())
	}
	c.all = append(c.all, conn)
	return nil
}

// close closes all, and those that are being dialled, from whatever goroutine.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		for _, conn := range c.all {
			_ = conn.Close()
		}
	}
}
