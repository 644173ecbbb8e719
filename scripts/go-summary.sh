#!/usr/bin/env bash
# Counts the results in `go test -json` logs, and prints each skip with its reason, so that none goes unseen.
set -euo pipefail
python3 - "$@" <<'PY'
import collections, json, sys
count, said = collections.Counter(), collections.defaultdict(list)
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
                print("skipped", *key, "".join(said[key]).strip().replace("\n", " | "))
print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
PY
