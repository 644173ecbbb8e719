package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/machnet/machnet/tests/internal/checks"
)

// first are the steps without which there is nothing to check.
var first = []check{
	{Name: "modules are packed as a proxy serves them", Do: pack},
	{Name: "a machine with Go and a C compiler, without Rust", Do: prepare},
	{Name: "go get", Do: get},
	{Name: "two sidecars", Do: sidecars},
}

// uses are what users do then, each by itself.
var uses = []check{
	{Name: "build, and a mebibyte there and back between two sidecars", Do: built(nil, nil)},
	{Name: "the program needs no library of ours", Do: ownLibraries},
	{Name: "race detector", Do: built(nil, nil, "-race")},
	{Name: "position-independent", Do: built(nil, func(l linked) bool { return l.anywhere }, "-buildmode=pie")},
	{Name: "static, glibc", Do: built(nil, isStatic, static...)},
	{Name: "static, musl", Do: musl},
	{Name: "vendored", Do: vendored},
	{Name: "CGO_ENABLED=0", Do: withoutCgo},
	{Name: "no C compiler", Do: withoutCompiler},
	{Name: "other systems", Do: otherSystems},
	{Name: "a user's test with machnettest, race detector", Do: userTest},
	{Name: "machnettest, static, musl", Do: muslTest},
	{Name: "machnettest, CGO_ENABLED=0", Do: testWithoutCgo},
	{Name: "machnet_system: what make install installs, by pkg-config", Do: installed},
	{Name: "linux/arm64, cross-compiled, dynamic and static", Do: arm},
	{Name: "linux/arm64, emulated, by x86-64 sidecars", Do: armWorks},
	{Name: "linux/arm64, emulated, a user's test with machnettest", Do: armTest},
}

const modulePath = "github.com/machnet/machnet"

// get is what the README says.
func get(b *bench) (string, error) {
	if _, err := b.go_(nil, "get", modulePath+"/go/machnet"); err != nil {
		return "", err
	}
	if _, err := b.go_(nil, "mod", "tidy"); err != nil {
		return "", err
	}
	// Nothing else comes along.
	out, err := b.go_(nil, "list", "-m", "all")
	if want := "example.com/user\n" + modulePath + " " + b.version; err == nil && out != want {
		err = fmt.Errorf("the program depends on %q, want %q", out, want)
	}
	return "", err
}

// built is a check that the program, built with these flags, is linked as it should be, and works.
func built(more []string, should func(linked) bool, flags ...string) func(*bench) (string, error) {
	return func(b *bench) (string, error) {
		program, err := b.build(more, flags...)
		if err != nil {
			return "", err
		}
		if l, err := linkage(program); err != nil || should != nil && !should(l) {
			return "", errors.Join(err, fmt.Errorf("it is linked otherwise than asked: %+v", l))
		}
		return "", b.works(program, nil)
	}
}

// Go's own resolvers, since those of a static glibc want its shared libraries when they run.
var static = []string{"-tags=netgo,osusergo", "-ldflags=-linkmode=external -extldflags=-static"}

func isStatic(l linked) bool { return !l.dynamic }

func ownLibraries(b *bench) (string, error) {
	program, err := b.build(nil)
	if err != nil {
		return "", err
	}
	l, err := linkage(program)
	for _, library := range l.libraries {
		if strings.Contains(library, "machnet") {
			err = fmt.Errorf("it loads %s", library)
		}
	}
	return strings.Join(l.libraries, " "), err
}

// needs is skipped where the user's PATH has no such tool.
func (b *bench) needs(tool string) error {
	if _, err := os.Stat(filepath.Join(b.folder, "tools", tool)); err != nil {
		return checks.Skipped("no " + tool + " on this machine")
	}
	return nil
}

func musl(b *bench) (string, error) {
	if err := b.needs("musl-gcc"); err != nil {
		return "", err
	}
	return built([]string{"CC=musl-gcc"}, isStatic, "-ldflags=-linkmode=external -extldflags=-static")(b)
}

func vendored(b *bench) (string, error) {
	vendor := filepath.Join(b.user, "vendor")
	defer os.RemoveAll(vendor)
	if _, err := b.go_(nil, "mod", "vendor"); err != nil {
		return "", err
	}
	// Without proxy and module cache: what is in the folder must be enough.
	alone := []string{"GOPROXY=off", "GOFLAGS=-mod=vendor", "GOMODCACHE=" + filepath.Join(b.folder, "tmp", "none")}
	if _, err := b.go_(alone, "vet", "./..."); err != nil {
		return "", err
	}
	return built(alone, nil)(b)
}

func withoutCgo(b *bench) (string, error) {
	program, err := b.build([]string{"CGO_ENABLED=0"})
	if err != nil {
		return "", err
	}
	return b.says(program, "built without cgo", "C compiler", "CGO_ENABLED=1")
}

