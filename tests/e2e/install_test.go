package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// run runs a command to its end and gives what it printed.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func filesBelow(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWhatIsInstalledServesCAndPython(t *testing.T) {
	p := sharedPair(t)
	root := shortTempDir(t)
	abi := strings.TrimSpace(run(t, nil, "sed", "-n", "s/^#define MACHNET_ABI //p", "../../rust/machnet/include/machnet.h"))
	soname := "libmachnet.so." + abi
	install := []string{"--no-print-directory", "-C", "../..", "DESTDIR=" + root, "PREFIX=/usr"}
	run(t, nil, "make", append(install, "install")...)
	want := []string{
		"/usr/bin/machnet", "/usr/bin/machnetd", "/usr/include/machnet.h", "/usr/lib/libmachnet.a", "/usr/lib/libmachnet.so",
		"/usr/lib/" + soname, "/usr/lib/pkgconfig/machnet.pc",
	}
	if files := filesBelow(t, root); !slices.Equal(files, want) {
		t.Fatalf("make install made %q, want %q", files, want)
	}
	library := root + "/usr/lib"
	for line := range strings.Lines(run(t, nil, "nm", "-D", "--defined-only", library+"/libmachnet.so")) {
		fields := strings.Fields(line)
		if name := fields[len(fields)-1]; !strings.HasPrefix(name, "machnet_") && name != "MACHNET_"+abi {
			t.Errorf("the shared library exports %s", name)
		}
	}
	if dynamic := run(t, nil, "readelf", "-d", library+"/libmachnet.so"); !strings.Contains(dynamic, "["+soname+"]") {
		t.Errorf("no soname %s:\n%s", soname, dynamic)
	}

	packages := []string{"PKG_CONFIG_LIBDIR=" + library + "/pkgconfig", "PKG_CONFIG_SYSROOT_DIR=" + root}
	flags := strings.Fields(run(t, packages, "pkg-config", "--cflags", "--libs", "machnet"))
	build := func(name string, flags ...string) string {
		program := filepath.Join(root, name)
		run(t, nil, "cc", slices.Concat([]string{"-std=c11", "-O2", "../c/echo.c", "-o", program}, flags)...)
		return program
	}
	shared := build("echo-shared", flags...)
	at := slices.Index(flags, "-lmachnet")
	if at < 0 {
		t.Fatalf("pkg-config gave %q", flags)
	}
	static := build("echo-static", slices.Replace(slices.Clone(flags), at, at+1, "-l:libmachnet.a")...)
	for program, needs := range map[string]bool{shared: true, static: false} {
		if dynamic := run(t, nil, "readelf", "-d", program); strings.Contains(dynamic, "libmachnet") != needs {
			t.Errorf("%s needs the shared library: %v, want %v", program, !needs, needs)
		}
	}

	port := strconv.Itoa(startC(t, p.b, static, "server", p.b.ip, "0").after(t, "listening on port "))
	env := []string{"MACHNET_SOCKET=" + p.a.socket, "LD_LIBRARY_PATH=" + library}
	if out := run(t, env, shared, "client", p.b.ip, port, "100", "5000"); !strings.HasPrefix(out, "100 round trips of 5000 bytes") {
		t.Errorf("the C client printed %q", out)
	}
	if out := run(t, env, "python3", pythonOfTheDocs(t), p.b.ip, port); out != "hello from Python\n" {
		t.Errorf("the Python client printed %q", out)
	}
	// Its errors are the library's sentences.
	cmd := exec.Command("python3", pythonOfTheDocs(t), p.b.ip, "9")
	cmd.Env = append(os.Environ(), env...)
	refused := fmt.Sprintf("OSError: connect %s:9: connection refused: nobody listens at the remote port\n", p.b.ip)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.HasSuffix(string(out), refused) {
		t.Errorf("the Python client towards a port where nobody listens: %v, %s", err, out)
	}

	// Ctrl-C gets it out of its receive: Python's handler ends the call.
	l := listen(t, p.b.attach(t))
	waiting := exec.Command("python3", pythonOfTheDocs(t), p.b.ip, strconv.Itoa(int(l.Addr().(*machnet.Addr).Port)))
	waiting.Env = append(os.Environ(), env...)
	said := new(lockedBuffer)
	waiting.Stdout, waiting.Stderr = said, said
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	_ = l.SetDeadline(time.Now().Add(patience))
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	_ = peer.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(peer, make([]byte, len("hello from Python"))); err != nil {
		t.Fatal(err)
	}
	awaitSleep(t, waiting.Process.Pid)
	_ = waiting.Process.Signal(os.Interrupt)
	if err := waiting.Wait(); err == nil || !strings.Contains(said.String(), "KeyboardInterrupt") {
		t.Errorf("Python under Ctrl-C: %v, %s", err, said)
	}

	run(t, nil, "make", append(install, "uninstall")...)
	left := slices.DeleteFunc(filesBelow(t, root), func(path string) bool { return !strings.HasPrefix(path, "/usr/") })
	if len(left) != 0 {
		t.Errorf("make uninstall left %q", left)
	}
}

// awaitSleep returns when a process of one thread sleeps in a system call.
func awaitSleep(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "S") {
			return
		}
	}
	t.Fatalf("process %d does not fall asleep in %v", pid, patience)
}

// pythonOfTheDocs is the program in docs/c.md, as a file.
func pythonOfTheDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/c.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```python\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/c.md has %d Python programs, want 1", len(blocks))
	}
	file := filepath.Join(t.TempDir(), "echo.py")
	if err := os.WriteFile(file, blocks[0][1], 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
