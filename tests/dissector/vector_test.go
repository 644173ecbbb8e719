package dissector

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vector is a golden frame, and what its comments say of the fields of its Machnet packet.
type vector struct {
	name  string
	frame []byte
	want  fields // nil: it carries no Machnet packet
}

// fields are values by name, in the order of the packet. Numbers are decimal, bytes hexadecimal.
type fields map[string][]string

func (f fields) add(name string, value any) { f[name] = append(f[name], fmt.Sprint(value)) }

var flagNames = []string{"BEGIN", "END", "ABORT", "FIN", "ECHO", "REFUSED", "PROBE", "DRAIN_EPOCH", "REPORT", "HIT", "RANGES", "SEALED", "PART", "HELLO"}

// What a comment says, by section: the fields that the bytes of its line are, in order, and where it has a submatch the number that each
// must be.
var meanings = map[string][]struct {
	comment *regexp.Regexp
	names   []string
}{
	"machnet": {
		{regexp.MustCompile(`^source port (\d+)$`), []string{"src_port"}},
		{regexp.MustCompile(`^destination port (\d+)$`), []string{"dst_port"}},
		{regexp.MustCompile(`^tag \(the receiver's\)$`), []string{"tag"}},
		{regexp.MustCompile(`^unit (\d+)$`), []string{"unit"}},
		{regexp.MustCompile(`^tx (\d+)$`), []string{"tx"}},
		{regexp.MustCompile(`^ack (\d+)$`), []string{"ack"}},
		{regexp.MustCompile(`^ack_tx (\d+)$`), []string{"ack_tx"}},
		{regexp.MustCompile(`^credit (\d+)$`), []string{"credit"}},
		{regexp.MustCompile(`^backlog (\d+)$`), []string{"backlog"}},
		{regexp.MustCompile(`^want (\d+)$`), []string{"want"}},
		{regexp.MustCompile(`^ts (\d+)$`), []string{"ts"}},
		{regexp.MustCompile(`^ts_echo (\d+)$`), []string{"ts_echo"}},
		{regexp.MustCompile(`^ack_delay (\d+)`), []string{"ack_delay"}},
		{regexp.MustCompile(`^gap (\d+)`), []string{"gap"}},
		{regexp.MustCompile(`^message_len (\d+)$`), []string{"message_len"}},
		{regexp.MustCompile(`^path word: source port (\d+), destination port (\d+): queue (\d+)$`), []string{"hit.src", "hit.dst", "hit.queue", "hit.reserved"}},
		{regexp.MustCompile(`^part word: offset (\d+) of a unit of (\d+)$`), []string{"part.offset", "part.unit_len", "part.reserved"}},
	},
	"hello": {
		{regexp.MustCompile(`^tag \(the sender's own\)$`), []string{"hello.tag"}},
		{regexp.MustCompile(`^epoch$`), []string{"hello.epoch"}},
		{regexp.MustCompile(`^mtu (\d+)$`), []string{"hello.mtu"}},
		{regexp.MustCompile(`^queues (\d+)$`), []string{"hello.queues"}},
		{regexp.MustCompile(`^queue (\d+)$`), []string{"hello.queue"}},
		{regexp.MustCompile(`^hit source port (\d+)$`), []string{"hello.hit.src"}},
		{regexp.MustCompile(`^hit destination port (\d+)$`), []string{"hello.hit.dst"}},
		{regexp.MustCompile(`^hit queue (\d+)$`), []string{"hello.hit.queue"}},
		{regexp.MustCompile(`^steering port (\d+)(?:: none)?$`), []string{"hello.steer"}},
		{regexp.MustCompile(`^seal (\d+)$`), []string{"hello.seal"}},
		{regexp.MustCompile(`^lanes (\d+)$`), []string{"hello.lanes"}},
		{regexp.MustCompile(`^reserved$`), []string{"hello.reserved"}},
		{regexp.MustCompile(`^cookie`), []string{"hello.cookie"}},
	},
	"reset": {
		{regexp.MustCompile(`^epoch$`), []string{"reset.epoch"}},
		{regexp.MustCompile(`^echo`), []string{"reset.echo"}},
		{regexp.MustCompile(`^reason: `), []string{"reset.reason"}},
		{regexp.MustCompile(`^limit(?: (\d+)|: none)$`), []string{"reset.limit"}},
	},
	"paths": {
		{regexp.MustCompile(`^source port (\d+), destination port (\d+): queue (\d+)$`), []string{"paths.src", "paths.dst", "paths.queue"}},
	},
}

var (
	versionAndKind = regexp.MustCompile(`^version (\d+), kind (0x[0-9a-f]): `)
	laneAndWords   = regexp.MustCompile(`^lane (\d+), sack words (\d+)$`)
	flagList       = regexp.MustCompile(`^flags: (.*)$`)
	sackWord       = regexp.MustCompile(`^sack word \d+: (units|ranges) (.*)$`)
	blob           = regexp.MustCompile(`^(payload|padding|seal), (\d+) bytes`)
)

// size is how many bytes each of the fields of one line has.
func size(names []string, bytes int) []int {
	switch names[0] {
	case "hit.src":
		return []int{2, 2, 2, 2}
	case "part.offset":
		return []int{2, 2, 4}
	case "paths.src":
		return []int{2, 2, 2}
	}
	return []int{bytes}
}

