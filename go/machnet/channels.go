package machnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"
)

// The channels of a stack: who attaches another, when, and when one is given back.

// The pauses between attempts to attach again.
const (
	firstPause   = 10 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

const (
	// A stack of several channels looks so often for one that is empty.
	lookEach = time.Second
	// One that was empty at so many looks in a row is given back.
	emptyLooks = 3
	// For so long no other channel is asked for after the sidecar has refused one.
	refusedFor = 100 * time.Millisecond
	// A listening stack whose sidecar refuses another channel asks again after so long, and then each time after twice as long.
	askAgain        = time.Second
	longestAskAgain = 32 * time.Second
)

// refusedChannel is the sidecar's last refusal to give another channel.
type refusedChannel struct {
	err   error
	until time.Time // whoever wants one before gets the same answer
}

// counts are what has happened to a stack.
type counts struct{ attached, restarts, returned, refused uint64 }

// StackStats is the state of a stack at one moment, and what has happened to it since it was made.
type StackStats struct {
	Channels     int    // attached now; 0 while there is no sidecar
	Connections  int    // open, accepted ones that Accept has not returned yet included
	Dials        int    // under way
	Listeners    int    // open
	Free         int    // connections that the channels attached now have room for
	Attached     uint64 // channels attached, the first one included
	Returned     uint64 // of them, those that went back to the sidecar because they were empty
	Restarts     uint64 // times that the stack had lost its sidecar and was attached again
	Refused      uint64 // times that the sidecar refused another channel
	ChannelLimit bool   // the last time that another channel was wanted, the sidecar refused it
}

// Stats is the state of the stack. It asks the sidecar nothing.
func (s *Stack) Stats() StackStats {
	s.mu.Lock()
	stats := StackStats{
		Listeners: len(s.listeners), Attached: s.counts.attached, Returned: s.counts.returned, Restarts: s.counts.restarts,
		Refused: s.counts.refused, ChannelLimit: s.refusal.err != nil,
	}
	channels := s.channels
	s.mu.Unlock()
	for _, at := range channels {
		at.mu.Lock()
		if at.err == nil {
			stats.Channels++
			stats.Connections += len(at.conns)
			stats.Dials += len(at.dials) + at.begun
			if !at.leaving {
				stats.Free += max(0, at.capacity-at.used())
			}
		}
		at.mu.Unlock()
	}
	return stats
}

// all is the stack's channels, or why it has ended.
func (s *Stack) all() ([]*attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels, s.err
}

// some is a channel of the stack that a listener can begin at; nil: there is none.
func (s *Stack) some() (*attachment, error) {
	channels, err := s.all()
	for _, at := range channels {
		at.mu.Lock()
		ok := at.err == nil && !at.leaving
		at.mu.Unlock()
		if ok {
			return at, nil
		}
	}
	return nil, err
}

// current is a channel of the stack, attached if there is none.
func (s *Stack) current(ctx context.Context) (*attachment, error) {
	for {
		at, err := s.some()
		if at != nil || err != nil {
			return at, err
		}
		if err := s.grow(ctx, func() bool { at, err := s.some(); return at != nil || err != nil }); err != nil {
			return nil, err
		}
	}
}

// takePlace takes a place for a dial at the first channel that has one, and attaches another if none has. The caller must dial there.
func (s *Stack) takePlace(ctx context.Context) (*attachment, error) {
	var taken *attachment
	take := func() bool {
		channels, err := s.all()
		now := time.Now()
		for _, at := range channels {
			if at.take(now) {
				taken = at
				s.onTaken()
				return true
			}
		}
		return err != nil
	}
	for !take() {
		if err := s.grow(ctx, take); err != nil {
			return nil, err
		}
		if taken != nil {
			break
		}
	}
	if taken == nil {
		return nil, s.Err()
	}
	return taken, nil
}

// grow attaches another channel, unless enough says that it is not needed any more when it is this goroutine's turn.
func (s *Stack) grow(ctx context.Context, enough func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return s.waitError(contextError(ctx))
	}
	if enough() {
		return nil
	}
	s.mu.Lock()
	refusal := s.refusal
	s.mu.Unlock()
	if refusal.err != nil && time.Now().Before(refusal.until) {
		return refusal.err
	}
	next, err := s.source.attach(ctx, s)
	if err != nil {
		if ctx.Err() != nil {
			return s.waitError(err)
		}
		return s.notAttached(err)
	}
	return s.add(ctx, next)
}

// notAttached is the error of an attempt to attach another channel.
func (s *Stack) notAttached(err error) error {
	if at, _ := s.some(); at == nil || !errors.Is(err, syscall.ENOBUFS) {
		return &downError{err}
	}
	s.mu.Lock()
	first := s.refusal.err == nil
	s.refusal = refusedChannel{err, time.Now().Add(refusedFor)}
	s.counts.refused++
	s.mu.Unlock()
	if first && s.log != nil {
		s.log.Warn("machnet: the sidecar refuses another channel", "sidecar", s.source.name, "reason", err)
	}
	return err
}

