package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Config says what a guest has. The zero Config is a guest without NICs.
type Config struct {
	Name      string // in what tests print; by default "guest"
	NICs      []NIC
	CPUs      int // 0 means 1
	MemoryMiB int // 0 means 768
	Hugepages int // of 2 MiB, reserved at boot; 0 means none
	QEMU      QEMU
	// Args go to QEMU as they are.
	Args []string
}

// QEMU is one of the QEMUs that a guest may run in.
type QEMU int

const (
	Installed QEMU = iota // the machine's own
	Backports             // that of Debian's backports, which scripts/vm-deps.sh leaves in target/vm
)

// Guest is a running virtual machine, as one test sees it: what fails in it fails that test.
type Guest struct {
	t testing.TB
	*machine
}

// With is the same guest for another test: a part of the one that started it.
func (g *Guest) With(t testing.TB) *Guest { return &Guest{t, g.machine} }

type machine struct {
	name     string
	nics     []NIC
	folder   string
	process  *exec.Cmd
	gone     chan struct{} // closed when QEMU has ended
	monitor  *monitor
	agent    *agent
	sidecars int

	mu   sync.Mutex
	logs []string // files in the guest that a failed test prints
}

const (
	// bootTime is how long a guest may take until its agent answers; on a quiet machine it is 3 s.
	bootTime = 2 * time.Minute
	// runTime is how long a command in a guest may take.
	runTime = 2 * time.Minute
)

// Start boots a guest, which ends with the test. A failed test prints the end of the guest's console and the logs of what it Started. Where
// guests cannot start, for want of QEMU or of a kernel, the test is skipped with a sentence.
func Start(t testing.TB, c Config) *Guest {
	t.Helper()
	return StartAll(t, c)[0]
}

// StartAll boots guests at the same time.
func StartAll(t testing.TB, configs ...Config) []*Guest {
	t.Helper()
	image, err := theImage()
	var guests []*Guest
	for _, c := range configs {
		var m *machine
		if err == nil {
			m, err = launch(image, c)
		}
		if errors.Is(err, errMissing) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, &Guest{t, m})
		t.Cleanup(func() { m.end(t) })
	}
	for _, g := range guests {
		if err := g.boot(); err != nil {
			t.Fatal(err)
		}
	}
	return guests
}

// launch starts QEMU.
func launch(image image, c Config) (*machine, error) {
	if c.Name == "" {
		c.Name = "guest"
	}
	// Paths of Unix sockets are short.
	folder, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	m := &machine{name: c.Name, nics: c.NICs, folder: folder, gone: make(chan struct{})}
	if m.process, err = c.command(image, folder); err == nil {
		err = m.run(c)
	}
	if err != nil {
		_ = os.RemoveAll(folder)
		return nil, err
	}
	return m, nil
}

// command is how QEMU is called.
func (c Config) command(image image, folder string) (*exec.Cmd, error) {
	cmd, err := c.QEMU.command()
	if err != nil {
		return nil, err
	}
	add := func(words ...string) { cmd.Args = append(cmd.Args, words...) }
	add("-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", fmt.Sprint(max(c.CPUs, 1)), "-m", fmt.Sprint(memory(c)),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", image.kernel, "-initrd", image.initrd,
		// The check of the timer takes an emulated CPU that has no turn on a core for a broken machine, and panics.
		"-append", fmt.Sprintf("console=ttyS0 panic=-1 quiet no_timer_check hugepages=%d", c.Hugepages),
		"-serial", "file:"+filepath.Join(folder, "console"),
		"-qmp", "unix:"+filepath.Join(folder, "qmp")+",server=on,wait=off",
		"-device", "virtio-serial-pci,addr=0x1e",
		"-chardev", "socket,id=agent,path="+filepath.Join(folder, "agent")+",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=agent")
	// Each NIC has a port of its own, as PCI Express has it, and so may be plugged in and out.
	for i := range c.NICs {
		add("-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d,addr=%#x", i, i+1, 0x10+i))
	}
	for i, n := range c.NICs {
		backend := fmt.Sprintf("hubport,id=net%d,hubid=%d", i, i)
		if n.Network != nil {
			if backend, err = n.Network.plug(fmt.Sprintf("net%d", i), n.tapQueues()); err != nil {
				return nil, err
			}
		}
		device, err := json.Marshal(n.device(i, macOf(c.Name, i)))
		if err != nil {
			return nil, err
		}
		add("-netdev", backend, "-device", string(device))
	}
	add(c.Args...)
	return cmd, nil
}

