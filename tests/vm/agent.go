package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/machnet/machnet/tests/vm/order"
)

// agent is the host's side of the program that runs commands in a guest (./guest): lines of JSON over a virtio-serial port, any number of commands at
// a time.
type agent struct {
	port  net.Conn
	ready chan struct{} // closed when the guest's side has said that it is there

	mu      sync.Mutex
	last    int
	waiting map[int]chan order.Result
	ended   error // why there will be no more results
}

var errAgentGone = errors.New("the guest's agent is gone")

func newAgent(port net.Conn) *agent {
	a := &agent{port: port, ready: make(chan struct{}), waiting: map[int]chan order.Result{}}
	go a.receive()
	return a
}

func (a *agent) close() { _ = a.port.Close() }

func (a *agent) receive() {
	lines := bufio.NewReader(a.port)
	began := false
	for {
		line, err := lines.ReadBytes('\n')
		var r order.Result
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		a.mu.Lock()
		if err != nil {
			a.ended = fmt.Errorf("%w: %w", errAgentGone, err)
			for id, waits := range a.waiting {
				close(waits)
				delete(a.waiting, id)
			}
			a.mu.Unlock()
			return
		}
		if waits := a.waiting[r.ID]; waits != nil {
			delete(a.waiting, r.ID)
			waits <- r
		}
		a.mu.Unlock()
		if r.ID == order.Hello && !began {
			began = true
			close(a.ready)
		}
	}
}

// run has the guest's shell run a command with this input, and gives what it printed and its exit code.
func (a *agent) run(command string, input []byte, patience time.Duration) (out string, code int, err error) {
	waits := make(chan order.Result, 1)
	a.mu.Lock()
	if a.ended != nil {
		a.mu.Unlock()
		return "", 0, a.ended
	}
	a.last++
	o := order.Order{ID: a.last, Command: command, Input: input}
	a.waiting[o.ID] = waits
	line, err := json.Marshal(o)
	if err == nil {
		_, err = a.port.Write(append(line, '\n'))
	}
	a.mu.Unlock()
	if err != nil {
		return "", 0, err
	}
	select {
	case r, ok := <-waits:
		if !ok {
			return "", 0, errAgentGone
		}
		return string(r.Output), r.Code, nil
	case <-time.After(patience):
		return "", 0, fmt.Errorf("it has not ended in %v", patience)
	}
}
