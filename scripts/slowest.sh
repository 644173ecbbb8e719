#!/usr/bin/env bash
# The ten slowest tests of the logs in a folder: libtest's with --report-time, Go's with -json.
set -euo pipefail
python3 - "$1" <<'PY'
import glob, json, re, sys
rows = []
for path in glob.glob(sys.argv[1] + "/*.log"):
    program = ""
    for line in open(path, errors="replace"):
        if m := re.search(r"Running (\S+(?: \S+)?) \(", line):
            program = m[1]
        elif m := re.search(r"^test (.+) \.\.\. ok <([0-9.]+)s>", line):
            rows.append((float(m[2]), f"{program} {m[1]}"))
for path in glob.glob(sys.argv[1] + "/*.json"):
    for line in open(path):
        event = json.loads(line)
        if event.get("Action") == "pass" and "Test" in event:
            rows.append((event["Elapsed"], f"{event['Package']} {event['Test']}"))
print("ten slowest tests:")
for seconds, name in sorted(rows, reverse=True)[:10]:
    print(f"{seconds:8.2f} s  {name}")
PY
