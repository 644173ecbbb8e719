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
func (m *monitor) execute(command string, arguments map[string]any) (json.RawMessage, error) {
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

// Unplug takes a NIC away, and waits until the guest has let it go.
func (g *Guest) Unplug(nic int) {
	g.t.Helper()
	id := fmt.Sprintf("nic%d", nic)
	before := g.monitor.deleted(id)
	g.Monitor("device_del", map[string]any{"id": id})
	g.Until(id+" is gone", func() bool {
		g.Monitor("query-status", nil) // events come with answers
		return g.monitor.deleted(id) > before
	})
}

// Plug brings a NIC back that was taken away, at its old place and with its old address, and waits until the guest has seen it.
func (g *Guest) Plug(nic int) {
	g.t.Helper()
	g.Monitor("device_add", g.nics[nic].device(nic, g.MAC(nic)))
	g.Until(g.PCI(nic)+" is there", func() bool {
		_, code := g.Run("test -e /sys/bus/pci/devices/" + g.PCI(nic))
		return code == 0
	})
}

// deleted is how often QEMU has told that a device was gone.
func (m *monitor) deleted(id string) (times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		var data struct{ Device string }
		if e.Event == "DEVICE_DELETED" && json.Unmarshal(e.Data, &data) == nil && data.Device == id {
			times++
		}
	}
	return times
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
