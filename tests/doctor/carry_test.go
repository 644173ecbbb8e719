package doctor

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// carry passes frames in user space, both ways, each as a function has it: the kernel can drop frames, and neither delay nor mix them up. The
// function is called by one goroutine for each way, and keeps the frame.
func (w *wire) carry(t *testing.T, each func(frame []byte, send func([]byte))) {
	t.Helper()
	var ends [2]*os.File
	must(t, w.middle.Do(func() (err error) {
		if ends[0], err = packetSocket("a"); err == nil {
			ends[1], err = packetSocket("b")
		}
		return err
	}))
	var running sync.WaitGroup
	for i, from := range ends {
		to := ends[1-i]
		running.Go(func() {
			for {
				frame := make([]byte, 2048)
				n, err := from.Read(frame)
				if err != nil {
					return // closed
				}
				each(frame[:n], func(frame []byte) { _, _ = to.Write(frame) })
			}
		})
	}
	w.stop = func() {
		for _, end := range ends {
			_ = end.Close()
		}
		running.Wait()
	}
}

// late holds every fourth frame until the next one has passed.
func late() func(frame []byte, send func([]byte)) {
	var mu sync.Mutex
	var held []byte
	n := 0
	return func(frame []byte, send func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%4 == 0 && held == nil {
			held = frame
			return
		}
		send(frame)
		if held != nil {
			send(held)
			held = nil
		}
	}
}

func packetSocket(device string) (*os.File, error) {
	const everyProtocol = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "packet socket on "+device)
	request, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyProtocol & 0xffff, Ifindex: int(request.Uint32())})
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
