#!/bin/bash
# test_cpack.sh - packing, restoring, listing, and what must not happen. Run from the project root; BUILD=build/release.
# shellcheck disable=SC2016 # scripts for inner shells
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh
cd "$WORK" || exit 1

mkdir ckpt one
safetensors ckpt/model-00001-of-00002.safetensors a.weight:BF16:64x96 a.bias:F32:96 empty:F32:0x4 scalar:I64:
safetensors ckpt/model-00002-of-00002.safetensors b.weight:BF16:300x100 b.mask:BOOL:33 b.half:F16:50 b.f8:F8_E4M3:128
$PYTHON - <<'PYTHON'
import json
names = {"a.weight": 1, "a.bias": 1, "empty": 1, "scalar": 1, "b.weight": 2, "b.mask": 2, "b.half": 2, "b.f8": 2}
index = {"metadata": {"total_size": 64*96*2 + 96*4 + 8 + 300*100*2 + 33 + 100 + 128},
         "weight_map": {k: f"model-0000{v}-of-00002.safetensors" for k, v in names.items()}}
json.dump(index, open("ckpt/model.safetensors.index.json", "w"), indent=2)
json.dump({"model_type": "llama", "note": "ünïcode"}, open("ckpt/config.json", "w"))
PYTHON
safetensors one/model.safetensors w:BF16:128x64 v:F32:7
echo '{"model_type":"llama"}' >one/config.json
echo 'not a standard file' >one/notes.xyz

# ------------------------------------------------------------------------------------------------- help, version, usage

expect "help exits 0" 0 "$CPACK" --help
says "help teaches by example" 'cpack -d .* -o ' stdout
expect "version exits 0" 0 "$CPACK" -V
says "version names the program" '^cpack \(cllm\) [0-9]' stdout
expect "machine version exits 0" 0 "$CPACK" -qV
says "machine version is only the number" '^[0-9.]+$' stdout
expect "no input is a usage error" 2 "$CPACK"
says "usage error hints to --help" "cpack: .*--help" stderr
expect "unknown letter is a usage error" 2 "$CPACK" -dzf ckpt
says "unknown letter is named" 'cpack: -z is not an option' stderr
expect "unknown long option is a usage error" 2 "$CPACK" --frobnicate ckpt
says "unknown long option is named" '--frobnicate is not an option' stderr
expect "missing value is a usage error" 2 "$CPACK" ckpt -o
expect "missing output is a usage error" 2 "$CPACK" ckpt
expect "two inputs are a usage error" 2 "$CPACK" ckpt one -o x.cllm
expect "-l with -t is a usage error" 2 "$CPACK" -l -t ckpt
expect "-l with -o is a usage error" 2 "$CPACK" -l ckpt -o x.cllm
expect "bad thread count is a usage error" 2 "$CPACK" -T many ckpt -o x.cllm
expect "negative thread count is a usage error" 2 "$CPACK" -T -1 ckpt -o x.cllm
expect "bad CPACK_THREADS is a usage error" 2 env CPACK_THREADS=x "$CPACK" ckpt -o x.cllm
expect "CPACK_THREADS does not matter beside -T" 0 env CPACK_THREADS=x "$CPACK" -T 1 one -o threads.cllm
expect "nor where help is asked for" 0 env CPACK_THREADS=x "$CPACK" --help
expect "--json with -o - is a usage error" 2 "$CPACK" --json ckpt -o -
expect "--file without -d is a usage error" 2 "$CPACK" --file x ckpt -o x.cllm
expect "usage error as JSON" 2 "$CPACK" --json
is_json "usage error has code and id" stderr 'd["message_type"]=="exit_error" and d["code"]==2 and d["id"]=="usage"'
for program in "$CPACK" "$CVERIFY" "$CRUN"; do
    expect "wrong option before --json is a usage error: ${program##*/}" 2 "$program" --frobnicate --json ckpt
    is_json "--json counts after a wrong option: ${program##*/}" stderr 'd["id"]=="usage" and "--frobnicate" in d["message"]'
done
expect "wrong option before -qq is a usage error" 2 "$CPACK" --frobnicate -qq ckpt
check "-qq counts after a wrong option" test ! -s stderr
check "nothing was written by usage errors" test ! -e x.cllm

