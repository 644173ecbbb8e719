package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/machnet/machnet/go/machnet"
)

// firstPort is where the first engine's application listens; that of engine i listens i ports above.
const firstPort = 7000

// attachTime and echoTime bound what may take long in a guest: the CPU is emulated, and others want it, too. A device that was pulled out comes back
// within echoTime.
const (
	attachTime = 30 * time.Second
	echoTime   = 3 * time.Minute
)

// attach gives a stack on each of the sidecar's engines.
func attach(socket string, engines int) ([]*machnet.Stack, error) {
	stacks := make([]*machnet.Stack, engines)
	for i := range stacks {
		ctx, cancel := context.WithTimeout(context.Background(), attachTime)
		stack, err := machnet.Attach(ctx, machnet.Config{Socket: socket, Engine: machnet.OnEngine(i)})
		cancel()
		if err != nil {
			return nil, err
		}
		stacks[i] = stack
	}
	return stacks, nil
}

// runServe echoes messages, on each engine at a port of its own, until it is ended.
func runServe(args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	socket := fs.String("socket", machnet.DefaultSocket, "the sidecar's socket")
	engines := fs.Int("engines", 1, "how many engines it has")
	if err := fs.Parse(args); err != nil {
		return err
	}
	stacks, err := attach(*socket, *engines)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i, stack := range stacks {
		lc := machnet.ListenConfig{Stack: stack}
		l, err := lc.Listen(context.Background(), "machnet", ":"+strconv.Itoa(firstPort+i))
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go echo(conn.(*machnet.Conn))
			}
		}()
	}
	fmt.Println("ready")
	return <-failed
}

// echo sends each message back until the other end has enough.
func echo(conn *machnet.Conn) {
	defer conn.Close()
	var buffer []byte
	for {
		message, err := read(conn, &buffer)
		if err == nil {
			err = conn.Send(message)
		}
		if err != nil {
			return
		}
	}
}

// read reads a message into a buffer that grows with what comes.
func read(conn *machnet.Conn, buffer *[]byte) ([]byte, error) {
	n, err := conn.ReadMessage(*buffer)
	if errors.Is(err, io.ErrShortBuffer) {
		*buffer = make([]byte, n)
		n, err = conn.ReadMessage(*buffer)
	}
	if err != nil {
		return nil, err
	}
	return (*buffer)[:n], nil
}

// pair is a connection between an engine here and one there.
type pair struct {
	from, to int
	conn     *machnet.Conn
	buffer   []byte
	echoes   atomic.Int64
}

// once has one message of this size, like no other, echoed.
func (p *pair) once(size int) error {
	n := p.echoes.Load()
	message := bytes.Repeat([]byte{byte(p.from), byte(p.to), byte(n), byte(n >> 8), 0xa5, 7, 3}, size/7+1)[:size]
	_ = p.conn.SetDeadline(time.Now().Add(echoTime))
	if err := p.conn.Send(message); err != nil {
		return fmt.Errorf("engine %d to engine %d: %w", p.from, p.to, err)
	}
	got, err := read(p.conn, &p.buffer)
	switch {
	case err != nil:
		return fmt.Errorf("engine %d to engine %d: %w", p.from, p.to, err)
	case !bytes.Equal(got, message):
		return fmt.Errorf("engine %d to engine %d: message %d of %d bytes came back as another of %d", p.from, p.to, n, size, len(got))
	}
	p.echoes.Add(1)
	return nil
}

// connect joins each engine here with each there.
func connect(args []string, fs *flag.FlagSet) ([]*pair, error) {
	socket := fs.String("socket", machnet.DefaultSocket, "the sidecar's socket")
	engines := fs.Int("engines", 1, "how many engines it has")
	to := fs.String("to", "", "address of the other guest, where `guest serve` runs")
	there := fs.Int("there", 1, "how many engines its sidecar has")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	stacks, err := attach(*socket, *engines)
	if err != nil {
		return nil, err
	}
	var pairs []*pair
	for i, stack := range stacks {
		for j := range *there {
			d := machnet.Dialer{Stack: stack, Timeout: attachTime}
			conn, err := d.Dial("machnet", net.JoinHostPort(*to, strconv.Itoa(firstPort+j)))
			if err != nil {
				return nil, fmt.Errorf("engine %d to engine %d: %w", i, j, err)
			}
			pairs = append(pairs, &pair{from: i, to: j, conn: conn.(*machnet.Conn)})
		}
	}
	return pairs, nil
}

// runPairs has messages of one size echoed between all pairs of engines, one pair after the other.
func runPairs(args []string) error {
	fs := flag.NewFlagSet("pairs", flag.ContinueOnError)
	size := fs.Int("size", 64, "bytes of a message")
	messages := fs.Int("messages", 1, "messages of each pair")
	pairs, err := connect(args, fs)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		for range *messages {
			if err := p.once(*size); err != nil {
				return err
			}
		}
		if err := p.conn.Close(); err != nil {
			return err
		}
	}
	fmt.Printf("%d pairs, %d messages of %d bytes each\n", len(pairs), *messages, *size)
	return nil
}

// runBusy has messages of many sizes echoed between all pairs of engines at once until it is ended, and says what has come back, once a second:
// `least 120 total 498`, the least of a pair and the sum of all. It ends with the first connection that does.
func runBusy(args []string) error {
	fs := flag.NewFlagSet("busy", flag.ContinueOnError)
	pause := fs.Duration("pause", 2*time.Millisecond, "between two messages of a pair")
	pairs, err := connect(args, fs)
	if err != nil {
		return err
	}
	failed := make(chan error, len(pairs))
	for _, p := range pairs {
		go func() {
			for n := 0; ; n++ {
				if err := p.once(1 + (n*n*7)%3000); err != nil {
					failed <- err
					return
				}
				time.Sleep(*pause)
			}
		}()
	}
	for {
		select {
		case err := <-failed:
			return err
		case <-time.After(time.Second):
			fmt.Println(status(pairs))
		}
	}
}

func status(pairs []*pair) string {
	least, total := pairs[0].echoes.Load(), int64(0)
	for _, p := range pairs {
		n := p.echoes.Load()
		least, total = min(least, n), total+n
	}
	return fmt.Sprintf("least %d total %d", least, total)
}
