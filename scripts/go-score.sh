#!/usr/bin/env bash
# go-score.sh NAME LOG: of a `go test -json` log the skipped tests, a line for each reason, and at last `NAME: passed/all`; its status is 1 unless those are equal.
# Counted are tests that have no parts. One that is skipped has not passed, unless its reason begins with "not chosen", which is no test of this run, or
# with "not tried: this kernel", for what it lacks: that has its line, and is not counted.
set -euo pipefail
python3 - "$@" <<'PY'
import collections, json, re, sys
name, path = sys.argv[1:]
said, result, broken, begun, ended = collections.defaultdict(list), {}, [], [], set()
for line in open(path):
    try:
        event = json.loads(line)
    except ValueError:
        continue
    key = (event.get("Package", event.get("ImportPath", "")), event.get("Test", ""))
    if event["Action"] in ("start", "run"):
        begun.append(key)
    elif event["Action"] == "output":
        said[key].append(event["Output"])
    elif event["Action"] in ("pass", "fail", "skip"):
        ended.add(key)
        if key[1]:
            result[key] = event["Action"]
        elif event["Action"] == "fail":
            broken.append(key[0])
    elif event["Action"] == "build-fail":
        broken.append(key[0])
for key in begun: # a log that breaks off is of a `go test` that was killed
    if key not in ended:
        print(f"{' '.join(key).strip()} began, and how it ended is not in {path}")
        if key[1]:
            result[key] = "fail"
        else:
            broken.append(key[0])
parents = {(package, test.rsplit("/", 1)[0]) for package, test in result if "/" in test}
passed = counted = 0
skipped = collections.defaultdict(list)
for key, action in result.items():
    if key in parents and action != "fail":
        continue
    if action == "skip":
        reason = [line.strip() for line in said[key] if not line.strip().startswith(("=== ", "--- "))][-1:]
        reason = re.sub(r"^\S+\.go:\d+: ", "", "".join(reason))
        if reason.startswith("not chosen"):
            continue
        skipped[reason].append(key[1])
        if reason.startswith("not tried: this kernel"):
            continue
    if key in parents and any(other[1].startswith(key[1] + "/") and result[other] == "fail" for other in result):
        continue
    counted += 1
    passed += action == "pass"
for reason, tests in skipped.items():
    print(f"skipped {len(tests)}: {reason} ({', '.join(tests)})")
for package in broken:
    if not any(key[0] == package and action == "fail" for key, action in result.items()):
        counted += 1
        print(f"{package} failed outside of its tests")
print(f"{name}: {passed}/{counted}")
sys.exit(passed != counted or counted == 0)
PY
