package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// image is what guests boot.
type image struct{ kernel, initrd string }

// theImage is made once in each process that starts guests, since programs may be others than last time.
var theImage = sync.OnceValues(func() (image, error) {
	im, err := makeImage()
	if err != nil {
		err = fmt.Errorf("make the guests' image: %w", err)
	}
	return im, err
})

const (
	rootFolder = "root"
	libraries  = "/usr/lib/x86_64-linux-gnu"
)

// kernelModules are those that guests may load, with all that these need: for the agent's port, for the drivers that hand devices to
// processes, and the kernel's own drivers of the NICs.
var kernelModules = []string{"virtio_pci", "virtio_console", "uio_pci_generic", "vfio-pci", "virtio_net", "vmxnet3", "e1000e", "igb", "af_packet_diag"}

// dpdkDrivers are the plugins of DPDK that guests have. All that Debian packages would be as many again of libraries, which the emulated CPU
// would take seconds to load.
var dpdkDrivers = []string{"bus_pci", "bus_vdev", "mempool_ring", "net_af_packet", "net_e1000", "net_memif", "net_ring", "net_virtio", "net_vmxnet3"}

func makeImage() (image, error) {
	repository, err := repository()
	if err != nil {
		return image{}, err
	}
	folder := filepath.Join(repository, "target/vm")
	kernels, _ := filepath.Glob(filepath.Join(folder, "kernel/boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return image{}, fmt.Errorf("%w: %s has no kernel; run `make test-vm`, or scripts/vm-deps.sh virtio", errMissing, folder)
	}
	// Test programs that start guests at the same time make it one after the other.
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return image{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return image{}, err
	}
	root := filepath.Join(folder, rootFolder)
	if err := os.RemoveAll(root); err != nil {
		return image{}, err
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	err = errors.Join(
		addPrograms(repository, root),
		addDrivers(root),
		addModules(filepath.Join(folder, "kernel"), root, version),
		os.WriteFile(filepath.Join(root, "init"), []byte(initScript), 0o755),
	)
	if err != nil {
		return image{}, err
	}
	im := image{kernels[0], filepath.Join(folder, "initrd")}
	// Not compressed: an emulated CPU unpacks no faster than it copies.
	pack := exec.Command("sh", "-c", "find . | busybox cpio -o -H newc > ../initrd.new && mv ../initrd.new ../initrd")
	pack.Dir = root
	if out, err := pack.CombinedOutput(); err != nil {
		return image{}, fmt.Errorf("busybox cpio: %w: %s", err, out)
	}
	return im, nil
}

// initScript is the guest's first program. It ends in busybox's init, which starts the agent again should it end, and waits for orphans.
const initScript = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc /sbin /var/run /usr/bin /usr/sbin /root
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/hugepages /dev/pts
mount -t hugetlbfs huge /dev/hugepages
mount -t devpts pts /dev/pts
echo guest > /proc/sys/kernel/hostname
echo '::respawn:/bin/guest agent' > /etc/inittab
ip link set lo up
modprobe virtio_pci
modprobe virtio_console
exec /sbin/init
`

// addPrograms adds busybox, what `make build` made, and the guest's own program, with their libraries.
func addPrograms(repository, root string) error {
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: busybox is not on this machine; run `make test-vm`, or scripts/vm-deps.sh virtio", errMissing)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "guest"), "./vm/guest")
	build.Dir = filepath.Join(repository, "tests")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./vm/guest: %w: %s", err, out)
	}
	// busybox has an ip of its own, which does not know all that `machnet setup` says; and its shell takes its own programs, whatever PATH says.
	for _, name := range []string{"sh", "ip"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = add(path, filepath.Join(bin, name))
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w; run `make deps`", errMissing, name, err)
		}
	}
	for _, program := range []string{busybox, filepath.Join(repository, "bin/machnetd"), filepath.Join(repository, "bin/machnet")} {
		if err := add(program, filepath.Join(bin, filepath.Base(program))); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is not there; run `make build` first", errMissing, program)
		} else if err != nil {
			return err
		}
	}
	return addLibraries(root, filepath.Join(bin, "sh"), filepath.Join(bin, "ip"), filepath.Join(bin, "machnetd"), filepath.Join(bin, "machnet"), filepath.Join(bin, "guest"))
}

// addLibraries adds what ldd says that programs or libraries need.
func addLibraries(root string, files ...string) error {
	out, err := exec.Command("ldd", files...).Output()
	if err != nil {
		return fmt.Errorf("ldd %v: %w", files, err)
	}
	for _, field := range strings.Fields(string(out)) {
		if !strings.HasPrefix(field, "/") || strings.HasSuffix(field, ":") {
			continue
		}
		if err := addLibrary(root, field); err != nil {
			return err
		}
	}
	return nil
}

// addLibrary adds a library where it is found here. Drivers are in a folder of their own, and links to it stay links: EAL loads all that is there, and a
// driver that came once by its link's copy and once from the folder would be two.
func addLibrary(root, path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if strings.Contains(real, "/dpdk/pmds-") {
		if err := addLink(filepath.Join(root, path), real); err != nil {
			return err
		}
		return add(real, filepath.Join(root, real))
	}
	return add(real, filepath.Join(root, path))
}

func addLink(path, to string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(to, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// addDrivers adds DPDK's drivers, in the folder where EAL looks for them.
func addDrivers(root string) error {
	for _, driver := range dpdkDrivers {
		found, _ := filepath.Glob(libraries + "/dpdk/pmds-*/librte_" + driver + ".so.*.*")
		if len(found) != 1 {
			return fmt.Errorf("DPDK's driver %s is not below %s/dpdk; run `make deps`", driver, libraries)
		}
		if err := add(found[0], filepath.Join(root, found[0])); err != nil {
			return err
		}
		if err := addLink(filepath.Join(root, strings.TrimSuffix(found[0], ".0")), filepath.Base(found[0])); err != nil {
			return err
		}
		if err := addLibraries(root, found[0]); err != nil {
			return err
		}
	}
	return nil
}

// addModules adds the kernel's modules that guests may load, and an index for modprobe.
func addModules(kernel, root, version string) error {
	depmod := func(root string) error {
		if out, err := exec.Command("busybox", "depmod", "-b", root, version).CombinedOutput(); err != nil {
			return fmt.Errorf("busybox depmod: %w: %s", err, out)
		}
		return nil
	}
	below := filepath.Join("lib/modules", version)
	if err := depmod(kernel); err != nil {
		return err
	}
	index, err := os.ReadFile(filepath.Join(kernel, below, "modules.dep"))
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(index), "\n") {
		module, needs, _ := strings.Cut(line, ":")
		if !slices.Contains(kernelModules, strings.TrimSuffix(filepath.Base(module), ".ko")) {
			continue
		}
		for _, file := range append(strings.Fields(needs), module) {
			if err := add(filepath.Join(kernel, below, file), filepath.Join(root, below, file)); err != nil {
				return err
			}
		}
	}
	return depmod(root)
}

// add copies a file, with its permissions.
func add(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

// repository is the root of the sources, found from where the test runs.
func repository() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for folder := here; folder != "/"; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.work")); err == nil {
			return folder, nil
		}
	}
	return "", fmt.Errorf("no go.work in %s or above", here)
}

// errMissing is what a test is skipped for.
var errMissing = errors.New("guests cannot start here")
