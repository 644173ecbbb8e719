package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/machnet/machnet/cmd/internal/machine"
)

// Pending are the steps that are left to do. Nothing is changed.
func (p *Plan) Pending(ctx context.Context) []Step {
	var left []Step
	for i, s := range p.Steps {
		if !p.done(ctx, i) {
			left = append(left, s)
		}
	}
	return left
}

// done says whether a step is in force.
func (p *Plan) done(ctx context.Context, i int) bool {
	question := p.Steps[i].Done
	// The last that was begun may have come halfway.
	if kept := p.Steps[i].Kept; kept != "" && (p.Whole || i+1 < p.Begun) {
		question = kept
	}
	if question == "" {
		return false
	}
	_, err := run(ctx, question)
	return err == nil
}

// undone says whether a step is to be taken back.
func (p *Plan) undone(s Step) bool { return s.Undo != "" && (s.Lasts || s.Boot == p.boot) }

// Apply does what is left to do, and says so, a line for each step. When one fails, or the context ends, all that was done is taken back.
func (p *Plan) Apply(ctx context.Context, out io.Writer) error {
	release, made, err := hold(p.state)
	if err != nil {
		return err
	}
	defer release()
	if p.Begun == 0 {
		if exists(p.state) {
			return fmt.Errorf("%s has come into being meanwhile: another `machnet setup` was at work; start again", p.state)
		}
		p.Folders = made
		// Also that nothing is done yet is written down: the folders are made.
		if err := p.save(p.state); err != nil {
			return errors.Join(err, p.forget(p.state))
		}
	}
	for i, s := range p.Steps {
		if p.done(ctx, i) {
			// What needs no doing is not undone either, unless we did it once.
			if i >= p.Begun {
				p.Steps[i].Undo = ""
			}
			continue
		}
		begun := p.Begun
		p.Begun, p.Steps[i].Boot = max(p.Begun, i+1), p.boot
		if err = p.save(p.state); err != nil {
			p.Begun, p.Steps[i].Boot = begun, s.Boot // it was not begun
			return errors.Join(err, p.back(out))
		}
		fmt.Fprintln(out, s.Why)
		if err = ctx.Err(); err == nil {
			_, err = run(ctx, s.Do)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s.Why, err)
			if back := p.back(out); back != nil {
				return errors.Join(err, back)
			}
			return fmt.Errorf("%w; what was done before is taken back", err)
		}
	}
	p.Begun, p.Whole = len(p.Steps), true
	return p.save(p.state)
}

// back undoes what was begun, last first. Nobody interrupts it. Where a step cannot be undone it stops there; the state file says how far it came.
func (p *Plan) back(out io.Writer) error {
	p.Whole = false
	var unsaved error
	for p.Begun > 0 {
		if s := p.Steps[p.Begun-1]; p.undone(s) {
			fmt.Fprintf(out, "take back: %s\n", s.Why)
			said, err := run(context.Background(), s.Undo)
			if err != nil {
				return errors.Join(fmt.Errorf("take back: %s: %w; mend that and run `machnet setup --undo`, which goes on there", s.Why, err), unsaved)
			}
			fmt.Fprint(out, said)
		}
		p.Begun--
		// A disk without room does not end this: a record that says more than is left to do has some of it done twice, which harms nothing.
		unsaved = p.save(p.state)
	}
	return p.forget(p.state)
}

// Earlier is the plan that the state file has; nil where nothing is set up.
func Earlier(o Options) (*Plan, error) {
	j, err := load(o.State)
	if err != nil || j == nil {
		return nil, err
	}
	p := &Plan{journal: *j, state: o.State, boot: o.Root.Boot()}
	if !slices.ContainsFunc(p.Undone(), func(s Step) bool { return !s.Lasts }) {
		return p, nil // files alone
	}
	return p, p.recognize(o.Root)
}

// recognize refuses to touch another NIC that has the name by now: after a reboot, or when NICs came and went, names may be others'.
func (p *Plan) recognize(root machine.Root) error {
	n, err := root.ByName(p.NIC())
	if err != nil || p.Is(n.MAC.String()) || n.PCI != "" && p.Is(n.PCI) {
		return nil // it is the one, or there is none, as while a driver hands the device to processes
	}
	return fmt.Errorf("%s was set up, and that is %s; the interface of this name is another NIC by now, with MAC address %s: give the names back first (ip link set dev NAME name %s)",
		p.NIC(), strings.Join(p.Words[1:], ", "), n.MAC, p.NIC())
}

// Undo takes back what was set up.
func (p *Plan) Undo(out io.Writer) error {
	release, _, err := hold(p.state)
	if err != nil {
		return err
	}
	defer release()
	return p.back(out)
}

// Undone are the steps that Undo takes back, in the order in which it does.
func (p *Plan) Undone() []Step {
	var all []Step
	for i := p.Begun - 1; i >= 0; i-- {
		if p.undone(p.Steps[i]) {
			all = append(all, p.Steps[i])
		}
	}
	return all
}

// NIC is the first of the names of what is set up.
func (p *Plan) NIC() string { return p.Words[0] }

// Is says whether the NIC may be called so.
func (p *Plan) Is(nic string) bool { return slices.Contains(p.Words, nic) }
