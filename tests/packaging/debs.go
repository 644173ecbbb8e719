package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/machnet/machnet/tests/internal/checks"
)

// contents compares what is in the packages with what docs/service.md promises.
func contents(b *bench) (string, error) {
	want := map[string][]string{
		"machnet": {
			"etc/machnet/machnetd.toml", "usr/bin/machnet", "usr/bin/machnetd", "usr/lib/systemd/system/machnetd.service", "usr/lib/sysusers.d/machnet.conf",
			"usr/lib/udev/rules.d/60-machnet.rules", "usr/share/bash-completion/completions/machnet", "usr/share/bash-completion/completions/machnetd",
			"usr/share/doc/machnet/changelog.gz", "usr/share/doc/machnet/copyright", "usr/share/fish/vendor_completions.d/machnet.fish",
			"usr/share/fish/vendor_completions.d/machnetd.fish", "usr/share/machnet/systemd/af_packet.conf", "usr/share/machnet/systemd/netvsc.conf",
			"usr/share/machnet/systemd/rdma.conf", "usr/share/machnet/systemd/vfio-noiommu.conf", "usr/share/machnet/systemd/vfio.conf", "usr/share/machnet/systemd/xdp.conf",
			"usr/share/man/man1/machnet.1.gz", "usr/share/man/man5/machnetd.toml.5.gz", "usr/share/man/man8/machnetd.8.gz",
			"usr/share/zsh/vendor-completions/_machnet", "usr/share/zsh/vendor-completions/_machnetd",
		},
		"libmachnet" + b.abi: {"usr/lib/*/libmachnet.so." + b.abi, "usr/share/doc/libmachnet" + b.abi + "/changelog.gz", "usr/share/doc/libmachnet" + b.abi + "/copyright"},
		"libmachnet-dev": {
			"usr/include/machnet.h", "usr/lib/*/libmachnet.a", "usr/lib/*/libmachnet.so", "usr/lib/*/pkgconfig/machnet.pc",
			"usr/share/doc/libmachnet-dev/changelog.gz", "usr/share/doc/libmachnet-dev/copyright",
		},
	}
	multiarch, err := b.run("dpkg-architecture", "-qDEB_HOST_MULTIARCH")
	if err != nil {
		return "", err
	}
	for name, files := range want {
		out, err := b.run("sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -tf - | sed 's,^\./,,' | grep -v '/$' | sort`, b.debs[name])
		if err != nil {
			return "", err
		}
		wanted := strings.ReplaceAll(strings.Join(files, "\n"), "*", strings.TrimSpace(multiarch))
		if got := strings.TrimSpace(out); got != wanted {
			return "", fmt.Errorf("%s has\n%s\nwant\n%s", name, got, wanted)
		}
	}
	depends, err := b.run("dpkg-deb", "-f", b.debs["machnet"], "Depends", "Recommends")
	if err != nil {
		return "", err
	}
	for _, part := range []string{"librte-ethdev", "librte-net-memif", "librte-net-ena", "librte-net-gve", "libc6", "systemd"} {
		if !strings.Contains(depends, part) {
			return "", fmt.Errorf("the package does not ask for %s: %s", part, depends)
		}
	}
	return "", nil
}

func lintian(b *bench) (string, error) {
	if err := need("lintian"); err != nil {
		return "", err
	}
	args := []string{"--allow-root", "--no-cfg", "--fail-on", "error"}
	for _, deb := range b.debs {
		args = append(args, deb)
	}
	return b.run("lintian", args...)
}

// again makes the packages a second time.
func again(b *bench) (string, error) {
	debs, err := b.make(filepath.Join(b.folder, "again"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		one, err := os.ReadFile(b.debs[name])
		if err != nil {
			return "", err
		}
		if other, err := os.ReadFile(deb); err != nil || !bytes.Equal(one, other) {
			return "", fmt.Errorf("%s is another one (%v)", filepath.Base(deb), err)
		}
	}
	return "", nil
}

// installed installs all packages on a copy of this machine that is thrown away, does there what a user does, purges them, and looks at
// what is left of them.
func installed(b *bench) (string, error) {
	if os.Geteuid() != 0 {
		return "", checks.Skipped("not root")
	}
	if err := need("unshare", "setpriv", "man"); err != nil {
		return "", err
	}
	if exec.Command("unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t overlay none -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m").Run() != nil {
		return "", checks.Skipped("this machine has no overlay of its own root")
	}
	names := []string{"machnet", "libmachnet" + b.abi, "libmachnet-dev"}
	script := filepath.Join(b.root, "tests/packaging/installed.sh")
	args := append([]string{"-m", "bash", script, b.root}, names...)
	for _, name := range names {
		args = append(args, b.debs[name])
	}
	out, err := b.run("unshare", args...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !slices.Contains([]string{"nothing is left"}, last) {
		return "", fmt.Errorf("%s", out)
	}
	return "", nil
}