// withoutCompiler: Go then builds without cgo by itself, so that the program must say what it lacks; who asks for cgo is told by Go.
func withoutCompiler(b *bench) (string, error) {
	program, err := b.build([]string{"PATH=" + filepath.Join(b.folder, "none")})
	if err != nil {
		return "", err
	}
	if _, err := b.says(program, "built without cgo", "C compiler such as gcc"); err != nil {
		return "", err
	}
	out, err := b.go_([]string{"PATH=" + filepath.Join(b.folder, "none"), "CGO_ENABLED=1"}, "build", "-o", program)
	if err == nil {
		return "", errors.New("with CGO_ENABLED=1 it builds, and should not")
	}
	return quote(out, `C compiler "gcc" not found`)
}

func otherSystems(b *bench) (string, error) {
	// Each costs the time to compile Go's own packages for it, so there are only two.
	systems := []string{"darwin/arm64", "windows/amd64"}
	for _, system := range systems {
		name, arch, _ := strings.Cut(system, "/")
		env := []string{"GOOS=" + name, "GOARCH=" + arch}
		if _, err := b.build(env); err != nil {
			return "", err
		}
		if _, err := b.go_(env, "vet", modulePath+"/go/..."); err != nil {
			return "", err
		}
	}
	return strings.Join(systems, " "), nil
}

// withTest does something in the user's module with its test in it.
func (b *bench) withTest(do func() (string, error)) (string, error) {
	if err := b.write("service_test.go"); err != nil {
		return "", err
	}
	defer os.Remove(filepath.Join(b.user, "service_test.go"))
	if _, err := b.go_(nil, "get", modulePath+"/go/machnettest"); err != nil {
		return "", err
	}
	return do()
}

func userTest(b *bench) (string, error) {
	return b.withTest(func() (string, error) {
		if _, err := b.go_(nil, "vet", "./..."); err != nil {
			return "", err
		}
		return b.go_(nil, "test", "-count=1", "-race")
	})
}

func muslTest(b *bench) (string, error) {
	if err := b.needs("musl-gcc"); err != nil {
		return "", err
	}
	return b.withTest(func() (string, error) {
		return b.go_([]string{"CC=musl-gcc"}, "test", "-count=1", "-ldflags=-linkmode=external -extldflags=-static")
	})
}

func testWithoutCgo(b *bench) (string, error) {
	return b.withTest(func() (string, error) {
		out, err := b.go_([]string{"CGO_ENABLED=0"}, "test", "-count=1")
		if err == nil {
			return "", errors.New("the test passes, and cannot")
		}
		_, err = quote(out, "--- FAIL: TestEcho", "built without cgo")
		return "", err
	})
}

// installed links the shared library by what pkg-config says of it.
func installed(b *bench) (string, error) {
	if err := b.needs("pkg-config"); err != nil {
		return "", err
	}
	prefix := filepath.Join(b.folder, "prefix")
	if _, err := run(b.root, nil, "make", "--no-print-directory", "install", "PREFIX="+prefix); err != nil {
		return "", err
	}
	program, err := b.build([]string{"PKG_CONFIG_PATH=" + filepath.Join(prefix, "lib/pkgconfig")}, "-tags=machnet_system")
	if err != nil {
		return "", err
	}
	l, err := linkage(program)
	if err != nil {
		return "", err
	}
	if said := strings.Join(l.libraries, " "); !strings.Contains(said, "libmachnet.so.") {
		return "", fmt.Errorf("it loads %s, and not libmachnet.so", said)
	}
	return "", b.works(program, []string{"LD_LIBRARY_PATH=" + filepath.Join(prefix, "lib")})
}

// crossEnv is how a user on x86-64 builds for arm64.
var crossEnv = []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=1", "CC=aarch64-linux-gnu-gcc"}

func arm(b *bench) (string, error) {
	if err := b.needs("aarch64-linux-gnu-gcc"); err != nil {
		return "", err
	}
	if _, err := b.build(crossEnv); err != nil {
		return "", err
	}
	_, err := b.build(crossEnv, static...)
	return "", err
}

// emulator is the program that runs those of arm64, and how; skipped where there is none.
func (b *bench) emulator() ([]string, error) {
	if runtime.GOARCH == "arm64" {
		return nil, checks.Skipped("this machine is arm64: all that stands above is of it")
	}
	if err := b.needs("aarch64-linux-gnu-gcc"); err != nil {
		return nil, err
	}
	qemu, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		return nil, checks.Skipped("no qemu-aarch64 on this machine")
	}
	return []string{qemu, "-L", "/usr/aarch64-linux-gnu"}, nil
}

func armWorks(b *bench) (string, error) {
	qemu, err := b.emulator()
	if err != nil {
		return "", err
	}
	for _, flags := range [][]string{nil, static} {
		program, err := b.build(crossEnv, flags...)
		if err != nil {
			return "", err
		}
		if err := b.works(program, nil, qemu...); err != nil {
			return "", err
		}
	}
	return "", nil
}

func armTest(b *bench) (string, error) {
	qemu, err := b.emulator()
	if err != nil {
		return "", err
	}
	return b.withTest(func() (string, error) {
		program := filepath.Join(b.folder, "program.test")
		if _, err := b.go_(crossEnv, "test", "-c", "-o", program); err != nil {
			return "", err
		}
		out, err := run(b.user, nil, qemu[0], append(qemu[1:], program, "-test.v", "-test.run", "TestEcho")...)
		return out, err
	})
}
