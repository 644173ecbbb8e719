// Package dissector holds docs/machnet.lua, which shows Machnet's packets in Wireshark, against the golden vectors.
package dissector

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const script = "../../docs/machnet.lua"

func TestEveryFieldOfEveryVectorIsShown(t *testing.T) {
	vectors := readVectors(t)
	var frames [][]byte
	for _, v := range vectors {
		frames = append(frames, v.frame)
	}
	shown, known := dissect(t, frames), names(t)
	for i, v := range vectors {
		if v.want == nil {
			if shown[i] != nil {
				t.Errorf("%s carries no Machnet packet and is shown as one", v.name)
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(merged(v.want, shown[i]))) {
			if got, want := shown[i][name], v.want[name]; !slices.Equal(got, want) {
				t.Errorf("%s: machnet.%s is shown as %v, and is %v", v.name, name, got, want)
			}
		}
		for name := range v.want {
			delete(known, name)
		}
	}
	delete(known, "malformed")
	if len(known) > 0 {
		t.Errorf("no vector has %v", slices.Sorted(maps.Keys(known)))
	}
}

// What a receiver refuses is marked with its own words (rust/wire/tests/refusals.rs).
func TestWhatAReceiverRefusesIsMarked(t *testing.T) {
	const machnet, body = 42, 42 + 48
	type change struct {
		vector string
		at     int
		bytes  []byte
		want   string
	}
	changes := []change{
		{"ping", machnet, []byte{0x25}, "machnet version"},
		{"ping", machnet, []byte{0x30}, "machnet kind"},
		{"ping", machnet, []byte{0x38}, "machnet kind"},
		{"ping", machnet + 1, []byte{0x01}, "machnet sack words"},
		{"ping", machnet + 1, []byte{0x11}, "machnet sack words"},
		{"ping", machnet + 2, []byte{0x40}, "machnet flags"},
		{"ping", machnet + 2, []byte{0x80}, "machnet flags"},
		{"ping", machnet + 2, []byte{0x10}, "machnet flags"},
		{"ping", machnet + 2, []byte{0x20}, "machnet flags"},
		{"ping", machnet + 2, []byte{0x02}, "machnet path word"},
		{"ping", machnet + 2, []byte{0x04}, "machnet sack ranges"},
		{"ping", machnet + 2, []byte{0x08}, "machnet seal"},
		{"ping", machnet + 3, []byte{0x01}, "machnet unit flags"},
		{"ping", machnet + 47, []byte{1}, "machnet message length"},
		{"data_empty", machnet + 2, []byte{0x10}, "machnet part word"},
		{"data_empty", machnet + 2, []byte{0x20}, "machnet flags"},
		{"data_whole", machnet + 3, []byte{3 | 8}, "machnet unit flags"},
		{"data_whole", machnet + 3, []byte{8}, "machnet unit flags"},
		{"data_whole", machnet + 3, []byte{4}, "machnet unit flags"},
		{"data_whole", machnet + 3, []byte{0}, "machnet message length"},
		{"data_whole", machnet + 3, []byte{1}, "machnet message length"},
		{"fin", machnet + 3, []byte{8 | 4}, "machnet unit flags"},
		{"fin", machnet + 3, []byte{8 | 2}, "machnet unit flags"},
		{"ack_sack", machnet + 2, []byte{0x10}, "machnet flags"},
		{"ack_sack", machnet + 2, []byte{0x20}, "machnet acknowledgement with a payload"},
		{"ack_sack", machnet + 1, []byte{1}, "machnet acknowledgement with a payload"},
		{"ack_hello", machnet + 2, []byte{0}, "machnet acknowledgement with a payload"},
		{"ack_hello", body + 12, []byte{2, 0x3f}, "machnet hello mtu"},
		{"ack_ranges", body + 2, []byte{0, 0}, "machnet sack ranges"},
		{"ack_ranges", body + 4, []byte{0, 11, 0, 1}, "machnet sack ranges"},
		{"ack_ranges", body + 4, []byte{0x40, 0, 0, 1}, "machnet sack ranges"},
		{"syn", machnet + 1, []byte{0x20}, "machnet lane"},
		{"syn", machnet + 2, []byte{0x02}, "machnet flags"},
		{"syn_ack", machnet + 2, []byte{0x08}, "machnet flags"},
		{"syn", body + 12, []byte{2, 0x3f}, "machnet hello mtu"},
		{"syn", body + 12, []byte{0x23, 0x2a}, "machnet hello mtu"},
		{"syn", body + 17, []byte{4}, "machnet hello queue"},
		{"syn", body + 23, []byte{4}, "machnet hello hit queue"},
		{"syn", body + 26, []byte{8}, "machnet hello seal"},
		{"syn", body + 27, []byte{0}, "machnet hello lanes"},
		{"syn", body + 27, []byte{9}, "machnet hello lanes"},
		{"syn", body + 28, []byte{0, 4}, "machnet hello flags"},
		{"syn", body + 28, []byte{0x80, 0}, "machnet hello flags"},
		{"syn", body + 31, []byte{1}, "machnet hello reserved"},
		{"rst_refused", machnet + 1, []byte{0xe0}, "machnet lane"},
		{"rst_refused", machnet + 2, []byte{0x20}, "machnet flags"},
		{"rst_refused", body + 12, []byte{0}, "machnet reset reason"},
		{"rst_refused", body + 12, []byte{12}, "machnet reset reason"},
		{"rst_refused", body + 15, []byte{1}, "machnet reset limit"},
		{"rst_full", body + 12, []byte{11}, "machnet reset limit"},
		{"data_hit", body + 7, []byte{1}, "machnet path word reserved"},
		{"data_part_last", body + 7, []byte{1}, "machnet part reserved"},
		{"data_part_last", body, []byte{5, 0x88}, "machnet part"},
		{"data_part_last", body + 2, []byte{0, 9}, "machnet part"},
		{"data_part_first", machnet + 46, []byte{5, 0x90}, "machnet message length"},
		{"data_sealed", machnet + 47, []byte{22}, "machnet message length"},
	}
	golden := map[string][]byte{}
	for _, v := range readVectors(t) {
		golden[v.name] = v.frame
	}
	var frames [][]byte
	var want []string
	for _, c := range changes {
		frame := slices.Clone(golden[c.vector])
		if len(frame) < c.at+len(c.bytes) {
			t.Fatalf("%s has no byte %d", c.vector, c.at)
		}
		copy(frame[c.at:], c.bytes)
		frames, want = append(frames, frame), append(want, c.want)
	}
	// One byte less than there has to be.
	for _, short := range []struct{ vector, want string }{
		{"ping", "machnet header"},
		{"syn", "machnet hello"},
		{"rst_aborted", "machnet reset"},
		{"paths", "machnet paths length"},
		{"data_words", "machnet message length"},
	} {
		frames, want = append(frames, cut(golden[short.vector])), append(want, short.want)
	}
	want[len(want)-1] = "" // its payload is a byte shorter, and the part is not the last any more
	for i, shown := range dissect(t, frames) {
		got := strings.Join(shown["malformed"], "; ")
		if got != want[i] {
			t.Errorf("frame %d of the table is marked as %q, and a receiver refuses it for %q", i+1, got, want[i])
		}
	}
}

// In the list of packets one sees how a connection finds its pairs: by which UDP ports each packet went, and what was said of others.
func TestAListOfPacketsShowsWherePairsLead(t *testing.T) {
	want := map[string]string{
		"syn":         "by 40001>31580 wants queue 2 of 4",
		"syn_ack":     "by 40002>31580 wants queue 1 of 2 answers 40001>31580@1",
		"ping_report": "[REPORT] by 40001>31580",
		"paths":       "40001>31580@1 41000>31581@0 65535>1024@3",
		"data_hit":    "hit 40002>31580@2",
	}
	var names []string
	var frames [][]byte
	for _, v := range readVectors(t) {
		if _, ok := want[v.name]; ok {
			names, frames = append(names, v.name), append(frames, v.frame)
		}
	}
	if len(names) != len(want) {
		t.Fatalf("of the vectors there are only %v", names)
	}
	lines := strings.Split(strings.TrimSpace(string(tshark(t, frames, "-T", "fields", "-e", "_ws.col.Info"))), "\n")
	for i, name := range names {
		if !strings.Contains(lines[i], want[name]) {
			t.Errorf("%s is listed as %q, without %q", name, lines[i], want[name])
		}
	}
}

// The filters of docs/wire.md find what they say, and no more: a field alone, without a value, finds whatever has it.
func TestFiltersOfTheDocumentFindWhatTheySay(t *testing.T) {
	document, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	vectors := readVectors(t)
	var frames [][]byte
	for _, v := range vectors {
		frames = append(frames, v.frame)
	}
	for filter, want := range map[string][]string{
		`machnet.kind == "SYN"`:      {"syn", "syn_full"},
		"machnet.flags.report == 1":  {"data_words", "ping_report", "syn_ack_cookie"},
		"machnet.hello.queue == 2":   {"syn"},
		"machnet.sack.first <= 1003": {"ack_sack", "data_with_sack", "data_words"},
		"machnet.malformed":          nil,
	} {
		if !bytes.Contains(document, []byte("`"+filter+"`")) {
			t.Errorf("docs/wire.md has no filter %s", filter)
		}
		var found []string
		for _, number := range strings.Fields(string(tshark(t, frames, "-Y", filter, "-T", "fields", "-e", "frame.number"))) {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, vectors[n-1].name)
		}
		if !slices.Equal(found, want) {
			t.Errorf("%s finds %v, and not %v", filter, found, want)
		}
	}
}

