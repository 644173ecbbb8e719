package relay

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// lane is one direction of a relay. take gives it a frame, poll asks for those that are due, next says when to ask again; time is an argument
// everywhere, in nanoseconds of any clock that only grows, so a test can run hours of it at once.
type lane struct {
	path Path
	dice *rand.Rand

	queue queue    // frames that leave in the order in which they came
	late  []*frame // held back; few
	spare []*frame // to be used again
	taken int64    // frames that were given an order

	lineFree int64 // when the line has sent everything it was given
	lastLeft int64 // the order of the last frame that poll gave from the queue

	arrived, passed, bytes, lost, copied, overtaken, tooLong, told, full, noRoom, missed atomic.Int64
}

// frame is one on its way.
type frame struct {
	bytes []byte
	leave int64
	order int64 // of arrival
	held  bool
}

func newLane(p Path, seed, direction uint64) *lane {
	return &lane{path: p, dice: rand.New(rand.NewPCG(seed, direction))}
}

// take decides what becomes of a frame that arrives now. It keeps a copy: the bytes are the caller's again. What it returns is to be sent back the
// way that the frame came, or nil.
func (l *lane) take(now int64, bytes []byte) (answer []byte) {
	l.arrived.Add(1)
	if l.path.MTU > 0 && len(bytes) > ethernetHeader+l.path.MTU {
		l.tooLong.Add(1)
		if answer = fragmentationNeeded(bytes, l.path.Router, l.path.MTU); answer != nil {
			l.told.Add(1)
		}
		return answer
	}
	l.send(now, bytes)
	if l.chance(l.path.Copies) {
		l.copied.Add(1)
		l.send(now, bytes)
	}
	return nil
}

// send puts one copy on its way.
func (l *lane) send(now int64, bytes []byte) {
	leave := now
	if l.path.Rate > 0 {
		var room bool
		if leave, room = l.keepRate(now, len(bytes)); !room {
			l.full.Add(1)
			return
		}
	}
	if l.chance(l.path.Loss) { // what is lost took its time on the line
		l.lost.Add(1)
		return
	}
	if l.queue.len()+len(l.late) >= mostFrames {
		l.full.Add(1)
		return
	}
	leave += int64(l.path.Delay)
	if l.path.Jitter > 0 {
		leave += l.dice.Int64N(int64(l.path.Jitter) + 1)
	}
	f := l.newFrame(bytes)
	l.taken++
	f.order = l.taken
	if f.held = l.chance(l.path.Reorder); f.held {
		f.leave = l.tick(leave + 1 + l.dice.Int64N(int64(l.path.ReorderBy)))
		l.late = append(l.late, f)
		return
	}
	f.leave = l.tick(leave) // and not before those in the queue
	l.queue.push(f)
}

// tick is the first multiple of the path's ticks at or after a time.
func (l *lane) tick(at int64) int64 {
	every := int64(l.path.Tick)
	if every == 0 {
		return at
	}
	return (at + every - 1) / every * every
}

// keepRate says when a frame's last bit has left the line, and whether there is room for it until then. The line is a token bucket, told by the time
// at which it will have sent everything: the bucket holds what it could have sent since (generic cell rate algorithm).
func (l *lane) keepRate(now int64, bytes int) (leave int64, room bool) {
	const second = int64(time.Second)
	bits := func(n int) int64 { return int64(float64(n) * 8 * float64(second) / float64(l.path.Rate)) }
	start := max(now-bits(l.path.Burst), l.lineFree)
	if waiting := start - now; waiting > 0 && float64(waiting)*float64(l.path.Rate)/8/float64(second)+float64(bytes) > float64(l.path.Buffer) {
		return 0, false
	}
	l.lineFree = start + bits(bytes+gaps)
	return max(now, l.lineFree), true
}

// poll gives the next frame that leaves at now or before, or nil. It is the caller's until done.
func (l *lane) poll(now int64) *frame {
	f := l.queue.first()
	at := -1 // in late, or the queue's
	for i, h := range l.late {
		if f == nil || h.leave < f.leave {
			f, at = h, i
		}
	}
	if f == nil || f.leave > now {
		return nil
	}
	if at < 0 {
		l.queue.pop()
		l.lastLeft = f.order
	} else {
		l.late[at] = l.late[len(l.late)-1]
		l.late = l.late[:len(l.late)-1]
	}
	return f
}

// done takes a frame back that has been given to the device, or for which that had no room.
func (l *lane) done(f *frame, sent bool) {
	if sent {
		l.passed.Add(1)
		l.bytes.Add(int64(len(f.bytes)))
	} else {
		l.noRoom.Add(1)
	}
	if l.lastLeft > f.order { // only one that was held back
		l.overtaken.Add(1)
	}
	l.spare = append(l.spare, f)
}

// next is when poll will have a frame.
func (l *lane) next() (at int64, ok bool) {
	if f := l.queue.first(); f != nil {
		at, ok = f.leave, true
	}
	for _, f := range l.late {
		if !ok || f.leave < at {
			at, ok = f.leave, true
		}
	}
	return at, ok
}

func (l *lane) counts() Counts {
	return Counts{
		Arrived: l.arrived.Load(), Passed: l.passed.Load(), Bytes: l.bytes.Load(), Lost: l.lost.Load(), Copied: l.copied.Load(), Overtaken: l.overtaken.Load(),
		TooLong: l.tooLong.Load(), Told: l.told.Load(), Full: l.full.Load(), NoRoom: l.noRoom.Load(), Missed: l.missed.Load(),
	}
}

// chance draws only where something may come of it, so that a path's other dice fall as they would without it.
func (l *lane) chance(share float64) bool { return share > 0 && l.dice.Float64() < share }

func (l *lane) newFrame(bytes []byte) *frame {
	var f *frame
	if n := len(l.spare); n > 0 {
		f, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		f = &frame{bytes: make([]byte, 0, usualFrame)}
	}
	f.bytes = append(f.bytes[:0], bytes...)
	return f
}

// queue is a ring that grows.
type queue struct {
	ring        []*frame // as long as a power of two
	head, count int
}

func (q *queue) len() int { return q.count }

func (q *queue) first() *frame {
	if q.count == 0 {
		return nil
	}
	return q.ring[q.head]
}

func (q *queue) pop() {
	q.ring[q.head] = nil
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.count--
}

func (q *queue) push(f *frame) {
	if q.count == len(q.ring) {
		larger := make([]*frame, max(64, 2*len(q.ring)))
		for i := range q.count {
			larger[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = larger, 0
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = f
	q.count++
}

const (
	ethernetHeader = 14
	// gaps is what Ethernet adds to a frame on the wire beside its header: preamble, checksum, and the gap to the next one, bytes.
	gaps       = 24
	usualFrame = 2048
	// mostFrames bounds the memory of a path without a rate: 100 ms at 5 Gb/s are 41 000 frames.
	mostFrames = 1 << 17
)
