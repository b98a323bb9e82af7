# lib.sh - helpers of the command-line tests; to be sourced by bash, from the project root.
# shellcheck shell=bash
#
# A test prints "ok NAME", "not ok NAME" (and what was found) or "skip NAME (reason)", and ends with finish, which prints the
# counts and exits with 1 if anything failed. BUILD says where the programs are; default build/release.
# shellcheck disable=SC2034 # names for the tests

set -u
export LC_ALL=C
unset CPACK_THREADS POSIXLY_CORRECT

BUILD=$(cd "${BUILD:-build/release}" 2>/dev/null && pwd) || { echo "no folder ${BUILD:-build/release}; build first" >&2; exit 1; }
ROOT=$(pwd)
DATA=$ROOT/../shared/data
PYTHON=/usr/bin/python3
CPACK=$BUILD/cpack
CVERIFY=$BUILD/cverify
CRUN=$BUILD/crun

passed=0
failed=0
skipped=0
code=0
WORK=$(mktemp -d) || exit 1
trap 'chmod -R u+w "$WORK" 2>/dev/null; rm -rf "$WORK"' EXIT

ok() { passed=$((passed + 1)); echo "ok $1"; }
not_ok() { failed=$((failed + 1)); echo "not ok $1"; shift; printf '    %s\n' "$@"; }
skip() { skipped=$((skipped + 1)); echo "skip $1 ($2)"; }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" -eq 0 ]; exit; }

# run COMMAND...: leaves its exit code in $code, its outputs in $WORK/stdout and $WORK/stderr.
run() {
    "$@" >"$WORK/stdout" 2>"$WORK/stderr" </dev/null
    code=$?
}

# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1
    shift
    if "$@" >"$WORK/check" 2>&1; then ok "$name"; else not_ok "$name" "failed: $*" "$(head -c 600 "$WORK/check")"; fi
}

# expect NAME CODE COMMAND...: the command must exit with that code, and never say a sanitizer's word.
expect() {
    local name=$1 expected=$2
    shift 2
    run "$@"
    if [ "$code" -eq "$expected" ] && ! grep -qE 'Sanitizer|runtime error' "$WORK/stderr"; then
        ok "$name"
    else
        not_ok "$name" "exit code $code, expected $expected: $*" "$(head -c 600 "$WORK/stderr")"
    fi
}

# has_gpu: whether --device cuda works here. Exit code 11 says that there is no GPU or no support for one.
has_gpu() {
    "$CVERIFY" --device cuda "$ROOT/fixtures/good-smallest.cllm" >/dev/null 2>&1
    [ $? -ne 11 ]
}

# says NAME PATTERN FILE: what the last command left must match the extended regular expression.
says() {
    if grep -qE -- "$2" "$WORK/$3"; then ok "$1"; else not_ok "$1" "no $2 in $3:" "$(head -c 600 "$WORK/$3")"; fi
}

# is_empty NAME DIRECTORY: without hidden entries either.
is_empty() {
    local left
    left=$(ls -A "$2")
    if [ -z "$left" ]; then ok "$1"; else not_ok "$1" "found $left"; fi
}

# safetensors FILE [NAME:DTYPE:SHAPE]...: a checkpoint with reproducible content, SHAPE as 16x32, empty for a scalar. Floats are
# Gaussian, so that they compress as weights do.
safetensors() {
    $PYTHON - "$@" <<'PYTHON'
import json, random, struct, sys
random.seed(len(sys.argv))
bits = {"BF16": 16, "F16": 16, "F32": 32, "F64": 64, "I8": 8, "U8": 8, "BOOL": 8, "I32": 32, "I64": 64, "F8_E4M3": 8}
header, data = {}, bytearray()
for spec in sys.argv[2:]:
    name, dtype, shape = spec.rsplit(":", 2)
    shape = [int(n) for n in shape.split("x")] if shape else []
    count = 1
    for n in shape:
        count *= n
    begin = len(data)
    if dtype == "BF16":
        for _ in range(count):
            data += struct.pack("<f", random.gauss(0, 0.02))[2:]
    elif dtype == "F32":
        for _ in range(count):
            data += struct.pack("<f", random.gauss(0, 0.02))
    else:
        data += random.randbytes(count * bits[dtype] // 8)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<Q", len(text)) + text + data)
PYTHON
}

# is_json NAME FILE [EXPRESSION]: every line of what the last command left is JSON, and the Python expression over `d`, the last
# line, holds.
is_json() {
    if $PYTHON -c '
import json, sys
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
d = [json.loads(line) for line in lines][-1]
assert eval(sys.argv[2]), d' "$WORK/$2" "${3:-True}" 2>"$WORK/check"; then
        ok "$1"
    else
        not_ok "$1" "not so: ${3:-is JSON}" "$(head -c 300 "$WORK/$2")" "$(tail -n 1 "$WORK/check" | head -c 300)"
    fi
}

# listing DIRECTORY: names and digests of all files below, to compare directories.
listing() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum); }
