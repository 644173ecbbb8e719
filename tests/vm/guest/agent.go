package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/machnet/machnet/tests/vm/order"
)

// runAgent runs commands that come over the virtio-serial port "agent", each beside the others, and ends when the port does.
func runAgent([]string) error {
	port, err := openPort("agent")
	if err != nil {
		return err
	}
	defer port.Close()
	var turn sync.Mutex // a line at a time
	answer := func(r order.Result) error {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		turn.Lock()
		defer turn.Unlock()
		_, err = port.Write(append(line, '\n'))
		return err
	}
	if err := answer(order.Result{ID: order.Hello}); err != nil {
		return err
	}
	lines := bufio.NewReader(port)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var o order.Order
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		go func() { _ = answer(obey(o)) }()
	}
}

// openPort opens the port that the host has given this name.
func openPort(name string) (*os.File, error) {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, file := range files {
		if is, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(is)) == name {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %q in %q", name, files)
}

// obey runs one command. What it prints goes to a file and not through a pipe, so that it ends when the shell does, though programs that it left in the
// background still have their output open.
func obey(o order.Order) order.Result {
	failed := func(err error) order.Result { return order.Result{ID: o.ID, Output: []byte(err.Error()), Code: 127} }
	out, err := os.CreateTemp("", "out")
	if err != nil {
		return failed(err)
	}
	defer out.Close()
	_ = os.Remove(out.Name())
	cmd := exec.Command("/bin/sh", "-c", o.Command)
	cmd.Env = append(os.Environ(), "PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(o.Input), out, out
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return failed(err)
	}
	code := cmd.ProcessState.ExitCode()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return failed(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		return failed(err)
	}
	return order.Result{ID: o.ID, Output: text, Code: code}
}
