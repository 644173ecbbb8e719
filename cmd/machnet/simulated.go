package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// simulator is the program that measures in virtual time.
const simulator = "machnet-sim"

// simulated has the program machnet-sim beside this one measure a figure in virtual time, and returns its rows.
func simulated[Row any](ctx context.Context, args ...string) ([]Row, error) {
	program, err := programBeside(simulator)
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
	var rows []Row
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) == 0 {
		return nil, errors.Join(fmt.Errorf("%s wrote %d rows; are both programs of the same version?", program, len(rows)), err)
	}
	return rows, nil
}
