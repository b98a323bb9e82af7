#!/bin/bash
# test_crun_gpu.sh - crun on a GPU: the same logits wherever the weights lie, near the CPU's; budgets; failures. Run from the project
# root; BUILD=build/release. Everything is skipped where there is no GPU.
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh
FIXTURE=$ROOT/fixtures/shakespeare-llama
SANITIZER=${SANITIZER:-$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)}
cd "$WORK" || exit 1

"$CPACK" -q "$FIXTURE" -o trained.cllm || exit 1
run "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda
if [ "$code" -eq 11 ]; then
    reason="no GPU: $(sed 's/^crun: //' stderr | head -c 100)"
    for name in "logits of all residencies" "logits near the CPU's" "budgets" "bench on a GPU" "memory checker"; do
        skip "$name" "$reason"
    done
    finish
fi
check "a GPU computes" test "$code" = 0

GREEDY=(--temp 0 --ignore-eos --print-ids --no-progress)

# same MODEL OPTION...: ids and logits must be those of MODEL.raw.
same() {
    local model=$1
    shift
    expect "$model $*" 0 "$CRUN" "$model.cllm" --prompt-ids "$prompt" -n "$count" "${GREEDY[@]}" --device cuda "$@" --dump-logits same.f32
    check "$model $*: same ids" cmp stdout "$model.raw.ids"
    check "$model $*: same logits" cmp same.f32 "$model.raw.f32"
}

# residencies MODEL: one after the other, twice what is most used.
residencies() {
    local model=$1
    expect "$model raw" 0 "$CRUN" "$model.cllm" --prompt-ids "$prompt" -n "$count" "${GREEDY[@]}" --device cuda --residency raw --dump-logits "$model.raw.f32"
    cp stdout "$model.raw.ids"
    same "$model" --residency raw
    same "$model" --residency packed
    same "$model" --residency packed
    same "$model" --residency stream
    same "$model" --residency stream --cache-layers 1
    same "$model" --residency stream --cache-layers 2 -T 1
    same "$model" --residency stream --ram 1
    same "$model" --residency stream --ram 1 --cache-layers 1
    same "$model" --cache-layers 2
}

prompt="0 848 27" count=256
residencies trained
if [ -x "$BUILD/tests/mkmodel" ]; then
    prompt="0 5 44 101 39" count=40
    model() { # NAME ELEMENT CHANGE-OF-CONFIG
        "$BUILD/tests/mkmodel" tiny base >/dev/null && $PYTHON - "$3" >"$1.json" <<'PYTHON' &&
import json, sys
config = json.load(open("base/config.json"))
config.update(json.loads(sys.argv[1]))
print(json.dumps(config))
PYTHON
            "$BUILD/tests/mkmodel" -d "$2" "$1.json" "$1" >/dev/null && "$CPACK" -q "$1" -o "$1.cllm"
    }
    model plain BF16 '{}' && residencies plain
    model tied BF16 '{"tie_word_embeddings": true}' && residencies tied
    model biased BF16 '{"attention_bias": true, "mlp_bias": true}' && residencies biased
    model half F16 '{}' && residencies half
    model single F32 '{}' && residencies single
    model odd BF16 '{"hidden_size": 72, "intermediate_size": 200, "num_hidden_layers": 5, "head_dim": 24, "vocab_size": 301}' &&
        residencies odd
else
    skip "synthetic models on a GPU" "no tests/mkmodel in $BUILD"
fi

# The same text through both: logits of the prompt, and greedy ids by the rule of top fives.
prompt="0 848 27 203 53 311 38 295 17 362" count=64
run "$CRUN" trained.cllm --prompt-ids "$prompt" -n $count "${GREEDY[@]}" --device cpu --dump-logits cpu.f32
cp stdout cpu.ids
run "$CRUN" trained.cllm --prompt-ids "$prompt" -n $count "${GREEDY[@]}" --device cuda --dump-logits gpu.f32
check "logits of the prompt are the CPU's but for 1e-5, text by the rule of top fives" $PYTHON - cpu gpu 10 1024 <<'PYTHON'
import array, sys
def load(name):
    values = array.array("f", open(name + ".f32", "rb").read())
    return [values[i:i + vocab] for i in range(0, len(values), vocab)], [int(i) for i in open(name + ".ids").read().split()]