func memory(c Config) int {
	if c.MemoryMiB > 0 {
		return c.MemoryMiB
	}
	return 768
}

// MAC is the address of a NIC: one that no guest of another name has.
func (g *Guest) MAC(nic int) net.HardwareAddr { return macOf(g.name, nic) }

func macOf(guest string, nic int) net.HardwareAddr {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(guest))
	// 52:54:00 is where QEMU has its own, too.
	return net.HardwareAddr(append([]byte{0x52, 0x54, 0}, append(sum.Sum(nil)[:2], byte(nic))...))
}

func (q QEMU) command() (*exec.Cmd, error) {
	if q == Installed {
		path, err := exec.LookPath("qemu-system-x86_64")
		if err != nil {
			return nil, fmt.Errorf("%w: qemu-system-x86_64 is not on this machine; run `make test-vm`", errMissing)
		}
		return exec.Command(path), nil
	}
	repository, err := repository()
	if err != nil {
		return nil, err
	}
	usr := filepath.Join(repository, "target/vm/qemu/usr")
	path := filepath.Join(usr, "bin/qemu-system-x86_64")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: the QEMU of Debian's backports is not in target/vm; run `make test-vm`, or scripts/vm-deps.sh all", errMissing)
	}
	cmd := exec.Command(path, "-L", filepath.Join(usr, "share/qemu"), "-L", filepath.Join(usr, "share/seabios"))
	lib := filepath.Join(usr, "lib/x86_64-linux-gnu")
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib, "QEMU_MODULE_DIR="+filepath.Join(lib, "qemu"))
	return cmd, nil
}

// run starts QEMU in the namespace of its NICs' network. A test that is killed leaves no guest: the kernel ends it with the thread that started
// it, so that one stays.
func (m *machine) run(c Config) error {
	out, err := os.Create(filepath.Join(m.folder, "qemu"))
	if err != nil {
		return err
	}
	defer out.Close()
	m.process.Stdout, m.process.Stderr = out, out
	m.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var network *Network
	for _, n := range c.NICs {
		if n.Network != nil {
			network = n.Network
		}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := m.process.Start
		if network != nil {
			err = func() error { return network.Namespace.Do(m.process.Start) }
		}
		failed := err()
		started <- failed
		if failed == nil {
			_ = m.process.Wait()
			close(m.gone)
		}
	}()
	return <-started
}

// boot waits until the guest's agent is there.
func (m *machine) boot() error {
	monitor, err := dial(filepath.Join(m.folder, "qmp"), m.gone)
	if err == nil {
		m.monitor, err = newMonitor(monitor)
	}
	if err != nil {
		return fmt.Errorf("%s: QEMU's monitor: %w: %s", m.name, err, m.read("qemu"))
	}
	port, err := dial(filepath.Join(m.folder, "agent"), m.gone)
	if err != nil {
		return err
	}
	m.agent = newAgent(port)
	select {
	case <-m.agent.ready:
		return nil
	case <-m.gone:
		return fmt.Errorf("%s: QEMU ended: %s", m.name, m.read("qemu"))
	case <-time.After(bootTime):
		return fmt.Errorf("%s has not booted in %v", m.name, bootTime)
	}
}

// end prints what a failed test wants to be known, and ends QEMU.
func (m *machine) end(t testing.TB) {
	if t.Failed() {
		m.tell(t)
	}
	_ = m.process.Process.Kill()
	<-m.gone
	if m.agent != nil {
		m.agent.close()
	}
	if m.monitor != nil {
		m.monitor.close()
	}
	_ = os.RemoveAll(m.folder)
}

func (m *machine) tell(t testing.TB) {
	t.Logf("%s: QEMU printed: %s", m.name, m.read("qemu"))
	t.Logf("%s: the end of its console:\n%s", m.name, tail(m.read("console"), 30))
	if m.agent == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, log := range m.logs {
		out, _, err := m.agent.run("tail -n 40 "+log, nil, 20*time.Second)
		if err != nil {
			t.Logf("%s: read %s: %v", m.name, log, err)
			return
		}
		t.Logf("%s: the end of %s:\n%s", m.name, log, out)
	}
}

func (m *machine) read(file string) string {
	text, err := os.ReadFile(filepath.Join(m.folder, file))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
