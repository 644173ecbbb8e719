package main

import (
	"fmt"
	"strings"
)

// page is a manual page in the making, in man(7).
type page struct {
	strings.Builder
	begun bool // the section has text already
}

func newPage(name, section, date, version, what string) *page {
	p := &page{}
	fmt.Fprintf(p, ".TH %s %s %s \"Machnet %s\"\n", strings.ToUpper(name), section, date, version)
	p.section("NAME")
	fmt.Fprintf(p, "%s \\- %s\n", roff(name), roff(what))
	return p
}

func (p *page) section(name string) {
	fmt.Fprintf(p, ".SH %s\n", strings.ToUpper(name))
	p.begun = false
}

// text is a paragraph; the first of a section needs no request for that.
func (p *page) text(text string) {
	if p.begun {
		p.WriteString(".PP\n")
	}
	p.begun = true
	p.WriteString(roff(text) + "\n")
}

// item is what something is called, how that is filled in, and what it means.
func (p *page) item(name, form, text string) {
	p.begun = true
	p.WriteString(".TP\n\\fB" + roff(name) + "\\fR")
	if form != "" {
		p.WriteString(" \\fI" + roff(form) + "\\fR")
	}
	p.WriteString("\n" + roff(text) + "\n")
}

// roff has text mean itself, in lines of any length and without one that begins like a request.
func roff(text string) string {
	text = strings.NewReplacer("\\", "\\e", "-", "\\-", "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = "\\&" + text
	}
	return text
}

// sentence makes one of a line of help. A program's name, and a value that begins a list, are written as one types them.
func sentence(text, value string) string {
	first, _, _ := strings.Cut(text, " ")
	if !strings.HasPrefix(first, "machnet") && !strings.HasSuffix(first, ":") && !strings.HasSuffix(first, ",") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	if value != "" {
		text += " (default " + value + ")"
	}
	return text + "."
}

func daemonPage(d sidecar, date string) string {
	p := newPage("machnetd", "8", date, d.Version, "the Machnet sidecar")
	p.section("synopsis")
	p.WriteString(".B machnetd\n[\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fIflags\\fR]\n")
	p.section("description")
	p.text("machnetd owns a NIC, or a queue of one, and serves the applications of its host over shared memory: a userspace network stack as a process of its own. " +
		"It is told what to do by a file (machnetd.toml(5)) and by flags, which win over it. All settings are checked before anything starts.")
	p.section("options")
	for _, f := range d.Flags {
		p.item(f.Flag, f.Form, sentence(f.Help, ""))
	}
	p.text("Every setting of machnetd.toml(5) has a flag:")
	for _, s := range d.Settings {
		p.item(s.Flag, s.Form, sentence(s.Help, s.Default))
	}
	p.section("signals")
	p.item("SIGINT, SIGTERM", "", "End in good order: what applications have sent is delivered within timeouts.linger_ms. A second one does not wait for that.")
	p.item("SIGHUP", "", "Read the settings again; those that cannot change while engines run are named in the log.")
	p.item("SIGUSR1", "", "Write the counters to the log.")
	p.section("exit status")
	for _, code := range [][2]string{
		{"0", "It ended when told to, or --check found nothing that cannot work."},
		{"1", "Standard output was refused."},
		{"2", "A setting is wrong."},
		{"3", "The NIC was refused."},
		{"4", "The control socket was refused, or the listener of metrics."},
		{"5", "An engine could not start."},
		{"101", "A fault of machnetd itself."},
	} {
		p.item(code[0], "", code[1])
	}
	p.section("environment")
	p.item("NOTIFY_SOCKET, WATCHDOG_USEC", "", "As set by a service manager: it is told when applications can attach, when settings are read again, and, while all engines are alive, that they are.")
	p.section("files")
	p.item("/etc/machnet/machnetd.toml", "", "The settings of the service machnetd.service.")
	p.item("/run/machnet/machnet.sock", "", "Where applications attach, unless control.socket says otherwise.")
	p.section("see also")
	p.WriteString("machnetd.toml(5), machnet(1)\n")
	return p.String()
}

func settingsPage(d sidecar, date string) string {
	p := newPage("machnetd.toml", "5", date, d.Version, "settings of the Machnet sidecar")
	p.section("description")
	p.text("A file in TOML. A setting stands under its section; those that are left out have their defaults. A name that is not known is refused. " +
		"`machnetd --check --config FILE` says whether a file is good and whether this machine can do what it asks for.")
	section := ""
	for _, s := range d.Settings {
		if s.Section != section {
			section = s.Section
			fmt.Fprintf(p, ".SH \"[%s]\"\n", section)
		}
		p.item(s.Name, "= "+form(s), sentence(s.Help, s.Default)+" Flag: "+s.Flag+".")
	}
	p.section("example")
	p.WriteString(".nf\n[host]\nip = \"10.0.0.1/24\"\ngateway = \"10.0.0.254\"\n\n[nic]\npci = \"0000:00:06.0\"\n\n[engines]\ncores = [2, 3]\n.fi\n")
	p.section("see also")
	p.WriteString("machnetd(8), machnet(1)\n")
	return p.String()
}

// form is how a value stands in the file.
func form(s setting) string {
	switch s.Kind {
	case "number":
		return s.Form
	case "switch":
		return "true or false"
	case "numbers":
		return "[N, N...]"
	case "words":
		return "[\"" + s.Form + "\", ...]"
	case "pairs":
		name, value, _ := strings.Cut(s.Form, "=")
		return "{ \"" + name + "\" = \"" + value + "\", ... }"
	}
	return "\"" + s.Form + "\""
}

func commandsPage(c command, version, date string) string {
	p := newPage(c.Name, "1", date, version, c.Summary)
	p.section("synopsis")
	p.WriteString(".B machnet\n\\fICOMMAND\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n")
	p.section("commands")
	for _, sub := range c.Commands {
		p.command(c.Name, sub)
	}
	p.section("exit status")
	p.item("0", "", "Done.")
	p.item("1", "", "It failed; the reason is on standard error.")
	p.item("2", "", "The command line is wrong.")
	p.item("130", "", "It was interrupted.")
	p.section("environment")
	p.item("MACHNET_SOCKET", "", "The sidecar's control socket, where no flag names it.")
	p.section("see also")
	p.WriteString("machnetd(8), machnetd.toml(5)\n")
	return p.String()
}

// command is a subsection for a command, and one for each of its own.
func (p *page) command(of string, c command) {
	name := of + " " + c.Name
	fmt.Fprintf(p, ".SS %q\n", roff(strings.TrimSpace(name+" "+c.Positional)))
	p.WriteString(roff(sentence(c.Summary, "")) + "\n")
	for _, f := range c.Flags {
		p.item(f.spelled(), f.Value, sentence(f.Help, f.Default))
	}
	for _, sub := range c.Commands {
		p.command(name, sub)
	}
}
