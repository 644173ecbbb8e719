package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/machnet/machnet/tests/internal/checks"
)

// run runs a command to its end and gives what it printed; an error carries the end of that.
func run(folder string, env []string, name string, args ...string) (string, error) {
	return checks.Command(5*time.Minute, folder, env, name, args...)
}

// tools are all the programs that the user's PATH has, where this machine has them: no cargo, no rustc.
var tools = []string{"gcc", "as", "ld", "ar", "pkg-config", "x86_64-linux-gnu-gcc", "musl-gcc", "aarch64-linux-gnu-gcc"}

// env is the user's environment, and nothing of ours; more overrides.
func (b *bench) env(more ...string) []string {
	at := func(name string) string { return filepath.Join(b.folder, name) }
	return append([]string{
		"PATH=" + at("tools"), "HOME=" + at("home"), "TMPDIR=" + at("tmp"), "GOENV=off", "GOWORK=off", "GOCACHE=" + b.cache,
		"GOPATH=" + at("gopath"), "GOPROXY=file://" + at("proxy"), "GOSUMDB=off", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod -modcacherw",
	}, more...)
}

// prepare makes the user's home: a PATH of a C compiler and its companions, and a module with one program.
func prepare(b *bench) (string, error) {
	for _, name := range []string{"tools", "home", "tmp", "user"} {
		if err := os.Mkdir(filepath.Join(b.folder, name), 0o755); err != nil {
			return "", err
		}
	}
	for _, tool := range tools {
		if place, err := exec.LookPath(tool); err == nil {
			if err := os.Symlink(place, filepath.Join(b.folder, "tools", tool)); err != nil {
				return "", err
			}
		}
	}
	if err := b.write("main.go"); err != nil {
		return "", err
	}
	if _, err := b.go_(nil, "mod", "init", "example.com/user"); err != nil {
		return "", err
	}
	return b.go_(nil, "version")
}

// write copies a file of the user's from where we keep it.
func (b *bench) write(name string) error {
	content, err := os.ReadFile(filepath.Join(b.root, "tests/goget/testdata/user", name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.user, name), content, 0o644)
}

// go_ runs the go command in the user's module.
func (b *bench) go_(more []string, args ...string) (string, error) {
	out, err := run(b.user, b.env(more...), b.goTool, args...)
	return strings.TrimSpace(out), err
}

// build builds the user's program and returns its place.
func (b *bench) build(more []string, flags ...string) (string, error) {
	program := filepath.Join(b.folder, "program")
	_, err := b.go_(more, append(append([]string{"build"}, flags...), "-o", program)...)
	return program, err
}

// Addresses and sockets of the two hosts.
const (
	clientIP, clientSocket = "10.0.0.1", "a.sock"
	serverIP, serverSocket = "10.0.0.2", "b.sock"
)

// sidecars starts two, joined by memif.
func sidecars(b *bench) (string, error) {
	machnetd := filepath.Join(b.root, "bin/machnetd")
	if _, err := os.Stat(machnetd); err != nil {
		return "", fmt.Errorf("%w; run `make build` first", err)
	}
	for _, s := range []struct{ ip, socket, role string }{{clientIP, clientSocket, "server"}, {serverIP, serverSocket, "client"}} {
		socket := filepath.Join(b.folder, s.socket)
		said, err := os.Create(socket + ".log")
		if err != nil {
			return "", err
		}
		cmd := exec.Command(machnetd, "--ip", s.ip+"/24", "--memif", s.role+":"+filepath.Join(b.folder, "link.sock"), "--socket", socket,
			"--file-prefix", filepath.Base(b.folder)+s.socket, "--idle", "yield", "--log", "warn")
		cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+b.folder)
		cmd.Stdout, cmd.Stderr = said, said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return "", err
		}
		b.sidecar = append(b.sidecar, cmd)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			if time.Now().After(deadline) {
				words, _ := os.ReadFile(socket + ".log")
				return "", fmt.Errorf("%s made no socket in 20 s: %s", machnetd, words)
			}
		}
	}
	return "", nil
}

// works runs the user's program between the two sidecars, perhaps by another program (an emulator).
func (b *bench) works(program string, more []string, by ...string) error {
	command := append(by, program, serverIP, filepath.Join(b.folder, clientSocket))
	env := append([]string{"MACHNET_SOCKET=" + filepath.Join(b.folder, serverSocket)}, more...)
	out, err := run(b.user, env, command[0], command[1:]...)
	if err == nil && out != "ok\n" {
		err = fmt.Errorf("it printed %q", out)
	}
	return err
}

// says runs the user's program where it cannot work, and checks that it says why.
func (b *bench) says(program string, want ...string) (string, error) {
	out, err := run(b.user, nil, program, serverIP, filepath.Join(b.folder, clientSocket))
	if err == nil {
		return "", errors.New("it works, and should not")
	}
	return quote(out, want...)
}

// quote is the output in which all that is wanted was found.
func quote(out string, want ...string) (string, error) {
	for _, words := range want {
		if !strings.Contains(out, words) {
			return "", fmt.Errorf("%q is not in what it says: %s", words, out)
		}
	}
	return strings.TrimSpace(out), nil
}

// linked says how a program is linked: is there a dynamic linker, may it lie anywhere, which libraries does it load.
type linked struct {
	dynamic, anywhere bool
	libraries         []string
}

func linkage(program string) (linked, error) {
	f, err := elf.Open(program)
	if err != nil {
		return linked{}, err
	}
	defer f.Close()
	l := linked{anywhere: f.Type == elf.ET_DYN}
	for _, p := range f.Progs {
		l.dynamic = l.dynamic || p.Type == elf.PT_INTERP
	}
	l.libraries, err = f.ImportedLibraries()
	return l, err
}
