package setup

import (
	"fmt"
	"path/filepath"
	"strings"
)

// dropIn is read by systemd as part of machnetd.service.
const dropIn = "/etc/systemd/system/machnetd.service.d/setup.conf"

// atBoot adds the step that has the service do the setup before it starts machnetd, if that is asked for: drivers, addresses and huge
// pages are as they were after a reboot. What is in force already is not done again.
func (p *Plan) atBoot(o Options) error {
	path := o.Root.Path(dropIn)
	for _, s := range p.Steps {
		if strings.Contains(s.Undo, quote(path)) {
			return nil
		}
	}
	if o.AtBoot == "" {
		return nil
	}
	if exists(path) {
		return fmt.Errorf("%s is there and is not by `machnet setup`; move it away first", dropIn)
	}
	options := p.Options
	if o.Sure {
		options += " --cut-off " + o.CutOff + " --yes-cut-me-off"
	}
	for _, word := range append(strings.Fields(options), o.AtBoot, o.Config, o.State) {
		if !plain.MatchString(word) || strings.Contains(word, "%") {
			return fmt.Errorf("--at-boot: systemd would read %q otherwise than it stands there; use names of letters, digits and _./:@+=,- alone", word)
		}
	}
	// + runs it as root and outside of the service's sandbox.
	file := fmt.Sprintf("# By `machnet setup --at-boot`; `machnet setup --undo` takes it away.\n[Service]\nExecStartPre=+%s setup %s --state %s\n", o.AtBoot, options, o.State)
	reload := "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi"
	folder := filepath.Dir(path)
	p.Steps = append(p.Steps, Step{
		Why:   "have machnetd.service do this at each start",
		Done:  document("cmp -s "+quote(path)+" -", file),
		Do:    lines("mkdir -p "+quote(folder), document("cat > "+quote(path), file), reload),
		Lasts: true,
		Undo:  lines("rm -f "+quote(path), fmt.Sprintf("rmdir %s 2>/dev/null || :", quote(folder)), reload),
	})
	return nil
}
