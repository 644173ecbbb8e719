package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DefaultSocket is where a sidecar listens unless told otherwise.
const DefaultSocket = "/var/run/machnet/machnet.sock"

// Socket is the path that a socket argument of this package stands for: "" is $MACHNET_SOCKET, or DefaultSocket.
func Socket(socket string) string {
	if socket == "" {
		socket = os.Getenv("MACHNET_SOCKET")
	}
	if socket == "" {
		socket = DefaultSocket
	}
	return socket
}

var (
	// ErrNoSidecar is what an error wraps when nobody answers at the socket.
	ErrNoSidecar = errors.New("no sidecar")
	// ErrVersion is what an error wraps when the sidecar speaks another version of the control protocol than this package.
	ErrVersion = errors.New("control protocol version mismatch")
	// ErrAnswer is what an error wraps when the sidecar's answer is cut off, too large, or no answer to the question.
	ErrAnswer = errors.New("unusable answer")
)

// Refusal is a sidecar's answer to a question or an order that it does not fulfil.
type Refusal struct {
	Socket string
	Query  string // the question's name
	Text   string // the sidecar's sentence, one line
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s of machnetd at %s: %s", r.Query, r.Socket, r.Text)
}

// Query is one question or order. docs/control.md says which fields go with which name.
type Query struct {
	Name       string  `json:"query"`
	Channel    *uint64 `json:"channel,omitempty"`
	Engine     *int    `json:"engine,omitempty"`
	Connection string  `json:"connection,omitempty"`
	Level      string  `json:"level,omitempty"`
}

const (
	version = 1
	// attachMagic is how every packet to an application that attaches begins (docs/channel.md).
	attachMagic = "MACHNETA"
	// largestPacket is the most that the sidecar sends in one packet, in bytes.
	largestPacket = 32 << 10
	// largestAnswer bounds what is kept of an answer, in bytes. A million connections take less.
	largestAnswer = 512 << 20
)

// Ask asks, and returns the answer as the sidecar sent it, for programs that pass it on. What the other functions check is checked: it is
// one JSON object of the version that this package knows, and it answers this question.
func Ask(ctx context.Context, socket string, q Query) (json.RawMessage, error) {
	socket = Socket(socket)
	question, err := json.Marshal(struct {
		Version int `json:"version"`
		Query
	}{version, q})
	if err != nil {
		return nil, q.failed(socket, err)
	}
	document, err := exchange(ctx, socket, question, largestAnswer)
	if err != nil {
		if end := ctx.Err(); end != nil {
			if cause := context.Cause(ctx); cause != end {
				end = fmt.Errorf("%w: %w", end, cause)
			}
			err = fmt.Errorf("no whole answer: %w", end)
		}
		return nil, q.failed(socket, err)
	}
	if err := q.check(socket, document); err != nil {
		return nil, err
	}
	return document, nil
}

// failed says what was attempted.
func (q Query) failed(socket string, err error) error {
	return fmt.Errorf("%s of machnetd at %s: %w", q.Name, socket, err)
}

