package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/tidwall/redcon"
)

// program runs a program that somebody may have installed; where it is not there, said is false.
func program(t *testing.T, name string, args ...string) (said string, there bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out), true
}

// serveRedis answers SET, GET and PING.
func serveRedis(t *testing.T) (address string) {
	l := listenTCP(t)
	var values sync.Map
	go func() {
		_ = redcon.Serve(l, func(conn redcon.Conn, cmd redcon.Command) {
			switch strings.ToUpper(string(cmd.Args[0])) {
			case "PING":
				conn.WriteString("PONG")
			case "SET":
				values.Store(string(cmd.Args[1]), string(cmd.Args[2]))
				conn.WriteString("OK")
			case "GET":
				if value, ok := values.Load(string(cmd.Args[1])); ok {
					conn.WriteBulkString(value.(string))
				} else {
					conn.WriteNull()
				}
			default:
				conn.WriteError("ERR unknown command")
			}
		}, nil, nil)
	}()
	return l.Addr().String()
}

func TestAProxyCarriesRedis(t *testing.T) {
	_, _, address := proxyToTCP(t, serveRedis(t))
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	for _, size := range []int{0, 1, 1500, 100_000, 2 << 20} {
		key, want := fmt.Sprint(size), string(pattern(size))
		if err := client.Set(t.Context(), key, want, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(t.Context(), key).Result(); err != nil || got != want {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
	answers, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 1000 {
			p.Set(t.Context(), "counter", i, 0)
			p.Get(t.Context(), "counter")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if got, err := answers[2*i+1].(*redis.StringCmd).Int(); got != i || err != nil {
			t.Fatalf("answer %d is %d, %v", i, got, err)
		}
	}
	host, port, _ := strings.Cut(address, ":")
	if said, there := program(t, "redis-cli", "-h", host, "-p", port, "get", "counter"); there && strings.TrimSpace(said) != "999" {
		t.Errorf("redis-cli says %q", said)
	}
}

// startExample runs a program of go/examples at a sidecar. It is built as the examples' own tests are, so that little is compiled anew.
func startExample(t *testing.T, at *sidecar, name string, args ...string) {
	t.Helper()
	binary, err := filepath.Abs(filepath.Join(shortTempDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-race", "-o", binary, "./"+name)
	build.Dir = "../../go/examples"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	out := new(lockedBuffer)
	c := exec.Command(binary, args...)
	c.Env = append(os.Environ(), "MACHNET_SOCKET="+at.socket)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if said := out.String(); said != "" {
			t.Errorf("%s printed: %s", name, said)
		}
	})
}

func TestAProxyCarriesPostgreSQLToAnExample(t *testing.T) {
	p := sharedPair(t)
	startExample(t, p.b, "postgres", "-listen", ":5432")
	_, address := startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://10.0.0.2:5432")
	url := "postgres://example@" + address + "/example?sslmode=disable"
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	until(t, "the server listens", func() error { return db.PingContext(t.Context()) })
	long := strings.Repeat("long ", 500_000)
	var got string
	if err := db.QueryRowContext(t.Context(), "echo $1", long).Scan(&got); err != nil || got != long {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(long), err)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			rows, err := db.QueryContext(t.Context(), "rows 2000 100")
			if err != nil {
				t.Error(err)
				return
			}
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil || n != 2000 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
	all.Wait()
	if said, there := program(t, "psql", url, "-tA", "-c", "echo hello"); there && strings.TrimSpace(said) != "hello" {
		t.Errorf("psql says %q", said)
	}
}

func TestAProxyCarriesCurlToAnExample(t *testing.T) {
	p := sharedPair(t)
	startExample(t, p.b, "http", "-listen", ":8080")
	_, address := startProxy(t, p.a, "tcp://127.0.0.1:0", "machnet://10.0.0.2:8080")
	file := filepath.Join(t.TempDir(), "file")
	content := pattern(8 << 20)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "http://" + address + "/file"
	until(t, "the example serves", func() error { return put(url, content[:1]) })
	if _, there := program(t, "curl", "-sSf", "-T", file, url); !there {
		t.Log("curl is not installed: net/http alone has tried it")
		if err := put(url, content); err != nil {
			t.Fatal(err)
		}
	}
	if said, there := program(t, "curl", "-sSf", url); there && said != string(content) {
		t.Errorf("curl got %d bytes of %d", len(said), len(content))
	}
	if got, err := get(url); err != nil || string(got) != string(content) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(content), err)
	}
}

func put(url string, body []byte) error {
	r, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := new(http.Client).Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.ReadAll(answer.Body)
	return err
}

func get(url string) ([]byte, error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}