# ------------------------------------------------------------------------------------------------- packing and restoring

expect "directory packs" 0 "$CPACK" ckpt -o dir.cllm
says "summary has sizes and root" '^dir.cllm: .* -> .*%.*8 tensors, root sha256:[0-9a-f]{64}$' stdout
says "summary names what came along" '^came along: .*config.json' stdout
check "standard error is empty without a terminal" test ! -s stderr
check "mode is that of the umask" test "$(stat -c %a dir.cllm)" = "$(printf %o $((0666 & ~$(umask))))"
expect "directory restores" 0 "$CPACK" -d dir.cllm -o dir.out
check "restored directory is equal" diff -r ckpt dir.out
expect "-x restores too" 0 "$CPACK" -x dir.cllm -o dir.out2
expect "index packs" 0 "$CPACK" ckpt/model.safetensors.index.json -o index.cllm
expect "index restores" 0 "$CPACK" -d index.cllm -o index.out
check "restored shards are equal" cmp ckpt/model-00002-of-00002.safetensors index.out/model-00002-of-00002.safetensors
expect "file packs" 0 "$CPACK" one/model.safetensors -o one.cllm
says "standard file came along" 'came along: config.json$' stdout
expect "file restores" 0 "$CPACK" -d one.cllm -o one.out
check "restored file is equal" cmp one/model.safetensors one.out/model.safetensors
check "other file did not come along" test ! -e one.out/notes.xyz
expect "--only-weights packs" 0 "$CPACK" --only-weights one/model.safetensors -o w.cllm
expect "--only-weights restores" 0 "$CPACK" -d w.cllm -o w.out
check "--only-weights leaves the rest" test "$(ls w.out)" = model.safetensors
expect "--opaque packs anything" 0 "$CPACK" --opaque one/notes.xyz -o opaque.cllm
expect "--opaque restores" 0 "$CPACK" -d opaque.cllm -o opaque.out
check "opaque file is equal" cmp one/notes.xyz opaque.out/notes.xyz
expect "-t passes" 0 "$CPACK" -t dir.cllm one.cllm
says "-t prints one line a container" '^one.cllm: OK$' stdout
expect "-q prints nothing" 0 "$CPACK" -q one -o quiet.cllm
check "-q is silent" test ! -s stdout -a ! -s stderr
expect "options may end with --" 0 "$CPACK" -o dashed.cllm -- one

for threads in 1 2 3 8; do
    run "$CPACK" -T $threads ckpt -o "t$threads.cllm"
done
check "thread count does not change the bytes" sh -c 'for n in 1 2 3 8; do cmp t$n.cllm dir.cllm || exit 1; done'
run env CPACK_THREADS=2 "$CPACK" ckpt -o env.cllm
check "CPACK_THREADS does not change the bytes" cmp env.cllm dir.cllm
run "$CPACK" -l "$ROOT/fixtures/good-ranks.cllm"
check "a shape of 64 dimensions is listed whole" grep -qE '\[([0-9]+,){63}[0-9]+\]' stdout
mkfifo stalled
for arguments in "-l --json" "-lvv"; do
    (exec 9<stalled; sleep 3) &
    # shellcheck disable=SC2016,SC2046,SC2086 # for sh; many names, two options
    expect "a signal ends cpack $arguments, though nobody reads" 143 \
        sh -c 'timeout --preserve-status -s TERM 0.7 "$@" >stalled' sh "$CPACK" $arguments $(yes dir.cllm | head -400)
    wait
done

# --------------------------------------------------------------------------------------------------------------- one file

expect "--device cpu restores" 0 "$CPACK" -d --device cpu dir.cllm -o cpu.out
check "--device cpu gives the same files" diff -r dir.out cpu.out
expect "--device is not for packing" 2 "$CPACK" --device cpu ckpt -o device.cllm
expect "unknown device is a usage error" 2 "$CPACK" -d --device tpu dir.cllm -o tpu.out
if has_gpu; then
    expect "--device cuda restores" 0 "$CPACK" -d --device cuda dir.cllm -o gpu.out
    check "--device cuda gives the same files" diff -r dir.out gpu.out
    says "the report says what was decoded where" 'restored .*; [0-9.]+ k?M?B decoded on .*, [0-9.]+ k?M?B on the CPU$' stdout
    expect "--device cuda tests" 0 "$CPACK" -t --device cuda dir.cllm
    expect "--device cuda finds damage" 4 "$CPACK" -d --device cuda "$ROOT/fixtures/bad-content-float.cllm" -o bad.out
