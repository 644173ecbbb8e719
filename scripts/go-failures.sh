#!/usr/bin/env bash
# Prints what the failed tests and packages of a `go test -json` log said.
set -euo pipefail
python3 - "$1" <<'PY'
import collections, json, sys
said, failed = collections.defaultdict(list), []
for line in open(sys.argv[1]):
    try:
        event = json.loads(line)
    except ValueError:
        print(line, end="")
        continue
    key = (event.get("Package", event.get("ImportPath", "").split(" ")[0]), event.get("Test", ""))
    if event["Action"] in ("output", "build-output"):
        said[key].append(event["Output"])
    elif event["Action"] in ("fail", "build-fail"):
        failed.append(key)
for key in failed:
    print("FAIL", *key)
    print("".join(said[key]), end="")
PY