// add has the stack use another channel, and its listeners listen there.
func (s *Stack) add(ctx context.Context, next *attachment) error {
	s.mu.Lock()
	if s.err != nil {
		err := s.err
		s.mu.Unlock()
		next.close()
		return err
	}
	alone := !slices.ContainsFunc(s.channels, func(at *attachment) bool { return at.usable() == nil })
	s.channels = append(slices.Clip(slices.Clone(s.channels)), next)
	s.address, s.refusal = next.addr(), refusedChannel{}
	s.counts.attached++
	if alone {
		s.counts.restarts++
	}
	listeners := make([]*Listener, 0, len(s.listeners))
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	s.mu.Unlock()
	if alone {
		s.logAttached("attached again", next)
	} else {
		s.logAttached("attached another channel", next)
	}
	s.poke()
	// Listening may wait for room, and for longer than this caller wants to.
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for _, l := range listeners {
			l.follow(next)
		}
	}()
	select {
	case <-followed:
		return nil
	case <-ctx.Done():
		return s.waitError(contextError(ctx))
	}
}

// followAll has listeners that the end of a channel has left without a place listen at the others, if there are any: those that would not
// before, because it was there.
func (s *Stack) followAll() {
	at, _ := s.some()
	if at == nil {
		return
	}
	s.mu.Lock()
	listeners := slices.Collect(maps.Keys(s.listeners))
	s.mu.Unlock()
	for _, l := range listeners {
		l.follow(at)
	}
}

// waitError is the error of a wait that a context has ended: the stack's, where it ended because the stack has.
func (s *Stack) waitError(err error) error {
	if s.closing.Err() != nil {
		return s.Err()
	}
	return err
}

// claim has a listener own a port. The sidecar lets all listeners of a stack share ports, since it cannot know which of them are one at
// several channels, so that their conflicts are found here.
func (s *Stack) claim(l *Listener, port uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	owners := slices.DeleteFunc(s.ports[port], func(other *Listener) bool { return other == l || other.over() })
	if slices.ContainsFunc(owners, func(other *Listener) bool { return !l.reusePort || !other.reusePort }) {
		s.ports[port] = owners
		return errTaken
	}
	l.port, s.ports[port] = port, append(owners, l)
	return nil
}

// enlist has a listener, which listens at one channel, listen at all that there are and that come.
func (s *Stack) enlist(l *Listener) {
	s.mu.Lock()
	if s.err == nil {
		s.listeners[l] = struct{}{}
	}
	channels := s.channels
	s.mu.Unlock()
	for _, at := range channels {
		l.follow(at)
	}
	s.poke()
}

// delist forgets a listener, and its port is free.
func (s *Stack) delist(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	owners := slices.DeleteFunc(s.ports[l.port], func(other *Listener) bool { return other == l })
	if len(owners) > 0 {
		s.ports[l.port] = owners
	} else {
		delete(s.ports, l.port)
	}
}

func (s *Stack) endListeners(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		l.end(err)
	}
}

// poke has the keeper look at the stack.
func (s *Stack) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// onTaken is called for each connection that a listener gets, and for each place that a dial takes.
func (s *Stack) onTaken() {
	if s.spare.Add(-1) < 0 {
		s.poke()
	}
}

// keep attaches again whenever the sidecar has ended, has room for what the listeners may get, and gives back what is empty, until the
// stack ends.
func (s *Stack) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := time.Duration(0) // before the next attempt to attach again
	var refused refusals
	looked := time.Now()
	for {
		select {
		case <-s.changed:
		case <-timer.C:
		case <-s.closing.Done():
			return
		}
		ended := s.sweep()
		if ended != nil {
			s.followAll()
		}
		if at, _ := s.some(); at == nil {
			if ended != nil && time.Since(ended.since) > longestPause {
				pause = 0 // not after a shorter time: a sidecar that ends each attachment at once would be asked without a pause
			}
			if !s.attachAgain(&pause) {
				return
			}
		}
		wait := s.makeRoom(&refused)
		if channels, _ := s.all(); len(channels) > 1 {
			if time.Since(looked) >= lookEach {
				looked = time.Now()
				s.giveBack(channels)
			}
			wait = min(wait, lookEach)
		}
		timer.Reset(wait)
	}
}

