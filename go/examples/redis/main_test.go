package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client gives a client of a server, both until the test ends.
func client(t *testing.T) *redis.Client {
	d, l := hosts.Two(t)
	go func() { _ = new(store).serve(l) }()
	c := newClient(d, l.Addr().String())
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestValuesOfEverySizeComeBack(t *testing.T) {
	c := client(t)
	for _, size := range []int{0, 1, 1000, 70_000, 4 << 20} {
		key, want := fmt.Sprint(size), strings.Repeat("v", size)
		if err := c.Set(t.Context(), key, want, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(t.Context(), key).Result(); err != nil || got != want {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
	if n, err := c.Del(t.Context(), "1").Result(); n != 1 || err != nil {
		t.Errorf("Del: %d, %v", n, err)
	}
	if _, err := c.Get(t.Context(), "1").Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("a key that was deleted: %v", err)
	}
}

func TestPipelinesAreAnsweredInOrder(t *testing.T) {
	c := client(t)
	answers, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 1000 {
			p.Set(t.Context(), fmt.Sprint(i), i, 0)
			p.Get(t.Context(), fmt.Sprint(i))
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
}

func TestManyUseThePool(t *testing.T) {
	c := client(t)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 20 {
				key := fmt.Sprint(i)
				if err := c.Set(t.Context(), key, j, 0).Err(); err != nil {
					t.Error(err)
					return
				}
				if got, err := c.Get(t.Context(), key).Int(); got != j || err != nil {
					t.Errorf("%d, %v; want %d", got, err, j)
					return
				}
			}
		})
	}
	all.Wait()
	// The pool looks into idle connections of TCP by their descriptors; ours have none, and must not be taken for broken.
	if s := c.PoolStats(); s.StaleConns != 0 || s.Hits == 0 {
		t.Errorf("the pool threw %d connections away and found one %d times", s.StaleConns, s.Hits)
	}
}

func TestACallThatIsNotAnsweredEndsWithItsContext(t *testing.T) {
	d, l := hosts.Two(t)
	c := newClient(d, l.Addr().String()) // nobody serves
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx).Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
}