// cut takes the last byte away.
func cut(frame []byte) []byte {
	frame = slices.Clone(frame[:len(frame)-1])
	for _, at := range []int{16, 38} { // the lengths of IP and UDP
		binary.BigEndian.PutUint16(frame[at:], binary.BigEndian.Uint16(frame[at:])-1)
	}
	return frame
}

// names are all fields that the script defines.
func names(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`Proto(?:Field\.\w+|Expert\.new)\("machnet\.([a-z_.]+)",`).FindAllStringSubmatch(string(text), -1) {
		all[m[1]] = true
	}
	for _, name := range flagNames {
		all["flags."+strings.ToLower(name)] = true
	}
	all["hello.flags.mirrored"], all["hello.flags.parts"] = true, true
	if len(all) < 60 {
		t.Fatalf("the script defines only %d fields", len(all))
	}
	return all
}

func merged(a, b fields) fields {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// dissect gives what tshark shows of each frame's Machnet packet; nil: of none.
func dissect(t *testing.T, frames [][]byte) []fields {
	t.Helper()
	return parse(t, tshark(t, frames, "-T", "pdml"), len(frames))
}

// tshark gives what it prints of a capture of these frames.
func tshark(t *testing.T, frames [][]byte, how ...string) []byte {
	t.Helper()
	program, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not on this machine (apt-get install tshark)")
	}
	// Not t.TempDir: that one nobody else can read.
	folder, err := os.MkdirTemp("", "dissector")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	lua, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"machnet.lua": lua, "frames.pcap": pcap(frames)} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(program, append([]string{"-n", "-X", "lua_script:machnet.lua", "-r", "frames.pcap"}, how...)...)
	run.Dir, run.Env = folder, append(os.Environ(), "HOME="+folder, "XDG_CONFIG_HOME="+folder)
	if os.Geteuid() == 0 {
		// As root it may leave the script out, and say nothing.
		run.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var said bytes.Buffer
	run.Stderr = &said
	out, err := run.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, said.String())
	}
	if strings.Contains(said.String(), "Lua") || bytes.Contains(out, []byte("Lua Error")) {
		t.Fatalf("the script fails: %s%s", said.String(), regexp.MustCompile(`Lua Error[^"]*`).Find(out))
	}
	return out
}

