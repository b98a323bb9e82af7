#!/bin/bash
# test_cverify.sh - what cverify finds, what it says, and that no damage is ever taken for a good container. Run from the project
# root; BUILD=build/release.
# shellcheck disable=SC2016 # scripts for inner shells
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh
cd "$WORK" || exit 1

mkdir ckpt
safetensors ckpt/model.safetensors w:BF16:128x64 v:F32:700 m:BOOL:33 e:F16:0
echo '{"model_type":"llama"}' >ckpt/config.json
"$CPACK" -q ckpt -o a.cllm || { echo "cannot pack" >&2; exit 1; }
"$CPACK" -q --only-weights ckpt/model.safetensors -o b.cllm
(cd ckpt && sha256sum config.json model.safetensors) >sums
root=$("$CPACK" -l a.cllm | sed -n '1s/.*root sha256://p')

# ------------------------------------------------------------------------------------------------------ help and usage

expect "help exits 0" 0 "$CVERIFY" --help
says "help teaches by example" 'cverify .* --against ' stdout
expect "version exits 0" 0 "$CVERIFY" --version
expect "nothing to verify is a usage error" 2 "$CVERIFY"
expect "unknown option is a usage error" 2 "$CVERIFY" --no-check a.cllm
expect "--tag with --quick is a usage error" 2 "$CVERIFY" --tag --quick a.cllm
expect "--against with two containers is a usage error" 2 "$CVERIFY" a.cllm b.cllm --against ckpt
expect "unknown device is a usage error" 2 "$CVERIFY" --device tpu a.cllm
expect "--device cpu" 0 "$CVERIFY" --device cpu a.cllm
if has_gpu; then
    expect "--device cuda" 0 "$CVERIFY" --device cuda a.cllm
    says "the counts say what was on the GPU" 'of them on .*, the SHA-256 of [0-9]+ files recorded, not recomputed' stdout
    expect "--device cuda finds damage" 4 "$CVERIFY" --device cuda "$ROOT/fixtures/bad-content-float.cllm"
else
    skip "--device cuda" "no GPU here"
    expect "without a GPU --device cuda has its exit code" 11 "$CVERIFY" --device cuda a.cllm
fi

# ---------------------------------------------------------------------------------------------------------- good containers

expect "good container" 0 "$CVERIFY" a.cllm
check "first line is OK" test "$(head -n 1 stdout)" = "a.cllm: OK"
says "counts, errors, root and promise" "^verified 4 tensors, 2 files, [1-9][0-9]* chunks, [0-9.]+ k?B; 0 errors; root sha256:$root; integrity against the container's own digests; authenticity not checked$" stdout
check "standard error is empty" test ! -s stderr
expect "two good containers" 0 "$CVERIFY" a.cllm b.cllm
check "one line each, and the counts" test "$(grep -c ': OK$' stdout):$(wc -l <stdout)" = 2:3
says "counts are of both" '^verified 2 of 2 containers, 8 tensors, 3 files' stdout
expect "--quick" 0 "$CVERIFY" --quick a.cllm
says "--quick says what it did not do" 'nothing decoded' stdout
expect "-q" 0 "$CVERIFY" -q a.cllm
check "-q prints nothing for good containers" test ! -s stdout
expect "-v" 0 "$CVERIFY" -v a.cllm b.cllm
says "-v prints root digests" "^root sha256:$root$" stdout
for threads in 1 2 7; do
    expect "with $threads threads" 0 "$CVERIFY" -T $threads a.cllm
done
expect "--json" 0 "$CVERIFY" --json a.cllm b.cllm
is_json "JSON has roots, counts and promise" stdout "d['containers'][0]['root']=='sha256:$root' and d['containers'][1]['ok'] and d['exit_code']==0 and d['exit_id']=='ok' and 'authenticity not checked' in d['promise']"
expect "--tag" 0 "$CVERIFY" --tag a.cllm
check "sha256sum reads what --tag prints" sh -c 'cd ckpt && sha256sum -c --strict ../stdout'
cp a.cllm "$(printf 'n\nl.cllm')"
expect "line feed in a name" 0 "$CVERIFY" "$(printf 'n\nl.cllm')"
check "line feed in a name is escaped as sha256sum does" test "$(head -n 1 stdout)" = '\n\nl.cllm: OK'