else
    skip "--device cuda" "no GPU here"
    expect "without a GPU --device cuda has its exit code" 11 "$CPACK" -d --device cuda dir.cllm -o gpu.out
    check "and nothing is restored" test ! -e gpu.out
fi

expect "one file restores to a file" 0 "$CPACK" -d dir.cllm --file config.json -o config.out
check "one file is equal" cmp ckpt/config.json config.out
run "$CPACK" -d dir.cllm --file model-00001-of-00002.safetensors -o -
check "one file restores to a pipe" test "$code" -eq 0 -a "$(sha256sum <stdout)" = "$(sha256sum <ckpt/model-00001-of-00002.safetensors)"
expect "file that is not there is absent" 7 "$CPACK" -d dir.cllm --file nothing.json -o x.json
check "absent file leaves nothing" test ! -e x.json
expect "all files do not fit standard output" 2 "$CPACK" -d dir.cllm -o -

# ------------------------------------------------------------------------------------------------------------- pipe, lists

"$CPACK" ckpt -o - >piped.cllm 2>stderr
check "packing to a pipe gives the same bytes" cmp piped.cllm dir.cllm
mkdir tmp
run env TMPDIR="$WORK/tmp" "$CPACK" ckpt -o -
is_empty "packing to a pipe leaves no temporary file" tmp
if script -qec true /dev/null >/dev/null 2>&1; then
    expect "terminal is refused" 2 script -qec "'$CPACK' ckpt -o -" /dev/null
    expect "terminal is refused for a file" 2 script -qec "'$CPACK' -d dir.cllm --file config.json -o -" /dev/null
else
    skip "terminal is refused" "no script program, or no pseudo-terminals"
fi

expect "list" 0 "$CPACK" -l dir.cllm
says "list has dtype, shape, codec, size, ratio, name" '^BF16 +\[64,96\] +[a-z+]+ +[0-9.]+ k?B +[0-9.]+% +a.weight$' stdout
says "list has an empty tensor" '^F32 +\[0,4\] .* empty$' stdout
says "list has a scalar" '^I64 +\[\] .* scalar$' stdout
expect "verbose list" 0 "$CPACK" -lv dir.cllm
says "verbose list has the digests of files" "SHA-256 $(sha256sum <ckpt/config.json | cut -c1-64)" stdout
expect "very verbose list" 0 "$CPACK" -lvv dir.cllm
says "very verbose list has chunks" 'chunk 0: ' stdout
expect "list as JSON" 0 "$CPACK" -l --json dir.cllm one.cllm
is_json "JSON list is complete" stdout 'len(d["containers"])==2 and len(d["containers"][0]["tensors"])==8 and d["containers"][0]["tensors"][0]["stored_bytes"]>=0'
expect "list never decodes" 0 sh -c '
    size=$(stat -c %s "$1"); dd if=/dev/urandom of=payload.cllm bs=1 count=0 2>/dev/null; cp "$1" payload.cllm
    printf "\377\377\377\377" | dd of=payload.cllm bs=1 seek=64 conv=notrunc 2>/dev/null; exec "$2" -l payload.cllm' - dir.cllm "$CPACK"
expect "packing as JSON" 0 "$CPACK" --json ckpt -o json.cllm
is_json "JSON summary of packing" stdout 'd["message_type"]=="summary" and d["tensor_count"]==8 and d["root"].startswith("sha256:") and any(f["name"]=="config.json" for f in d["files"])'
expect "restoring as JSON" 0 "$CPACK" --json -d dir.cllm -o json.out
is_json "JSON summary of restoring" stdout 'd["message_type"]=="summary" and len(d["files"])==4'
cp one.cllm "$(printf 'b\377d.cllm')"
expect "name that is no UTF-8 lists as JSON" 0 "$CPACK" -l --json "$(printf 'b\377d.cllm')"
is_json "name that is no UTF-8 has name_b64" stdout '__import__("base64").b64decode(d["containers"][0]["name_b64"])==b"b\xffd.cllm"'

