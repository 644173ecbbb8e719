#!/usr/bin/env bash
# Counts the results in `go test -json` logs, and prints the tests that were skipped, a line for each reason, so that none
# goes unseen.
set -euo pipefail
python3 - "$@" <<'PY'
import collections, json, re, sys
count, said, skipped = collections.Counter(), collections.defaultdict(list), collections.defaultdict(list)
for path in sys.argv[1:]:
    for line in open(path):
        event = json.loads(line)
        if "Test" not in event:
            continue
        key = (event["Package"], event["Test"])
        if event["Action"] == "output":
            said[key].append(event["Output"])
        elif event["Action"] in ("pass", "fail", "skip"):
            count[event["Action"]] += 1
            if event["Action"] == "skip":
                # What was logged before is not the reason.
                reason = [line.strip() for line in said[key] if not line.strip().startswith(("=== ", "--- "))][-1:]
                skipped[re.sub(r"^\S+\.go:\d+: ", "", "".join(reason))].append(key[1])
for reason, tests in skipped.items():
    print(f"skipped {len(tests)}: {reason} ({', '.join(tests)})")
print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
PY
