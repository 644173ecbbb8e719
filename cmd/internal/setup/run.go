package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Pending are the steps that are left to do. Nothing is changed.
func (p *Plan) Pending(ctx context.Context) []Step {
	var left []Step
	for _, s := range p.Steps {
		if !s.done(ctx) {
			left = append(left, s)
		}
	}
	return left
}

func (s Step) done(ctx context.Context) bool { return s.Done != "" && run(ctx, s.Done) == nil }

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
	}
	for i, s := range p.Steps {
		if s.done(ctx) {
			// What needs no doing is not undone either, unless we did it once.
			if i >= p.Begun {
				p.Steps[i].Undo = ""
			}
			continue
		}
		p.Begun = max(p.Begun, i+1)
		if err = p.save(p.state); err != nil {
			return errors.Join(err, p.back(out))
		}
		fmt.Fprintln(out, s.Why)
		if err = ctx.Err(); err == nil {
			err = run(ctx, s.Do)
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
	for p.Begun > 0 {
		if s := p.Steps[p.Begun-1]; s.Undo != "" {
			fmt.Fprintf(out, "take back: %s\n", s.Why)
			if err := run(context.Background(), s.Undo); err != nil {
				return fmt.Errorf("take back: %s: %w; mend that and run `machnet setup --undo`, which goes on there", s.Why, err)
			}
		}
		p.Begun--
		if err := p.save(p.state); err != nil {
			return err
		}
	}
	return p.forget(p.state)
}

// Earlier is the plan that the state file has; nil where nothing is set up.
func Earlier(state string) (*Plan, error) {
	j, err := load(state)
	if err != nil || j == nil {
		return nil, err
	}
	return &Plan{journal: *j, state: state}, nil
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
		all = append(all, p.Steps[i])
	}
	return all
}

// NIC is the first of the names of what is set up.
func (p *Plan) NIC() string { return p.Words[0] }

// Is says whether the NIC may be called so.
func (p *Plan) Is(nic string) bool { return slices.Contains(p.Words, nic) }