// attachAgain attaches until there is a channel. False: there will be none, and the stack has ended.
func (s *Stack) attachAgain(pause *time.Duration) bool {
	for {
		select {
		// At random, so that the programs of one machine, which all saw the sidecar end, do not all attach in the same moment.
		case <-time.After(*pause/2 + rand.N(*pause/2+1)):
		case <-s.closing.Done():
			return false
		}
		*pause = min(max(2**pause, firstPause), longestPause)
		_, err := s.current(s.closing)
		switch {
		case err == nil:
			return true
		case errors.Is(err, net.ErrClosed):
			s.end(err) // unless the stack is closed already, the source is
			return false
		case errors.Is(err, ErrVersion) || errors.Is(err, syscall.EINVAL):
			s.endListeners(err) // a sidecar of that version, or without that engine, will never take this program
		}
	}
}

// sweep gives back the channels that have ended, and those that are empty after they were left. It returns one of the former.
func (s *Stack) sweep() (ended *attachment) {
	channels, _ := s.all()
	lost := 0
	for _, at := range channels {
		err := at.usable()
		if err == nil && !at.left() {
			continue
		}
		s.mu.Lock()
		s.channels = slices.DeleteFunc(slices.Clone(s.channels), func(other *attachment) bool { return other == at })
		if err == nil {
			s.counts.returned++
		}
		s.mu.Unlock()
		at.detach()
		if err == nil {
			s.logDebug("a channel went back to the sidecar, empty", at)
			continue
		}
		ended = at
		lost++
	}
	if ended != nil {
		s.logLost(ended, lost)
	}
	return ended
}

// makeRoom attaches another channel when the listeners may get more connections than there is room for. It returns after how long it should be
// called again in any case.
func (s *Stack) makeRoom(refused *refusals) time.Duration {
	const noNeed = 1 << 40
	wanted := s.wanted()
	if wanted == 0 {
		s.spare.Store(noNeed)
		return time.Hour
	}
	room := 0
	channels, _ := s.all()
	for _, at := range channels {
		room += at.room()
	}
	s.spare.Store(int64(room - wanted))
	if room >= wanted {
		*refused = refusals{}
		return time.Hour
	}
	if wait := time.Until(refused.askAt); wait > 0 {
		s.spare.Store(noNeed) // the next look is a matter of time
		return wait
	}
	before := len(channels)
	err := s.grow(s.closing, func() bool { now, err := s.all(); return len(now) != before || err != nil })
	if err != nil {
		refused.pause = min(max(2*refused.pause, askAgain), longestAskAgain)
		refused.askAt = time.Now().Add(refused.pause)
		s.spare.Store(noNeed)
		return refused.pause
	}
	return firstPause // and look whether that was enough
}

// refusals are those that the keeper has met in a row when the listeners needed room.
type refusals struct {
	pause time.Duration
	askAt time.Time // not before
}

// wanted is how many connections a listening stack has room for at least: as many as the largest of its listeners may get while
// nobody accepts, but no more than half a channel has.
func (s *Stack) wanted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.channels) == 0 {
		return 0
	}
	wanted := 0
	for l := range s.listeners {
		if l.over() {
			delete(s.listeners, l)
			continue
		}
		wanted = max(wanted, l.backlog)
	}
	return min(wanted, max(1, s.channels[0].capacity/2))
}

// giveBack leaves the last of the channels that have been empty for some time, unless there would be little room without it.
func (s *Stack) giveBack(channels []*attachment) {
	room := 0
	for _, at := range channels {
		room += at.room()
		at.mu.Lock()
		if at.used() > 0 {
			at.empty = 0
		} else {
			at.empty++
		}
		at.mu.Unlock()
	}
	for _, at := range slices.Backward(channels[1:]) {
		at.mu.Lock()
		due := at.empty >= emptyLooks && !at.leaving && at.err == nil
		capacity := at.capacity
		at.mu.Unlock()
		// More than makeRoom asks for, so that nothing goes back and forth.
		if due && room-capacity >= capacity*3/4 && at.leave() {
			room -= capacity
		}
	}
	s.poke()
}

func (s *Stack) logAttached(what string, at *attachment) {
	if s.log != nil {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, "machnet: "+what, slog.String("sidecar", s.source.name),
			slog.Any("address", at.addr()), slog.Uint64("engine", uint64(at.ch.Info().Engine)))
	}
}

func (s *Stack) logDebug(what string, at *attachment) {
	if s.log != nil {
		s.log.Debug("machnet: "+what, "sidecar", s.source.name, "engine", at.ch.Info().Engine)
	}
}

func (s *Stack) logLost(at *attachment, lost int) {
	if s.log == nil || s.closing.Err() != nil {
		return
	}
	reason := fmt.Sprint(at.usable())
	if left, _ := s.some(); left != nil {
		s.log.Warn("machnet: the sidecar has ended some of the channels", "sidecar", s.source.name, "channels", lost, "reason", reason)
		return
	}
	s.log.Warn("machnet: the sidecar has ended; attaching again", "sidecar", s.source.name, "reason", reason)
}