# ----------------------------------------------------------------------------------------------------------- exit codes

printf old >exists.cllm
expect "existing output is not replaced" 10 "$CPACK" ckpt -o exists.cllm
check "existing output is untouched" test "$(cat exists.cllm)" = old
expect "-f replaces" 0 "$CPACK" -f ckpt -o exists.cllm
check "replaced output is whole" cmp exists.cllm dir.cllm
expect "existing output as JSON" 10 "$CPACK" --json ckpt -o exists.cllm
is_json "existing output has its id" stderr 'd["code"]==10 and d["id"]=="exists" and "exists.cllm" in d["message"]'
expect "-qq hides errors, not the exit code" 10 "$CPACK" -qq ckpt -o exists.cllm
check "-qq is silent" test ! -s stderr
mkdir adir
expect "-f does not replace a directory" 2 "$CPACK" -f ckpt -o adir
expect "-f does not replace a device" 2 "$CPACK" -f ckpt -o /dev/null
ln -s dir.cllm link.cllm
expect "-f does not replace a symbolic link" 2 "$CPACK" -f ckpt -o link.cllm
check "symbolic link is still there" test -L link.cllm
expect "missing input" 9 "$CPACK" nowhere -o x.cllm
says "missing input is named" 'cpack: .*nowhere.*No such file' stderr
expect "input that is not safetensors" 3 "$CPACK" one/notes.xyz -o x.cllm
mkdir empty
expect "empty directory" 3 "$CPACK" empty -o x.cllm
mkfifo fifo
expect "FIFO as input" 2 timeout 10 "$CPACK" fifo -o x.cllm
expect "missing directory of the output" 9 "$CPACK" ckpt -o nowhere/x.cllm
cp one/model.safetensors same.safetensors
before=$(sha256sum <same.safetensors)
expect "output is the input" 2 "$CPACK" -f same.safetensors -o same.safetensors
ln same.safetensors hard.safetensors
expect "output is a link to the input" 2 "$CPACK" -f same.safetensors -o hard.safetensors
check "input is untouched" test "$(sha256sum <same.safetensors)" = "$before"
head -c 100 one/model.safetensors >short.safetensors
expect "truncated safetensors" 3 "$CPACK" short.safetensors -o x.cllm
expect "not a container" 3 "$CPACK" -d one/model.safetensors -o x.out
expect "missing container" 9 "$CPACK" -d nowhere.cllm -o x.out
expect "listing something else" 3 "$CPACK" -l one/model.safetensors
check "failures left nothing" test ! -e x.cllm -a ! -e x.out
mkdir locked && chmod a-w locked
if [ "$(id -u)" -ne 0 ]; then
    expect "directory without permission" 9 "$CPACK" ckpt -o locked/x.cllm
elif setpriv --inh-caps=-all --bounding-set=-all test ! -w locked 2>/dev/null; then # root without its privileges
    expect "directory without permission" 9 setpriv --inh-caps=-all --bounding-set=-all "$CPACK" ckpt -o locked/x.cllm
else
    skip "directory without permission" "root may write everywhere"
fi
is_empty "directory without permission stays empty" locked

# --------------------------------------------------------------------------------------------- full disks and closed pipes

mkdir full
expect "full disk" 9 bash -c 'ulimit -f 16; "$0" "$1" -o full/x.cllm' "$CPACK" ckpt
is_empty "full disk leaves nothing" full
expect "full disk while restoring" 9 bash -c 'ulimit -f 16; "$0" -d dir.cllm -o full/out' "$CPACK"
is_empty "full disk while restoring leaves nothing" full
expect "standard output is full" 9 bash -c '"$0" -l dir.cllm >/dev/full' "$CPACK"
expect "standard output is full for a container" 9 bash -c '"$0" ckpt -o - >/dev/full' "$CPACK"
expect "standard output is full for JSON" 9 bash -c '"$0" -l --json dir.cllm >/dev/full' "$CPACK"
expect "standard output is full for help" 9 bash -c '"$0" --help >/dev/full' "$CPACK"
expect "standard output is closed" 9 bash -c '"$0" -l dir.cllm >&-' "$CPACK"
expect "standard output is closed for a container" 9 bash -c '"$0" ckpt -o - >&-' "$CPACK"
cat >closed_pipe.py <<'PYTHON'
import os, subprocess, sys
read_end, write_end = os.pipe()
os.close(read_end)
sys.exit(subprocess.run(sys.argv[1:], stdout=write_end).returncode)
PYTHON
expect "standard output is a closed pipe" 9 $PYTHON closed_pipe.py "$CPACK" one -o -
expect "all three are closed" 0 bash -c '"$0" -q ckpt -o closed.cllm <&- >&- 2>&-' "$CPACK"
check "container is right with all three closed" cmp closed.cllm dir.cllm

