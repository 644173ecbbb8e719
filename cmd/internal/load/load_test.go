package load

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func serveTCP(t *testing.T) net.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go ServeListener(listener, bufferSize, func(err error) { t.Error(err) })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestEveryLoopCompletesAndCountsItsEchoes(t *testing.T) {
	for name, p := range map[string]Params{
		"one in flight":            {Size: 64, Inflight: 1},
		"window, a write a frame":  {Size: 64, Inflight: 32},
		"window, buffered":         {Size: 64, Inflight: 32, Buffered: true},
		"smallest frame":           {Size: MinSize, Inflight: 4},
		"larger than any buffer":   {Size: 1 << 20, Inflight: 16},
		"large window, buffered":   {Size: 32 << 10, Inflight: 32, Buffered: true},
		"open loop":                {Size: 64, Inflight: 1, Rate: 2000},
		"open loop, larger frames": {Size: 32 << 10, Inflight: 1, Rate: 500},
	} {
		t.Run(name, func(t *testing.T) {
			p.Warmup, p.Duration = 10*time.Millisecond, 100*time.Millisecond
			result, err := Drive([]net.Conn{serveTCP(t)}, p)
			if err != nil {
				t.Fatal(err)
			}
			if result.Messages == 0 || result.All < result.Messages || result.Latency.TotalCount() != result.Messages {
				t.Fatalf("messages %d, all %d, recorded %d: every echo is counted once", result.Messages, result.All, result.Latency.TotalCount())
			}
		})
	}
}

func TestManyConnectionsShareOneMeasurement(t *testing.T) {
	for name, p := range map[string]Params{
		"one in flight on each":   {Size: 64, Inflight: 1},
		"several on each":         {Size: 64, Inflight: 8},
		"larger than the buffers": {Size: 128 << 10, Inflight: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var conns []net.Conn
			for range 20 {
				conns = append(conns, serveTCP(t))
			}
			p.Warmup, p.Duration = 10*time.Millisecond, 100*time.Millisecond
			result, err := Drive(conns, p)
			if err != nil {
				t.Fatal(err)
			}
			if result.Messages == 0 || result.All < result.Messages+int64(len(conns)*p.Inflight) || result.Latency.TotalCount() != result.Messages {
				t.Fatalf("messages %d, all %d, recorded %d: every echo is counted once, and those of the first windows are not measured", result.Messages, result.All,
					result.Latency.TotalCount())
			}
		})
	}
}

func TestAConnectionThatFailsEndsTheOthers(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	other, silent := net.Pipe() // its echo never comes
	defer other.Close()
	go io.Copy(io.Discard, silent)
	go func() {
		_, _ = io.ReadFull(far, make([]byte, 64))
		far.Close()
	}()
	_, err := Drive([]net.Conn{other, near}, Params{Size: 64, Inflight: 1, Duration: time.Minute})
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Drive = %v, want what ended the one connection", err)
	}
}

func TestBuffersOfManyConnectionsHoldWhatIsInFlight(t *testing.T) {
	for name, tc := range map[string]struct{ size, inflight, conns, want int }{
		"one connection":  {64, 1, 1, bufferSize},
		"small messages":  {64, 1, 10000, 512},
		"several":         {1024, 8, 10000, 8192},
		"as large as one": {32 << 10, 32, 10000, bufferSize},
	} {
		if got := BufferSize(tc.size, tc.inflight, tc.conns); got != tc.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tc.want)
		}
	}
}

func TestOpenLoopSendsAtItsRateNotAtTheEchoesPace(t *testing.T) {
	result, err := Drive([]net.Conn{serveTCP(t)}, Params{Size: 64, Inflight: 1, Rate: 1000, Duration: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// 300 frames are due; those due just before the end may come back after it.
	if result.All != 300 {
		t.Fatalf("%d frames sent in 300 ms at 1000 a second, want 300", result.All)
	}
}

func TestNoMoreIsInFlightThanAsked(t *testing.T) {
	const size, window = 128 << 10, 3 // larger together than any buffer: a reader beside the writer
	near, far := net.Pipe()
	defer near.Close()
	failed := make(chan error, 1)
	go func() {
		// Nothing is answered before the window is full and a further frame had its chance.
		frames := make([]byte, window*size)
		if _, err := io.ReadFull(far, frames); err != nil {
			failed <- err
			return
		}
		far.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, _ := far.Read(make([]byte, 1)); n > 0 {
			failed <- errors.New("a frame beyond the window")
			near.Close()
			return
		}
		far.SetReadDeadline(time.Time{})
		_, err := far.Write(frames)
		failed <- err
		_ = Serve(far, bufferSize)
	}()
	_, err := Drive([]net.Conn{near}, Params{Size: size, Inflight: window, Duration: 250 * time.Millisecond})
	if failure := <-failed; failure != nil {
		t.Fatal(failure)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheMeasurementBeginsWhenTheWindowHasComeBack(t *testing.T) {
	const size, window, slow = 128 << 10, 4, 300 * time.Millisecond
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		// The first window takes longer than warm-up and measurement together.
		frames := make([]byte, window*size)
		if _, err := io.ReadFull(far, frames); err != nil {
			t.Error(err)
			return
		}
		time.Sleep(slow)
		if _, err := far.Write(frames); err != nil {
			t.Error(err)
			return
		}
		_ = Serve(far, bufferSize)
	}()
	result, err := Drive([]net.Conn{near}, Params{Size: size, Inflight: window, Warmup: 10 * time.Millisecond, Duration: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// The echo that begins the measurement was in flight all the time; those after it were not.
	if result.Messages == 0 || result.All < result.Messages+window {
		t.Errorf("%d echoes measured of %d, want all but the first %d and those after the end", result.Messages, result.All, window)
	}
	if first := time.Duration(result.Latency.Min()); first > slow {
		t.Errorf("no echo took less than %v: the measurement lies before the first ones", first)
	}
}

func TestForeignPeerIsRefusedWithTheBound(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go near.Write([]byte("GET / HTTP/1.1\r\n"))
	err := Serve(far, bufferSize)
	if err == nil || !strings.Contains(err.Error(), "a frame is 8 to 8388608 bytes") {
		t.Fatalf("Serve = %v, want the bound of a frame", err)
	}
}

func TestDriveRefusesBadParams(t *testing.T) {
	for _, p := range []Params{{Size: 7, Inflight: 1}, {Size: MaxSize + 1, Inflight: 1}, {Size: 64}} {
		if _, err := Drive([]net.Conn{nil}, p); err == nil {
			t.Errorf("Drive(%+v) was accepted", p)
		}
	}
}
