package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// simArgs are what machnet-sim's figure "path" takes for a row, to send so many bytes. False: it has nothing of the kind.
func (p namedPath) simArgs(bytes int64) ([]string, bool) {
	if p.messages > 0 { // it sends one way only
		return nil, false
	}
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	us := func(d time.Duration) string { return number(float64(d) / float64(time.Microsecond)) }
	args := []string{
		"path", "--delay", us(p.path.Delay), "--jitter", us(p.path.Jitter), "--tick", us(p.path.Tick), "--loss", number(100 * p.path.Loss), "--copies", number(100 * p.path.Copies),
		"--mtu", strconv.Itoa(pathMTU), "--units", strconv.Itoa(p.units), "--bytes", strconv.FormatInt(bytes, 10), "--seed", "1",
	}
	if p.kernel {
		args = append(args, "--relay", "0")
	}
	if p.shared {
		args = append(args, "--host-cores", "shared")
	}
	if p.echo {
		args = append(args, "--echo")
	}
	return args, true
}

// leastSimulated is what the simulator sends at least, bytes: less would measure how a stream begins.
const leastSimulated = 8 << 20

// simulate has machnet-sim send over a path what Machnet sent in a measurement, and returns MB/s, or nil where it cannot.
func simulate(ctx context.Context, p namedPath, sent float64) (*float64, error) {
	args, can := p.simArgs(max(leastSimulated, int64(sent)))
	if !can {
		return nil, nil
	}
	program, err := programBeside("machnet-sim")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "machnet-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "rows")
	args = append(args, "--json", file)
	said, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(said)))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rows []struct {
		Goodput float64 `json:"goodput_mb_s"`
	}
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) != 1 || rows[0].Goodput <= 0 {
		return nil, errors.Join(fmt.Errorf("%s wrote %d rows; are both programs of the same version?", program, len(rows)), err)
	}
	return &rows[0].Goodput, nil
}