// exchange sends one question and reads packets until the sidecar closes the connection.
func exchange(ctx context.Context, socket string, question []byte, most int) (document []byte, err error) {
	conn, err := connect(ctx, socket)
	if err != nil {
		return nil, unconnected(socket, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(question); err != nil {
		return nil, closedEarly(err, nil)
	}
	return readAnswer(conn, most)
}

// readAnswer reads packets until the sidecar has closed the connection. Where a packet and the end come while a read looks, Linux may say that
// it is the end; the next read has the packet. So only the second end in a row is one.
func readAnswer(conn io.Reader, most int) (document []byte, err error) {
	packet := make([]byte, largestPacket+1)
	for ended := false; ; {
		n, err := conn.Read(packet)
		switch {
		case errors.Is(err, io.EOF) && ended:
			return document, nil
		case errors.Is(err, io.EOF):
			ended = true
			continue
		case err != nil:
			return nil, closedEarly(err, document)
		case n > largestPacket:
			return nil, fmt.Errorf("%w: a packet of more than %d bytes; is this the socket of a machnetd?", ErrAnswer, largestPacket)
		case len(document)+n > most:
			return nil, fmt.Errorf("%w: more than %d bytes; ask for less, as for the connections of one channel", ErrAnswer, most)
		}
		ended = false
		document = append(document, packet[:n]...)
	}
}

// connect tries until the sidecar's backlog has room: beyond it the kernel refuses at once, instead of letting a Unix socket wait.
func connect(ctx context.Context, socket string) (net.Conn, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unixpacket", socket)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// unconnected is what a failure to connect to a socket means.
func unconnected(socket string, err error) error {
	cause := err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		cause = op.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no such socket; start machnetd, or name its socket (--socket, MACHNET_SOCKET)", ErrNoSidecar)
	case errors.Is(err, syscall.ECONNREFUSED) && mounted(socket):
		return fmt.Errorf("%w: nobody listens there any more, and the socket is mounted as a file, which stays that of the sidecar of then: "+
			"mount its folder, and start machnetd", ErrNoSidecar)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens there any more; start machnetd, or name its socket (--socket, MACHNET_SOCKET)", ErrNoSidecar)
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.ENOTSOCK):
		return fmt.Errorf("%w: this is not a control socket (%v); name that of machnetd (--socket, MACHNET_SOCKET)", ErrNoSidecar, cause)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run as a user whom control.owner, control.group and control.mode of machnetd admit", cause)
	}
	return cause
}

// mounted says whether the socket was mounted by itself, as into a container: a sidecar that starts again makes another file, which this name never
// leads to.
func mounted(socket string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	place, err := filepath.Abs(socket)
	if err == nil {
		place, err = filepath.EvalSymlinks(place)
	}
	if err != nil {
		return false
	}
	escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(place)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == escaped { // proc_pid_mountinfo(5)
			return true
		}
	}
	return false
}

// closedEarly is what an error of the connection means once there was one.
func closedEarly(err error, document []byte) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w: machnetd closed the connection after %d bytes of its answer; it may have ended, or is older than machnet: see its log",
			ErrAnswer, len(document))
	}
	return err
}

// check refuses what is no answer to this question.
func (q Query) check(socket string, document []byte) error {
	wrong := func(format string, args ...any) error {
		return q.failed(socket, fmt.Errorf("%w: "+format, append([]any{ErrAnswer}, args...)...))
	}
	var head struct {
		Version *int    `json:"version"`
		Query   string  `json:"query"`
		Error   *string `json:"error"`
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	switch err := decoder.Decode(&head); {
	case len(document) == 0:
		return wrong("machnetd closed the connection without one; it may be ending, or is older than machnet: see its log")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return wrong("cut off after %d bytes; machnetd ended, or this program read too slowly for it: ask once more", len(document))
	case bytes.HasPrefix(document, []byte(attachMagic)):
		return wrong("machnetd took this for an application that attaches, and turned it away, as it does where too many are connected; see its log, and ask once more")
	case err != nil:
		return wrong("%w, in %q; is this the socket of a machnetd?", err, document[:min(len(document), 64)])
	}
	if _, err := decoder.Token(); err != io.EOF {
		return wrong("more than one JSON document; is this the socket of a machnetd?")
	}
	switch {
	case head.Version == nil:
		return wrong("it has no version; is this the socket of a machnetd?")
	case *head.Version != version:
		return q.failed(socket, fmt.Errorf("%w: it answers in version %d, and this program knows version %d; use the machnet of the same release as machnetd",
			ErrVersion, *head.Version, version))
	case head.Error != nil:
		return &Refusal{Socket: socket, Query: q.Name, Text: oneLine(*head.Error)}
	case head.Query != q.Name:
		return wrong("it answers %q; is this the socket of a machnetd?", head.Query)
	}
	return nil
}

// oneLine keeps what another process wrote from reaching a terminal as more than a line of text.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, text[:min(len(text), 1000)])
}
