package core

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// root is the repository.
const root = "../../.."

func TestOnlyThePackagesMadeForItUseCAndUnsafe(t *testing.T) {
	// machnettest is no part of the client: it links the whole stack for tests.
	allowed := map[string]string{`"C"`: "go/internal/core/ go/machnettest/", `"unsafe"`: "go/internal/core/ go/internal/leaf/ go/machnettest/"}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && name != "." || name == "target" || name == "rust" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imported := range f.Imports {
			if what := imported.Path.Value; what == `"C"` || what == `"unsafe"` {
				fenced := false
				for _, a := range strings.Fields(allowed[what]) {
					fenced = fenced || strings.HasPrefix(name, a)
				}
				if !fenced {
					t.Errorf("%s imports %s; only %s may", name, what, allowed[what])
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("saw only %d Go files in %s", files, root)
	}
}

func TestTheHeaderIsTheLibrarys(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, "Makefile")); err != nil {
		t.Skipf("outside the repository: %v", err)
	}
	original, err := os.ReadFile(filepath.Join(root, "rust/machnet/include/machnet.h"))
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("machnet.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(here, original) {
		t.Error("machnet.h is not rust/machnet/include/machnet.h; `make header` writes both")
	}
}

func TestCodesAreThoseOfTheHeader(t *testing.T) {
	header, err := os.ReadFile("machnet.h")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]int{
		"EAGAIN": int(Again), "ECLOSED": int(Closed), "EREFUSED": int(Refused), "ETIMEDOUT": int(TimedOut), "ERESET": int(Reset),
		"EINUSE": int(InUse), "ENETDOWN": int(NetDown), "ETOOBIG": int(TooBig), "EVERSION": int(Version), "ENOSIDECAR": int(NoSidecar),
		"EACCES": int(NotPermitted), "EINVAL": int(Invalid), "EBUSY": int(Busy), "ENOBUFS": int(NoBuffers), "EABORTED": int(Aborted),
		"EEOF": int(EOF), "EMSGSIZE": int(MsgSize), "EUNREACHABLE": int(Unreachable), "ECANCELED": int(Canceled), "EADDR": int(BadAddr),
		"EPROTO": int(Protocol), "EPIPE": int(Finished), "ENOTATTACHED": int(NotAttached), "ESYSTEM": int(System), "EINTR": int(Interrupted), "EFORK": int(Forked),
		"EFULL_CONNS": int(FullConns), "EFULL_ENGINE": int(FullEngine), "EFULL_LISTENERS": int(FullListeners), "EFULL_PORTS": int(FullPorts),
		"EPEER_FULL_CONNS": int(PeerFullConns), "EPEER_FULL_ENGINE": int(PeerFullEngine), "EENDING": int(Ending), "EPEER_ENDING": int(PeerEnding),
		"EVENT_LISTENING": int(EvListening), "EVENT_LISTEN_FAILED": int(EvListenFailed), "EVENT_UNLISTENED": int(EvUnlistened),
		"EVENT_CONNECTED": int(EvConnected), "EVENT_CONNECT_FAILED": int(EvConnectFailed), "EVENT_ACCEPTED": int(EvAccepted),
		"EVENT_READABLE": int(EvReadable), "EVENT_WRITABLE": int(EvWritable), "EVENT_CLOSED": int(EvClosed), "EVENT_STATS": int(EvStats),
		"RECV_STREAM": int(Stream), "RECV_MESSAGE": int(Message), "RECV_ONE": int(One),
		"INFO_BEGIN": int(Begin), "INFO_END": int(End), "INFO_MORE": int(More),
	}
	seen := 0
	for _, m := range regexp.MustCompile(`(?m)^#define MACHNET_((?:E[A-Z_]+|RECV_\w+|INFO_\w+)) (-?\d+)$`).FindAllSubmatch(header, -1) {
		if string(m[1]) == "ERROR_TEXT_MAX" {
			continue
		}
		value, _ := strconv.Atoi(string(m[2]))
		want, ok := known[string(m[1])]
		if !ok || want != value {
			t.Errorf("MACHNET_%s is %d in machnet.h; here it is %d (known: %v)", m[1], value, want, ok)
		}
		seen++
	}
	if seen != len(known) {
		t.Errorf("machnet.h has %d of the %d names that this package knows", seen, len(known))
	}
}

// Whoever imports the package from a copy without the archive is told what to do, not that a linker lacks a file.
func TestWithoutTheArchiveTheCompilerSaysHowToGetIt(t *testing.T) {
	clone := t.TempDir()
	for _, name := range []string{"go.mod", "go/machnet", "go/internal"} {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".a") {
				return err
			}
			below, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			to := filepath.Join(clone, below)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, text, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "./go/machnet")
	build.Dir, build.Env = clone, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=1")
	out, err := build.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("run `make archives`")) {
		t.Errorf("go build without the archive: %v, %s; want that it says to run `make archives`", err, out)
	}
}

// `go doc` and `go list -m all` write go.work.sum; whoever only reads must not be left with a changed tree.
func TestGoWorkSumIsComplete(t *testing.T) {
	file := filepath.Join(root, "go.work.sum")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-m", "all")
	list.Dir = root
	if out, err := list.CombinedOutput(); err != nil {
		t.Skipf("go list -m all: %v (it may need the network): %s", err, out)
	}
	after, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("`go list -m all` has changed go.work.sum to:\n%s\ncommit that", after)
	}
}
