#!/bin/bash
# test_cverify_gpu.sh - cverify and cpack -d on a GPU say of every fixture what they say on the CPU. Run from the project root;
# BUILD=build/release. Everything is skipped where there is no GPU.
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh
cd "$ROOT" || exit 1

run "$CVERIFY" --device cuda fixtures/good-smallest.cllm
if [ "$code" -eq 11 ]; then
    reason="no GPU: $(sed 's/^cverify: //' "$WORK/stderr" | head -c 100)"
    for name in "the same verdicts as on the CPU" "restoring" "choice of the device"; do skip "$name" "$reason"; done
    finish
fi
check "a GPU verifies" test "$code" = 0

# --------------------------------------------------------------------------------------------------------------- verdicts

# The SHA-256 of files is recomputed on the CPU alone, as the report says.
"$CVERIFY" --json --device cpu fixtures/*.cllm >"$WORK/cpu.json" 2>"$WORK/cpu.err"
cpu_code=$?
expect "all fixtures: the CPU's exit code" "$cpu_code" "$CVERIFY" --json --device cuda fixtures/*.cllm
check "all fixtures: the CPU's verdicts, digests, counts and messages" $PYTHON - "$WORK/cpu.json" "$WORK/stdout" <<'PYTHON'
import json, sys
cpu, gpu = ([json.loads(line) for line in open(name, encoding="utf-8")][-1]["containers"] for name in sys.argv[1:])
assert [c["name"] for c in cpu] == [c["name"] for c in gpu] and len(cpu) > 100
for a, b in zip(cpu, gpu):
    errors = [e for e in a.get("errors", []) if "has SHA-256" not in e["message"]]
    aside = {"files_rehashed", "gpu_bytes"}
    if len(errors) < len(a.get("errors", [])):
        aside |= {"ok", "files", "error_count"}
    assert [e for e in b.get("errors", []) if "has SHA-256" not in e["message"]] == errors, (a, b)
    for key in {"chunks", "decoded_bytes", "stored_bytes"}: # what several files share is read again for each that is rehashed
        assert (key in b) == (key in a) and b.get(key, 0) <= a.get(key, 0), (key, a, b)
        aside.add(key)
    for key in a.keys() - aside - {"errors"}:
        assert a[key] == b.get(key), (key, a, b)
assert sum(c.get("gpu_bytes", 0) for c in gpu) > 0 and sum(c.get("gpu_bytes", 0) for c in cpu) == 0
PYTHON
for fixture in fixtures/bad-content-float.cllm fixtures/bad-float-border.cllm fixtures/bad-chunk-checksum.cllm; do
    run "$CVERIFY" --device cpu "$fixture"
    cpu_code=$code
    cp "$WORK/stderr" "$WORK/cpu.err"
    expect "$fixture: the CPU's exit code" "$cpu_code" "$CVERIFY" --device cuda "$fixture"
    check "$fixture: the CPU's message" cmp "$WORK/cpu.err" "$WORK/stderr"
done

# -------------------------------------------------------------------------------------------------------------- restoring

mkdir "$WORK/ckpt"
safetensors "$WORK/ckpt/model.safetensors" w:BF16:700x64 v:F32:5000 m:BOOL:33 e:F16:0 z:I64:9000
echo '{"model_type":"llama"}' >"$WORK/ckpt/config.json"
check "a checkpoint packs" "$CPACK" -q "$WORK/ckpt" -o "$WORK/a.cllm"
expect "it verifies" 0 "$CVERIFY" --device cuda "$WORK/a.cllm"
says "and the counts say what was on the GPU" 'of them on .*, the SHA-256 of [0-9]+ files recorded, not recomputed' stdout
expect "it is restored" 0 "$CPACK" -d --device cuda "$WORK/a.cllm" -o "$WORK/out"
check "to the same files" diff -r "$WORK/ckpt" "$WORK/out"
expect "it is tested" 0 "$CPACK" -t --device cuda "$WORK/a.cllm"
expect "damage is not restored" 4 "$CPACK" -d --device cuda fixtures/bad-content-float.cllm -o "$WORK/bad.out"
check "and nothing is left" test ! -e "$WORK/bad.out"

# ----------------------------------------------------------------------------------------------------------------- device

expect "cuda:0 is the default device" 0 "$CVERIFY" --device cuda:0 "$WORK/a.cllm"
expect "a GPU that is not there" 11 "$CVERIFY" --device cuda:99 "$WORK/a.cllm"
says "is named" 'there is no GPU number 99' stderr
expect "auto takes the CPU for what is small" 0 "$CVERIFY" --json --device auto "$WORK/a.cllm"
is_json "and says so" stdout "d['containers'][0]['gpu_bytes']==0"
finish
