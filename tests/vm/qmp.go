package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// monitor speaks QMP, QEMU's protocol for whoever drives it (https://www.qemu.org/docs/master/interop/qmp-spec.html).
type monitor struct {
	mu     sync.Mutex
	conn   net.Conn
	lines  *bufio.Reader
	events []event
}

// event is something that QEMU tells unasked.
type event struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

const monitorTime = 30 * time.Second

func newMonitor(conn net.Conn) (*monitor, error) {
	m := &monitor{conn: conn, lines: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(monitorTime))
	if _, err := m.lines.ReadBytes('\n'); err != nil { // the greeting
		return nil, err
	}
	_, err := m.execute("qmp_capabilities", nil)
	return m, err
}

func (m *monitor) close() { _ = m.conn.Close() }

// execute runs a command with its arguments, and gives what it returns.
func (m *monitor) execute(command string, arguments any) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.conn.SetDeadline(time.Now().Add(monitorTime))
	words := map[string]any{"execute": command}
	if arguments != nil {
		words["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(words); err != nil {
		return nil, err
	}
	for {
		var answer struct {
			event
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Class string `json:"class"`
				Desc  string `json:"desc"`
			} `json:"error"`
		}
		line, err := m.lines.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &answer)
		}
		switch {
		case err != nil:
			return nil, err
		case answer.Error != nil:
			return nil, errors.New(answer.Error.Desc)
		case answer.Return != nil:
			return answer.Return, nil
		}
		m.events = append(m.events, answer.event)
	}
}

// Monitor runs a command of QEMU's monitor protocol, like "set_link" with {"name": "nic0", "up": false}, and gives what it returns.
func (g *Guest) Monitor(command string, arguments map[string]any) json.RawMessage {
	g.t.Helper()
	returned, err := g.monitor.execute(command, arguments)
	if err != nil {
		g.t.Fatalf("%s: QEMU's monitor: %s %v: %v", g.name, command, arguments, err)
	}
	return returned
}

// SetLink pulls the cable of a NIC or plugs it in.
func (g *Guest) SetLink(nic int, up bool) {
	g.t.Helper()
	g.Monitor("set_link", map[string]any{"name": fmt.Sprintf("nic%d", nic), "up": up})
}

// dial connects to a socket of QEMU's as soon as it listens.
func dial(path string, gone <-chan struct{}) (net.Conn, error) {
	for deadline := time.Now().Add(monitorTime); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-gone:
			return nil, errors.New("QEMU has ended")
		default:
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
}