# ------------------------------------------------------------------------------------------------------- traps in the target

mkdir trap && printf precious >precious
ln -s ../precious trap/config.json
expect "symbolic link in the target is not followed" 10 "$CPACK" -d dir.cllm -o trap
expect "symbolic link is not followed with -f" 10 "$CPACK" -f -d dir.cllm -o trap
check "what the link points to is untouched" test "$(cat precious)" = precious
check "nothing was restored beside the trap" test "$(ls trap)" = config.json
mkdir -p nested/sub way/out outside
cp one/model.safetensors nested/sub/model.safetensors
echo '{"metadata":{},"weight_map":{"w":"sub/model.safetensors","v":"sub/model.safetensors"}}' >nested/model.safetensors.index.json
expect "shard in a folder packs" 0 "$CPACK" nested/model.safetensors.index.json -o nested.cllm
expect "shard in a folder restores" 0 "$CPACK" -d nested.cllm -o nested.out
check "shard in a folder is equal" diff -r nested nested.out
ln -s ../../outside way/out/sub
expect "symbolic link as a folder is not followed" 10 "$CPACK" -d nested.cllm -o way/out
expect "symbolic link as a folder is not followed with -f" 10 "$CPACK" -f -d nested.cllm -o way/out
is_empty "nothing was restored behind the link" outside
check "nothing was restored beside the link" test "$(ls way/out)" = sub
mkdir partly && printf mine >partly/config.json
expect "existing file in the target" 10 "$CPACK" -d dir.cllm -o partly
check "existing file is untouched and alone" test "$(ls partly):$(cat partly/config.json)" = config.json:mine
expect "-f replaces files in the target" 0 "$CPACK" -f -d dir.cllm -o partly
check "replaced files are equal" diff -r ckpt partly
printf file >afile
expect "target is a file" 10 "$CPACK" -d dir.cllm -o afile
expect "target is the container" 2 "$CPACK" -f -d one.cllm --file config.json -o one.cllm
mkdir self self/links
cp one/model.safetensors self.bin
run "$CPACK" --opaque self.bin -o self/self.bin
before=$(sha256sum <self/self.bin)
ln self/self.bin self/hard.cllm
ln -s ../self.bin self/links/soft.cllm
for given in self/self.bin self/hard.cllm self/links/soft.cllm; do
    for options in "" --rm -f "-f --rm"; do
        # shellcheck disable=SC2086 # options are words
        expect "restored file would be the container: ${given#self/} $options" 2 "$CPACK" -d $options $given -o self
    done
done
says "restored file would be the container: is said" 'self.bin: the output is the container; nothing was restored' stderr
check "container in the way is untouched" test "$(sha256sum <self/self.bin)" = "$before" -a "$(ls self)" = "$(printf 'hard.cllm\nlinks\nself.bin')"

# --------------------------------------------------------------------------------------------------------- all or nothing