// parse reads tshark's XML.
func parse(t *testing.T, text []byte, frames int) []fields {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(text))
	var all []fields
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		attribute := map[string]string{}
		for _, a := range element.Attr {
			attribute[a.Name.Local] = a.Value
		}
		name, isOurs := strings.CutPrefix(attribute["name"], "machnet.")
		switch {
		case element.Name.Local == "packet":
			all = append(all, nil)
		case element.Name.Local == "proto" && attribute["name"] == "machnet" && all[len(all)-1] == nil:
			all[len(all)-1] = fields{}
		case element.Name.Local == "field" && isOurs:
			all[len(all)-1].add(name, value(name, attribute["show"], attribute["showname"]))
		}
	}
	if len(all) != frames {
		t.Fatalf("tshark shows %d of %d frames", len(all), frames)
	}
	return all
}

// value is a field's value as a vector has it.
func value(name, show, showname string) string {
	if name == "malformed" {
		return strings.TrimPrefix(showname, "Malformed: ")
	}
	if n, err := strconv.ParseUint(show, 0, 64); err == nil && !slices.Contains([]string{"payload", "padding", "seal"}, name) {
		return fmt.Sprint(n)
	}
	return strings.ReplaceAll(show, ":", "")
}

// pcap is a capture file with these frames.
func pcap(frames [][]byte) []byte {
	const magic, version, snapLen, ethernet = 0xa1b2c3d4, 2<<16 | 4, 65535, 1
	file := binary.LittleEndian.AppendUint32(nil, magic)
	file = binary.LittleEndian.AppendUint16(file, version>>16)
	file = binary.LittleEndian.AppendUint16(file, version&0xffff)
	for _, word := range []uint32{0, 0, snapLen, ethernet} {
		file = binary.LittleEndian.AppendUint32(file, word)
	}
	for i, frame := range frames {
		for _, word := range []int{i, 0, len(frame), len(frame)} {
			file = binary.LittleEndian.AppendUint32(file, uint32(word))
		}
		file = append(file, frame...)
	}
	return file
}