// readVectors reads all golden frames.
func readVectors(t *testing.T) []vector {
	t.Helper()
	paths, err := filepath.Glob("../vectors/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	var all []vector
	for _, path := range paths {
		all = append(all, readVector(t, path))
	}
	return all
}

func readVector(t *testing.T, path string) vector {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	reader := reader{fields: fields{}}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		digits, comment, _ := strings.Cut(line, "#")
		bytes, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(digits), " ", ""))
		if err != nil {
			t.Fatalf("%s:%d: %v", path, i+1, err)
		}
		v.frame = append(v.frame, bytes...)
		if err := reader.line(bytes, strings.TrimSpace(comment)); err != nil {
			t.Fatalf("%s:%d: %v", path, i+1, err)
		}
	}
	if reader.machnet {
		v.want = reader.finish()
	}
	return v
}

// reader makes fields of the lines of a vector.
type reader struct {
	fields  fields
	section string
	machnet bool
	blob    string   // what the bytes of the lines that follow belong to
	bytes   []byte   // those so far
	arrived []uint64 // units that SACK words name, a range of one or more as first and last
}

func (r *reader) line(bytes []byte, comment string) error {
	if len(bytes) == 0 {
		r.section = comment
		return nil
	}
	switch r.section {
	case "machnet":
		r.machnet = true
	case "hello", "reset", "paths":
	default:
		return nil // another protocol's
	}
	if comment == "..." && r.blob != "" {
		r.bytes = append(r.bytes, bytes...)
		return nil
	}
	r.endBlob()
	if m := blob.FindStringSubmatch(comment); m != nil {
		r.blob, r.bytes = m[1], slices.Clone(bytes)
		return nil
	}
	if m := versionAndKind.FindStringSubmatch(comment); m != nil {
		kind, err := strconv.ParseUint(m[2], 0, 8)
		r.fields.add("version", m[1])
		r.fields.add("kind", kind)
		return err
	}
	if m := laneAndWords.FindStringSubmatch(comment); m != nil {
		r.fields.add("lane", m[1])
		r.fields.add("sack_words", m[2])
		return nil
	}
	if m := flagList.FindStringSubmatch(comment); m != nil {
		return r.flags(bytes, m[1])
	}
	if m := sackWord.FindStringSubmatch(comment); m != nil {
		r.fields.add("sack.word", binary.BigEndian.Uint64(bytes))
		return r.sack(m[1], m[2])
	}
	for _, meaning := range meanings[r.section] {
		if m := meaning.comment.FindStringSubmatch(comment); m != nil {
			return r.numbers(meaning.names, bytes, m[1:])
		}
	}
	return fmt.Errorf("no field is known for %q in section %q", comment, r.section)
}

// numbers takes the fields of a line, each against the number that the comment says.
func (r *reader) numbers(names []string, bytes []byte, said []string) error {
	for i, n := range size(names, len(bytes)) {
		if len(bytes) < n {
			return fmt.Errorf("%v has %d bytes too few", names, n-len(bytes))
		}
		value := uint64(0)
		for _, b := range bytes[:n] {
			value = value<<8 | uint64(b)
		}
		bytes = bytes[n:]
		if i < len(said) && said[i] != "" && said[i] != fmt.Sprint(value) {
			return fmt.Errorf("%s is %d, and the comment says %s", names[i], value, said[i])
		}
		r.fields.add(names[i], value)
		// The largest stands for anything longer.
		if (names[i] == "ack_delay" || names[i] == "gap") && value != 65535 {
			r.fields.add(names[i]+"_ns", value*64)
		}
	}
	return nil
}

func (r *reader) flags(bytes []byte, list string) error {
	prefix, names := "flags", flagNames
	if r.section == "hello" {
		prefix, names = "hello.flags", []string{"MIRRORED", "PARTS"}
	} else {
		r.fields.add("flags.reserved", 0)
	}
	r.fields.add(prefix, binary.BigEndian.Uint16(bytes))
	set := strings.Fields(strings.TrimSuffix(list, "none"))
	for _, name := range set {
		if !slices.Contains(names, name) {
			return fmt.Errorf("no flag is called %s", name)
		}
	}
	for _, name := range names {
		value := 0
		if slices.Contains(set, name) {
			value = 1
		}
		r.fields.add(prefix+"."+strings.ToLower(name), value)
	}
	return nil
}

// sack takes "1003 1066" or "1 to 3, 8 to 8, none".
func (r *reader) sack(form, list string) error {
	for _, item := range regexp.MustCompile(`\d+(?: to \d+)?|none`).FindAllString(list, -1) {
		if item == "none" {
			continue
		}
		first, last, isRange := strings.Cut(item, " to ")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || isRange != (form == "ranges") {
			return fmt.Errorf("%q names no units", list)
		}
		// Bits next to each other are one range.
		if n := len(r.arrived); !isRange && n > 0 && r.arrived[n-1]+1 == from {
			r.arrived[n-1] = to
		} else {
			r.arrived = append(r.arrived, from, to)
		}
	}
	return nil
}

func (r *reader) endBlob() {
	if r.blob != "" {
		r.fields.add(r.blob, hex.EncodeToString(r.bytes))
	}
	r.blob, r.bytes = "", nil
}

func (r *reader) finish() fields {
	r.endBlob()
	for i := 0; i < len(r.arrived); i += 2 {
		r.fields.add("sack.first", r.arrived[i])
		r.fields.add("sack.last", r.arrived[i+1])
	}
	if offset, ok := r.fields["part.offset"]; ok {
		at, _ := strconv.Atoi(offset[0])
		last := 0
		if fmt.Sprint(at+len(r.fields["payload"][0])/2) == r.fields["part.unit_len"][0] {
			last = 1
		}
		r.fields.add("part.last", last)
	}
	return r.fields
}