# Several files, of which the second cannot be restored: one bit of its tensor differs.
mkdir -p tree/sub/deep tree/z
safetensors tree/a.safetensors a:BF16:100x50
safetensors tree/sub/deep/b.safetensors b:BF16:100x50 more:U8:77
safetensors tree/z/c.safetensors c:F32:9 more:U8:5 most:U8:3
echo '{"model_type":"llama"}' >tree/config.json
expect "folders pack" 0 "$CPACK" tree -o tree.cllm
cat >flip.py <<'PYTHON'
import json, subprocess, sys
listed = json.loads(subprocess.run([sys.argv[1], "-l", "--json", "tree.cllm"], stdout=subprocess.PIPE, check=True).stdout)
tensor, = [t for t in listed["containers"][0]["tensors"] if t["name"] == "b"]
assert tensor["file"] == 1, tensor
damaged = bytearray(open("tree.cllm", "rb").read())
damaged[tensor["stored_offset"] + tensor["stored_bytes"] // 2] ^= 1
open("flipped.cllm", "wb").write(damaged)
PYTHON
check "one bit of the second file differs" $PYTHON flip.py "$CPACK"
expect "damage in the second file" 4 "$CPACK" -d flipped.cllm -o flipped.out
check "damage in the second file leaves no folder" test ! -e flipped.out
mkdir -p old/sub && cp tree/a.safetensors old && printf old >>old/a.safetensors && printf old >old/config.json && printf own >old/sub/own
cp -r old old.before
expect "damage in the second file over old files" 4 "$CPACK" -d -f flipped.cllm -o old
check "old files stay as they were, alone" diff -r old.before old
check "folders that were there stay, those made for it do not" test "$(cd old && find . -type d | sort | xargs)" = ". ./sub"
expect "--rm with damage" 4 "$CPACK" -d -f --rm flipped.cllm -o old
check "--rm with damage keeps the container and the old files" sh -c 'test -e flipped.cllm && diff -r old.before old'
expect "sound files over old ones" 0 "$CPACK" -d -f tree.cllm -o old
check "sound files have replaced the old ones" sh -c 'rm old/sub/own && diff -r tree old'

mkdir many
for i in $(seq 50); do echo "$i" >"many/$i.txt"; done
cp one/model.safetensors many
expect "51 files pack" 0 "$CPACK" many -o many.cllm
expect "soft limit of open files is raised" 0 bash -c 'ulimit -Sn 40; "$0" -d many.cllm -o many.out' "$CPACK"
check "51 files are equal" diff -r many many.out
expect "hard limit of open files" 8 bash -c 'ulimit -n 60; "$0" -d many.cllm -o limit.out' "$CPACK"
says "hard limit of open files is said" 'found 51 files, expected at most [0-9]+ with 60 open files' stderr
check "hard limit of open files leaves nothing" test ! -e limit.out

# ---------------------------------------------------------------------------------------------------------------- removal

cp -r one gone
expect "--rm packs" 0 "$CPACK" --rm gone/model.safetensors -o gone.cllm
check "--rm removed the weights, and kept what came along" test "$(echo gone/*)" = "gone/config.json gone/notes.xyz"
expect "--rm restores" 0 "$CPACK" --rm -d gone.cllm -o gone.out
check "--rm removed the container" test ! -e gone.cllm
check "file is back" cmp one/model.safetensors gone.out/model.safetensors
printf old >taken.cllm
cp one/model.safetensors kept.safetensors
expect "--rm with a failure" 10 "$CPACK" --rm kept.safetensors -o taken.cllm
check "--rm with a failure removes nothing" cmp one/model.safetensors kept.safetensors
expect "--rm with --file is a usage error" 2 "$CPACK" --rm -d dir.cllm --file config.json -o x.json
expect "--rm with -o - is a usage error" 2 "$CPACK" --rm one -o -

# ---------------------------------------------------------------------------------------------------------------- signals

$PYTHON - <<'PYTHON'
import json, random, struct
size = 192 << 20
block = random.Random(1).randbytes(1 << 20)
header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
with open("big.safetensors", "wb") as out:
    out.write(struct.pack("<Q", len(header)) + header)
    for i in range(size >> 20):
        out.write(block[i:] + block[:i])
PYTHON
mkdir sig
# started COMMAND...: starts it and waits until an unfinished output in sig/ is open; its process is $pid
started() {
    "$@" >stdout 2>stderr &
    pid=$!
    for _ in $(seq 500); do
        readlink /proc/$pid/fd/* 2>/dev/null | grep -q "$WORK/sig/.*[.#]" && break
        sleep 0.01
    done
}
# signalled NAME SIGNAL CODE COMMAND...: sends the signal while the command is at work. False where that had ended before.
signalled() {
    local name=$1 signal=$2 expected=$3
    shift 3
    started "$@"
    sleep 0.05
    kill -"$signal" $pid 2>/dev/null
    { wait $pid; } 2>/dev/null
    code=$?
    if [ $code -eq 0 ]; then
        skip "$name" "it had ended before the signal"
        return 1
    fi
    if [ $code -eq "$expected" ]; then
        ok "$name gives exit code $expected"
    else
        not_ok "$name" "exit code $code, expected $expected" "$(cat stderr)"
    fi
}
signalled SIGTERM TERM 143 "$CPACK" -T 1 big.safetensors -o sig/x.cllm && is_empty "SIGTERM leaves nothing" sig
rm -rf sig/*
signalled SIGHUP HUP 129 "$CPACK" -T 1 big.safetensors -o sig/x.cllm && is_empty "SIGHUP leaves nothing" sig
rm -rf sig/*

mkdir -p big/sub && mv big.safetensors big && cp one/model.safetensors big/sub && cp one/config.json big
"$CPACK" -q big -o big.cllm
signalled "SIGTERM while restoring" TERM 143 "$CPACK" -T 1 -d big.cllm -o sig/out && is_empty "SIGTERM while restoring leaves nothing" sig
rm -rf sig/*
mkdir sig/out && printf old >sig/out/config.json
signalled "SIGTERM while replacing" TERM 143 "$CPACK" -T 1 -d -f big.cllm -o sig/out &&
    check "SIGTERM while replacing changes nothing" test "$(cd sig/out && find . | sort | xargs):$(cat sig/out/config.json)" = ". ./config.json:old"
rm -rf sig/*
# stopped COMMAND...: as started, and stops it there; false where it had ended before
stopped() {
    started "$@"
    sleep 0.02 # until the other outputs are open, too
    kill -STOP $pid 2>/dev/null && ! grep -q '^State:.*Z' /proc/$pid/status
}
continued() { kill -CONT $pid; { wait $pid; } 2>/dev/null; code=$?; }
if stopped "$CPACK" -T 1 -d big.cllm -o sig/out; then
    printf mine >sig/out/config.json
    continued
    check "file that appears while restoring" test $code -eq 10
    check "file that appears while restoring stays, alone" test "$(cd sig/out && find . | sort | xargs):$(cat sig/out/config.json)" = ". ./config.json:mine"
else
    skip "file that appears while restoring" "it had ended before"
fi
rm -rf sig/*
# root without its privileges, so that a folder can be closed to it
plain=()
[ "$(id -u)" -ne 0 ] || plain=(setpriv --inh-caps=-all --bounding-set=-all)
if "${plain[@]}" test -w locked 2>/dev/null || ! "${plain[@]}" true 2>/dev/null; then
    skip "names that cannot be given" "root may write everywhere"
elif stopped "${plain[@]}" "$CPACK" -T 1 -d big.cllm -o sig/out; then
    chmod a-w sig/out/sub
    continued
    check "name that cannot be given" test $code -eq 9
    says "name that cannot be given says how many were" 'restored 1 of 3 files: cannot give its name to sig/out/sub/model.safetensors' stderr
    check "files that have their names stay, whole" sh -c 'cmp big/big.safetensors sig/out/big.safetensors && test "$(find sig/out -type f | wc -l)" -eq 1'
else
    skip "names that cannot be given" "it had ended before"
fi
rm -rf sig/*
"$CPACK" -T 1 big/big.safetensors -o sig/y.cllm >stdout 2>stderr &
pid=$!
sleep 0.15
kill -USR1 $pid 2>/dev/null
wait $pid
check "SIGUSR1 does not end the program" test $? -eq 0
if grep -q packing stderr; then ok "SIGUSR1 prints a line of progress"; else skip "SIGUSR1 prints a line of progress" "packing had ended"; fi

# ---------------------------------------------------------------------------------------------------------------- real data

if [ -d "$DATA/shakespeare-llama" ]; then
    expect "fixture packs" 0 "$CPACK" "$DATA/shakespeare-llama" -o fixture.cllm
    expect "fixture restores" 0 "$CPACK" -d fixture.cllm -o fixture.out
    check "fixture is equal" diff -r "$DATA/shakespeare-llama" fixture.out
else
    skip "fixture packs" "no ../shared/data"
fi

finish
