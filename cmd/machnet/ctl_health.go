package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/machnet/machnet/go/control"
)

// healthLine asks, and writes one line if all is well; else the line is the error.
func healthLine(ctx context.Context, a asked, out io.Writer) error {
	health, err := control.Health(ctx, a.socket)
	if err != nil {
		return err
	}
	if err := wrong(health, a); err != nil {
		return err
	}
	states := make([]string, len(health.Engines))
	for i, e := range health.Engines {
		states[i] = fmt.Sprintf("engine %d %s", e.Engine, printable(e.State))
	}
	_, err = fmt.Fprintf(out, "healthy: %s, NIC %s %s\n", strings.Join(states, ", "), printable(health.NIC.Driver), printable(health.NIC.State))
	return err
}

// unhealthy is what healthLine says, of a document.
func unhealthy(document json.RawMessage, a asked) error {
	var health control.HealthState
	if err := json.Unmarshal(document, &health); err != nil {
		return fmt.Errorf("%w: %w", control.ErrAnswer, err)
	}
	return wrong(&health, a)
}

// wrong is what is wrong with a sidecar; nil if nothing is.
func wrong(health *control.HealthState, a asked) error {
	if health.Healthy && (!a.ready || health.NIC.State == "up") {
		return nil
	}
	if health.Healthy {
		return fmt.Errorf("machnetd at %s is not ready; its NIC, %s, is %s; see its log", control.Socket(a.socket), printable(health.NIC.Driver), printable(health.NIC.State))
	}
	text := "machnetd at " + control.Socket(a.socket) + " is not healthy"
	for _, e := range health.Engines {
		if e.State == "stalled" {
			text += fmt.Sprintf("; engine %d has not moved for %v", e.Engine, time.Duration(e.Late).Round(time.Millisecond))
		}
	}
	return errors.New(text + "; restart it, or give its engines cores of their own where others leave them none")
}