prompt, vocab = int(sys.argv[3]), int(sys.argv[4])
open("gpu.ids", "w").write(open("stdout").read())
(a, a_ids), (b, b_ids) = load(sys.argv[1]), load(sys.argv[2])
nmse = sum((x - y) ** 2 for r in range(prompt) for x, y in zip(a[r], b[r])) / sum(x * x for r in range(prompt) for x in a[r])
print("NMSE", nmse)
assert nmse <= 1e-5
for step, (x, y) in enumerate(zip(a_ids, b_ids)):
    if x == y: continue
    top = lambda row: sorted(range(vocab), key=row.__getitem__)[-5:]
    assert y in top(a[prompt - 1 + step]) and x in top(b[prompt - 1 + step]), step
    break
PYTHON

# ------------------------------------------------------------------------------------------------------------- budgets

expect "a budget that is far too small is a limit" 8 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda --vram 1MiB
says "and names one that works" 'expected at least [0-9]+ MiB' stderr
needed=$(grep -oE 'at least [0-9]+' stderr | grep -oE '[0-9]+')
expect "that one works" 0 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda --vram "${needed}MiB"
expect "one MiB less does not" 8 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda --vram $((needed - 1))MiB
expect "raw where it does not fit is a limit" 8 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda --vram "${needed}MiB" --residency raw
expect "the plan is told before loading" 0 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda
says "with memory and ceiling" 'plan .*packed: weights .*budget' stderr
says "and the speed that it allows" 'ceiling .* tokens/s' stderr
expect "-q hides it" 0 "$CRUN" -q trained.cllm --prompt-ids 1 -n 1 --device cuda
check "standard error is empty" test ! -s stderr
expect "a GPU that is not there" 11 "$CRUN" trained.cllm --prompt-ids 1 -n 1 --device cuda:99

# ----------------------------------------------------------------------------------------------- damage while streaming

# spoil NAME CODE COMMAND: a file that is streamed from is changed by the command while tokens come out of it.
spoil() {
    local name=$1 expected=$2
    shift 2
    cp large.cllm spoiled.cllm
    timeout 60 "$CRUN" spoiled.cllm --prompt-ids 1 -n 500 "${GREEDY[@]}" --device cuda --residency stream --ram 1 >stdout 2>stderr &
    while kill -0 $! && ! [ -s stdout ]; do sleep 0.01; done 2>/dev/null
    "$@"
    wait $!
    code=$?
    check "$name: exit code $expected" test "$code" = "$expected"
}
if [ -x "$BUILD/tests/mkmodel" ]; then
    model large BF16 '{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4}'
    spoil "a file cut while it is streamed" 3 truncate -s 40000000 spoiled.cllm
    says "says that it ends" 'ends' stderr
    # shellcheck disable=SC2016 # for Python
    spoil "a bit flipped while it is streamed" 4 $PYTHON -c '
file = open("spoiled.cllm", "r+b")
file.seek(60000000)
byte = file.read(1)[0]
file.seek(60000000)
file.write(bytes([byte ^ 1]))'
    says "names the tensor" 'tensor "model.layers' stderr
fi

# ---------------------------------------------------------------------------------------------------------------- bench

expect "bench" 0 "$CRUN" bench trained.cllm --json -n 256 --prompt-tokens 16 --runs 2 --vram "${needed}MiB" --vram 64MiB
is_json "bench: all columns, the same logits" stdout "[c['name'][:6] for c in d['columns'][:2]]==['raw','packed'] and len(d['columns'])==4 and all(c['logits_identical'] for c in d['columns'])"
is_json "bench: memory within the budget" stdout "all(c['vram']['own_bytes']<=c['plan']['peak_bytes']<=c['plan']['budget_bytes'] for c in d['columns'])"
if [ -e large.cllm ]; then
    expect "bench of a model that must be streamed" 0 "$CRUN" bench large.cllm --json -n 32 --prompt-tokens 16 --runs 2 --vram 128MiB
    is_json "bench: streamed layers are decoded and timed, the logits the same" stdout "d['columns'][2]['decodes']>0 and d['columns'][2]['average_decode_seconds']>0 and d['columns'][1]['decodes']==0 and all(c['logits_identical'] for c in d['columns'])"
fi

# ------------------------------------------------------------------------------------------------------ memory checker

if [ -x "$SANITIZER" ]; then
    for options in "--residency raw" "--residency packed" "--residency stream --cache-layers 2" "--residency stream --ram 1"; do
        # shellcheck disable=SC2086 # options and their values
        expect "compute-sanitizer: $options" 0 timeout 300 "$SANITIZER" --error-exitcode 66 --leak-check full "$CRUN" trained.cllm --prompt-ids "1 2 3" -n 3 --device cuda $options
    done
else
    skip "memory checker" "no compute-sanitizer"
fi
finish