# -------------------------------------------------------------------------------------------------------------- --against

# against NAME CODE PATTERN PATH [OPTION...]
against() {
    local name=$1 expected=$2 pattern=$3 path=$4
    shift 4
    expect "--against $name" "$expected" "$CVERIFY" a.cllm --against "$path" "$@"
    if [ "$expected" -eq 0 ]; then
        says "--against $name says how many were equal" "$pattern" stdout
    else
        says "--against $name says why" "$pattern" stderr
        check "--against $name says FAILED" test "$(head -n 1 stdout)" = "a.cllm: FAILED"
    fi
}
against "the directory" 0 '; 2 files equal to ckpt; ' ckpt
against "the file" 0 '; 2 files equal to ckpt/model.safetensors; ' ckpt/model.safetensors
against "a list" 0 '; 2 files equal to sums; ' sums
(cd ckpt && sha256sum --tag ./*) >tags
against "a list in BSD style" 0 '; 2 files equal to tags; ' tags
sed 's/^[^ ]*/\U&/; s,  ,  ./,; s/$/\r/' sums >crlf
against "a list with upper case, ./ and CR" 0 '; 2 files equal to crlf; ' crlf
{ echo '# comment'; echo; cat sums; echo "$(printf '%064d' 0)  README.md"; } >"more"
against "a list with other files" 0 '; 2 files equal to more; ' more

cp -r ckpt differs && printf x | dd of=differs/model.safetensors bs=1 seek=5000 conv=notrunc 2>/dev/null
against "a differing byte" 4 'a.cllm: model.safetensors differs: found SHA-256 [0-9a-f]{64}, expected' differs
cp -r ckpt longer && echo >>longer/config.json
against "a longer file" 4 'config.json differs: found 24 bytes, expected 23' longer
against "a longer file beside the file" 4 'config.json differs' longer/model.safetensors
mkdir missing && cp ckpt/model.safetensors missing
against "a missing file" 7 'config.json is missing' missing
cp -r ckpt extra && cp ckpt/model.safetensors extra/model2.safetensors
against "an extra .safetensors" 4 'model2.safetensors is there, but not in the container' extra
mkdir deep deep/sub && cp ckpt/* deep && cp ckpt/model.safetensors deep/sub/b.safetensors
against "an extra .safetensors in a folder" 4 'sub/b.safetensors is there, but not in the container' deep
"$CPACK" -q deep -o deep.cllm
mkdir -p deep/.cache deep/sub/.trash outside
cp ckpt/model.safetensors outside
cp ckpt/model.safetensors deep/.hidden.safetensors
cp ckpt/model.safetensors deep/.cache
cp ckpt/model.safetensors deep/sub/.trash
ln -s ../../outside deep/sub/link
mkdir deep/folder.safetensors
expect "--against a folder with what packing leaves out" 0 "$CVERIFY" deep.cllm --against deep
says "--against a folder compares the files in it" '; 3 files equal to deep; ' stdout
mkdir -p deep/sub/a/b && ln -s ../../b.safetensors deep/sub/a/b/c.safetensors
expect "--against a folder with an extra link to a file" 4 "$CVERIFY" deep.cllm --against deep
says "--against a folder with an extra link names it" 'sub/a/b/c.safetensors is there, but not in the container' stderr
cp -r ckpt deeper && mkdir -p "deeper/$(printf 'd/%.0s' $(seq 17))"
against "a folder deeper than packing goes" 8 '(d/){16}d is 17 directories deep, at most 16 are allowed' deeper
rmdir "deeper/$(printf 'd/%.0s' $(seq 17))"
against "a folder as deep as packing goes" 0 '; 2 files equal to deeper; ' deeper
mkdir -p isdir/config.json && cp ckpt/model.safetensors isdir
against "a directory instead of a file" 9 'config.json: not a regular file' isdir
mkdir fifo && cp ckpt/model.safetensors fifo && mkfifo fifo/config.json
against "a FIFO instead of a file" 9 'config.json: not a regular file' fifo
against "something that is not there" 7 'cannot open nowhere' nowhere
against "something that is no file" 2 'neither a regular file nor a directory' /dev/null
sed '1s/^./x/' sums >malformed
sed 's/^[0-9a-f]\{4\}/0000/' sums >wrong
against "a list with other digests" 4 'model.safetensors differs: the container has SHA-256' wrong
grep config sums >partial
against "a list that lacks a file" 7 'model.safetensors is not listed in partial' partial
{ cat sums; sed 's/model/other/' sums; } >listed
against "a list with another .safetensors" 4 'other.safetensors is listed, but not in the container' listed
{ cat sums; echo garbage; } >garbage
against "a list with garbage" 3 'found "garbage", expected a SHA-256 and a name' garbage
{ cat sums wrong; } >twice
against "a list that contradicts itself" 3 'twice, with different digests' twice
cp ckpt/model.safetensors renamed.safetensors
expect "--against a renamed original" 0 "$CVERIFY" b.cllm --against renamed.safetensors
expect "--against with --json" 4 "$CVERIFY" --json a.cllm --against differs
is_json "JSON has the reason" stdout "not d['containers'][0]['ok'] and d['containers'][0]['errors'][0]['id']=='integrity' and d['exit_code']==4"

# ------------------------------------------------------------------------------------------------------------------ damage

cp a.cllm bad.cllm
printf '\252\125' | dd of=bad.cllm bs=1 seek=3000 conv=notrunc 2>/dev/null
expect "damaged payload" 4 "$CVERIFY" bad.cllm
check "damage says FAILED" test "$(head -n 1 stdout)" = "bad.cllm: FAILED"
says "damage is named as tensor, chunk and bytes" '^cverify: bad.cllm: (tensor|file) ".*", chunk [0-9]+, bytes [0-9]+ to [0-9]+' stderr
says "damage is counted" '; 1 error; ' stdout
expect "--quick finds it too" 4 "$CVERIFY" --quick bad.cllm
expect "-q prints failures" 4 "$CVERIFY" -q bad.cllm a.cllm
check "-q prints only failures" test "$(cat stdout)" = "bad.cllm: FAILED"
expect "--status" 4 "$CVERIFY" --status bad.cllm
check "--status prints nothing" test ! -s stdout -a ! -s stderr
expect "--tag prints no digest of damaged files" 4 "$CVERIFY" --tag bad.cllm
check "--tag prints only FAILED" test "$(cat stdout)" = "bad.cllm: FAILED"
expect "good ones are verified after a bad one" 4 "$CVERIFY" bad.cllm a.cllm
says "good one is OK after a bad one" '^a.cllm: OK$' stdout
expect "restoring damaged bytes" 4 "$CPACK" -d bad.cllm -o bad.out
expect "testing damaged bytes" 4 "$CPACK" -t bad.cllm
expect "most severe code of several" 4 "$CVERIFY" nowhere.cllm ckpt/config.json bad.cllm
expect "malformed counts more than unreadable" 3 "$CVERIFY" nowhere.cllm ckpt/config.json
expect "missing container" 9 "$CVERIFY" nowhere.cllm
says "missing container is FAILED" '^nowhere.cllm: FAILED$' stdout
expect "something else" 3 "$CVERIFY" ckpt/model.safetensors
expect "empty file" 3 "$CVERIFY" /dev/null
expect "a directory" 3 "$CVERIFY" ckpt
expect "standard output is full" 9 bash -c '"$0" a.cllm >/dev/full' "$CVERIFY"
expect "standard output is closed" 9 bash -c '"$0" a.cllm >&-' "$CVERIFY"
expect "damage counts more than full output" 4 bash -c '"$0" bad.cllm >/dev/full' "$CVERIFY"

# An empty file is all that there is: nothing is proven by its digest.
: >nothing
if "$CPACK" -q --opaque nothing -o nothing.cllm 2>stderr; then
    expect "zero things verified is a failure" 3 "$CVERIFY" --quick nothing.cllm
else
    skip "zero things verified is a failure" "an empty file is not packed"
fi

# One bit in every part of the container, every kind of truncation, and extensions: never success, never wrong bytes.
cat >damage.py <<'PYTHON'
import os, random, shutil, struct, subprocess, sys
cverify, cpack, original = sys.argv[1:4]
good = open("a.cllm", "rb").read()
size = len(good)
footer = size - 104
index, = struct.unpack_from("<Q", good, footer)
random.seed(1)

def attempts(part):
    """Damaged copies, and what was done to each."""
    ranges = {"header": (0, 64), "payload": (64, index), "index": (index, footer), "footer": (footer, size)}
    if part in ranges:
        begin, end = ranges[part]
        for at in sorted(random.sample(range(begin, end), min(64, end - begin))):
            damaged = bytearray(good)
            damaged[at] ^= 1 << random.randrange(8)
            yield f"bit of byte {at}", bytes(damaged)
    elif part == "truncated":
        for length in sorted({0, 1, 7, 8, 63, 64, 65, index, index + 1, footer, size - 8, size - 1, *random.sample(range(size), 40)}):
            yield f"length {length}", good[:length]
    elif part == "extended":
        for tail in (b"\0", b"\0" * 16, b"\0" * 4096, good[footer:], good):
            yield f"{len(tail)} bytes more", good + tail
        yield "a byte before", b"\0" + good

def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    error = done.stderr.decode(errors="replace")
    crashed = done.returncode < 0 or "Sanitizer" in error or "runtime error" in error
    return done.returncode, crashed, error

for what, damaged in attempts(sys.argv[4]):
    open("d.cllm", "wb").write(damaged)
    shutil.rmtree("d.out", ignore_errors=True)
    code, crashed, error = run(cverify, "d.cllm")
    assert code in (3, 4, 5, 8) and not crashed, f"{what}: cverify exits {code}: {error}"
    code, crashed, error = run(cpack, "-d", "d.cllm", "-o", "d.out")
    assert code in (0, 3, 4, 5, 8) and not crashed, f"{what}: cpack -d exits {code}: {error}"
    for folder, _, names in os.walk("d.out"):
        for name in names:
            with open(os.path.join(folder, name), "rb") as a, open(os.path.join(original, name), "rb") as b:
                assert a.read() == b.read(), f"{what}: wrong bytes restored"
    assert code == 0 or len(os.listdir("d.out") if os.path.isdir("d.out") else []) < 2, f"{what}: all restored, but exits {code}"
PYTHON
for part in header payload index footer truncated extended; do
    check "$part: every damage is found" $PYTHON damage.py "$CVERIFY" "$CPACK" ckpt $part
done

# -------------------------------------------------------------------------------------------------------------- real data

for folder in "$DATA"/real-weights/* "$DATA/shakespeare-llama"; do
    name=$(basename "$folder")
    if [ ! -d "$folder" ]; then
        skip "real data" "no ../shared/data"
        break
    fi
    mkdir -p "real/$name" && cp -rL "$folder/." "real/$name"
    expect "$name packs" 0 "$CPACK" "real/$name" -o real.cllm -f
    expect "$name agrees with its original" 0 "$CVERIFY" real.cllm --against "real/$name"
    expect "$name restores" 0 "$CPACK" -d real.cllm -o real.out
    check "$name is equal" diff -r "real/$name" real.out
    rm -rf real.out "real/$name"
done

finish
