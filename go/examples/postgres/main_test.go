package main

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
	"github.com/machnet/machnet/go/machnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pool gives a server and a pool of connections to it, both until the test ends.
func pool(t *testing.T) (*server, *sql.DB) {
	d, l := hosts.Two(t)
	s := new(server)
	go func() { _ = s.serve(l) }()
	db, err := open(d, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return s, db
}

func ask(t *testing.T, db *sql.DB, statement string, args ...any) string {
	t.Helper()
	var answer string
	if err := db.QueryRowContext(t.Context(), statement, args...).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return answer
}

// open waits until the server has so many sessions.
func (s *server) haveOpen(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.sessions)
		s.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are open, want %d", n, want)
		}
	}
}

func TestStatements(t *testing.T) {
	_, db := pool(t)
	if got := ask(t, db, "echo hello"); got != "hello" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("long ", 300_000)
	if got := ask(t, db, "echo $1", long); got != long {
		t.Errorf("%d bytes came back of %d", len(got), len(long))
	}
	rows, err := db.QueryContext(t.Context(), "rows 5000 300")
	if err != nil {
		t.Fatal(err)
	}
	n, size := 0, 0
	for ; rows.Next(); n++ {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		size += len(text)
	}
	if err := rows.Err(); err != nil || n != 5000 || size != 5000*300 {
		t.Errorf("%d rows of %d bytes in all, %v", n, size, err)
	}
	var refused *pgconn.PgError
	if _, err := db.ExecContext(t.Context(), "nonsense"); !errors.As(err, &refused) || refused.Code != "42601" {
		t.Errorf("nonsense: %v", err)
	}
	if s := db.Stats(); s.OpenConnections != 1 {
		t.Errorf("%d connections, want 1: an error of a statement is not one of the connection", s.OpenConnections)
	}
}

func TestThePoolKeepsItsLimits(t *testing.T) {
	s, db := pool(t)
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 10 {
				if got := ask(t, db, "echo $1", "x"); got != "x" {
					t.Errorf("%q", got)
				}
				s.mu.Lock()
				if len(s.sessions) > 5 { // the server may not have seen yet that one has ended, when its place is taken
					t.Errorf("%d sessions, and the pool may have 4", len(s.sessions))
				}
				s.mu.Unlock()
			}
		})
	}
	all.Wait()
	s.haveOpen(t, 2)
	db.SetConnMaxLifetime(time.Nanosecond)
	was := ask(t, db, "session")
	if is := ask(t, db, "session"); is == was {
		t.Errorf("session %s is used again although its time is over", is)
	}
	s.haveOpen(t, 0)
}

func TestDeadConnectionsAreReplaced(t *testing.T) {
	for name, kill := range map[string]func(*machnet.Conn){
		"closed": func(c *machnet.Conn) { _ = c.Close() },
		"reset":  func(c *machnet.Conn) { _, _ = c.SetLinger(0), c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, db := pool(t)
			was := ask(t, db, "session")
			s.mu.Lock()
			for _, c := range s.sessions {
				kill(c.(*machnet.Conn))
			}
			s.mu.Unlock()
			s.haveOpen(t, 0)
			// pgx looks whether a connection still lives where it was idle for a second.
			time.Sleep(1100 * time.Millisecond)
			if is := ask(t, db, "session"); is == was {
				t.Errorf("session %s goes on", is)
			}
		})
	}
}

func TestAContextEndsAStatementAndItsConnection(t *testing.T) {
	d, l := hosts.Two(t)
	db, err := open(d, l.Addr().String()) // nobody serves
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	if s := db.Stats(); s.OpenConnections != 0 {
		t.Errorf("%d connections are left", s.OpenConnections)
	}
}
