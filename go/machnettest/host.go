package machnettest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// Host is one host of a network: a sidecar without a process of its own, and the place of programs that attach to it.
type Host struct {
	network *Network
	number  int
	ip      netip.Addr

	mu     sync.Mutex
	closed bool
	stacks []*machnet.Stack // to be closed with the network
	own    *machnet.Stack   // that of Stack, once it was asked for
	dead   bool
	folder string // of the socket, where one was asked for
	door   *net.UnixListener
	doors  sync.WaitGroup // goroutines that accept there
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.ip }

// Stack is a stack attached to the host, the same at every call: what a program on the host dials from and listens on. It attaches
// at the first call, and the network closes it. Where that is impossible, because the host is dead, the test fails.
func (h *Host) Stack() *machnet.Stack {
	h.network.t.Helper()
	s, err := h.stack(context.Background())
	if err != nil {
		h.network.t.Fatalf("machnettest: %v", err)
	}
	return s
}

func (h *Host) stack(ctx context.Context) (*machnet.Stack, error) {
	h.mu.Lock()
	own := h.own
	h.mu.Unlock()
	if own != nil {
		return own, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	made, err := h.Attach(ctx, machnet.Config{})
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own != nil { // somebody else was faster
		_ = made.Close()
	} else {
		h.own = made
	}
	return h.own, nil
}

// patience is far more than attaching takes on a machine that does much else.
const patience = 30 * time.Second

// Attach attaches to the host, as another program would: a stack beside that of Stack. Socket and Connect of the Config are
// the host's. The network closes the stack if nobody has before. Its errors are those of machnet.Attach.
func (h *Host) Attach(ctx context.Context, c machnet.Config) (*machnet.Stack, error) {
	c.Socket, c.Connect = "", h.connect
	s, err := machnet.Attach(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("host %v: %w", h.ip, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		_ = s.Close()
		return nil, ErrClosed
	}
	h.stacks = append(h.stacks, s)
	return s, nil
}

// connect gives a socket to the host, as machnet.Config.Connect does.
func (h *Host) connect(context.Context) (file *os.File, err error) {
	err = h.network.with(func(w world) error {
		fd, ok := w.connect(h.number)
		if !ok {
			return fmt.Errorf("%v was killed: %w", h.ip, machnet.ErrNoSidecar)
		}
		file = os.NewFile(fd, "machnettest")
		return nil
	})
	return file, err
}

// Listen listens on the host, by its Stack; network is "machnet", and address a port such as ":7000". Its errors are
// those of machnet.ListenConfig.Listen.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	s, err := h.stack(context.Background())
	if err != nil {
		return nil, err
	}
	return (&machnet.ListenConfig{Stack: s}).Listen(context.Background(), network, address)
}

// DialContext dials from the host, by its Stack. It is what libraries ask of a dialler, such as net/http's Transport.DialContext: the
// network may be whatever they say, "tcp" for example, and the address is one of a host of this network. Its errors are those of
// machnet.Dialer.DialContext.
func (h *Host) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	s, err := h.stack(ctx)
	if err != nil {
		return nil, err
	}
	return (&machnet.Dialer{Stack: s}).DialContext(ctx, "machnet", address)
}

// Socket is the path of a socket where the host takes programs, as machnetd does: for Config.Socket, for $MACHNET_SOCKET, by which
// the package-level functions of machnet find it, and for other processes. It is there from the first call on.
func (h *Host) Socket() string {
	h.network.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder == "" && !h.closed {
		folder, err := os.MkdirTemp("", "machnet")
		if err != nil {
			h.network.t.Fatalf("machnettest: a folder for the socket of host %v: %v", h.ip, err)
		}
		h.folder = folder
		if !h.dead {
			h.open()
		}
	}
	return h.path()
}

func (h *Host) path() string { return filepath.Join(h.folder, h.ip.String()+".sock") }

// open begins to take programs at the socket. mu is held.
func (h *Host) open() {
	h.network.t.Helper()
	door, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: h.path(), Net: "unixpacket"})
	if err != nil {
		h.network.t.Errorf("machnettest: the socket of host %v: %v", h.ip, err)
		return
	}
	h.door = door
	h.doors.Add(1)
	go func() {
		defer h.doors.Done()
		for {
			c, err := door.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(time.Millisecond) // no descriptors, for now
				continue
			}
			h.serve(c)
		}
	}()
}

// serve hands a connection to the host, or hangs up.
func (h *Host) serve(c *net.UnixConn) {
	defer c.Close() // the host has a copy, unless it is dead
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = h.network.with(func(w world) error {
			w.serve(h.number, fd)
			return nil
		})
	})
}

// shut takes no more programs at the socket. mu is held.
func (h *Host) shut() {
	if h.door != nil {
		_ = h.door.Close()
		h.door = nil
		h.doors.Wait()
	}
}

// Kill ends the host as a process ends that is killed: the connections of its programs fail at once with ENETDOWN, its peers hear nothing more, and
// attaching to it fails with ErrNoSidecar. A dead host stays dead.
func (h *Host) Kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	h.shut()
	_ = h.network.with(func(w world) error { // with the network all of its hosts have ended
		w.kill(h.number)
		return nil
	})
}

// Restart starts the host anew under its address, after it has been killed or, if it lives, at once. It knows nothing of what was. The
// stacks of its programs attach again by themselves, as they do to a sidecar, within 250 ms, and their listeners go on; until then, who dials the
// host is refused.
func (h *Host) Restart() {
	h.network.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.network.with(func(w world) error {
		if !w.restart(h.number) {
			return errors.New("the system gives no descriptors")
		}
		return nil
	})
	if err != nil {
		h.network.t.Errorf("machnettest: restart host %v: %v", h.ip, err)
		return
	}
	h.dead = false
	if h.folder != "" && h.door == nil {
		h.open()
	}
}

// Counter is one of the host's counters, summed over its engines and since its last start; docs/metrics.md of the project lists them. One that there
// is not fails the test.
func (h *Host) Counter(name string) (value int64) {
	h.network.t.Helper()
	err := h.network.with(func(w world) error {
		var ok bool
		if value, ok = w.counter(h.number, name); !ok {
			return errors.New("there is none of this name")
		}
		return nil
	})
	if err != nil {
		h.network.t.Errorf("machnettest: counter %q of host %v: %v", name, h.ip, err)
		return 0
	}
	return value
}

// close ends what the host has given out.
func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, s := range h.stacks {
		_ = s.Close()
	}
	h.stacks = nil
	h.shut()
	if h.folder != "" {
		_ = os.RemoveAll(h.folder)
	}
}
