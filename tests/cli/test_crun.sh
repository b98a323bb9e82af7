#!/bin/bash
# test_crun.sh - what crun generates, against reference ids and logits, and how it fails. Run from the project root;
# BUILD=build/release. What needs trained models runs where ../shared/data is; synthetic models are made here.
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh
cd "$WORK" || exit 1

# Here the CPU computes, also where there is a GPU; test_crun_gpu.sh has the GPU.
mkdir programs
# shellcheck disable=SC2016 # for the script to expand
printf '#!/bin/sh\nexec "%s" --device cpu "$@"\n' "$CRUN" >programs/crun
chmod +x programs/crun
ANYWHERE=$CRUN
CRUN=$WORK/programs/crun

# model DIRECTORY [KEY=JSON]...: a small random Llama checkpoint without tokenizer; the rest changes config.json (KEY=- deletes),
# and dtype=F32|F16|BF16 the weights. Ids are below 40.
model() {
    $PYTHON - "$@" <<'PYTHON'
import json, os, random, struct, sys
config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 40,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": False}
dtype, drop, extra = "F32", None, {}
for change in sys.argv[2:]:
    key, value = change.split("=", 1)
    if key == "dtype": dtype = value
    elif key == "drop": drop = value
    elif key == "shape": name, shape = value.split(":"); extra[name] = [int(n) for n in shape.split("x")]
    elif value == "-": config.pop(key)
    else: config[key] = json.loads(value)
full = {"num_key_value_heads": config["num_attention_heads"], "head_dim": config["hidden_size"] // config["num_attention_heads"], **config}
hidden, mid, vocab = full["hidden_size"], full["intermediate_size"], full["vocab_size"]
q, kv = full["num_attention_heads"] * full["head_dim"], full["num_key_value_heads"] * full["head_dim"]
tensors = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
if not full["tie_word_embeddings"]: tensors["lm_head.weight"] = [vocab, hidden]
for i in range(full["num_hidden_layers"]):
    at = f"model.layers.{i}."
    tensors |= {at + "input_layernorm.weight": [hidden], at + "post_attention_layernorm.weight": [hidden],
                at + "self_attn.q_proj.weight": [q, hidden], at + "self_attn.k_proj.weight": [kv, hidden],
                at + "self_attn.v_proj.weight": [kv, hidden], at + "self_attn.o_proj.weight": [hidden, q],
                at + "mlp.gate_proj.weight": [mid, hidden], at + "mlp.up_proj.weight": [mid, hidden],
                at + "mlp.down_proj.weight": [hidden, mid]}
    if full.get("attention_bias") or "Qwen2" in full["architectures"][0]:
        tensors |= {at + f"self_attn.{n}_proj.bias": [r] for n, r in (("q", q), ("k", kv), ("v", kv))}
    if full.get("attention_bias"): tensors[at + "self_attn.o_proj.bias"] = [hidden]
    if full.get("mlp_bias"):
        tensors |= {at + f"mlp.{n}_proj.bias": [r] for n, r in (("gate", mid), ("up", mid), ("down", hidden))}
tensors.pop(drop, None)
tensors |= extra
header, data = {}, bytearray()
for name, shape in tensors.items():
    random.seed(name)
    begin, count = len(data), 1
    for n in shape: count *= n
    for _ in range(count):
        value = random.gauss(1 if "norm" in name else 0, 0.25)
        packed = struct.pack("<e" if dtype == "F16" else "<f", value)
        data += packed[2:] if dtype == "BF16" else packed
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
os.makedirs(sys.argv[1], exist_ok=True)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[1] + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
json.dump(config, open(sys.argv[1] + "/config.json", "w"))
PYTHON
}

# packed NAME [KEY=JSON]...: such a model as NAME.cllm.
packed() {
    if ! { model "$@" && "$CPACK" -q "$1" -o "$1.cllm"; }; then
        echo "cannot pack $1" >&2
        exit 1
    fi
}

# A float64 forward pass, written without looking at crun's: rows of logits for ids, compared with a dump.
cat >oracle.py <<'PYTHON'
import json, math, struct, sys
directory, dump, ids = sys.argv[1], sys.argv[2], [int(i) for i in sys.argv[3].split()]
c = json.load(open(directory + "/config.json"))
raw = open(directory + "/model.safetensors", "rb").read()
size = struct.unpack("<Q", raw[:8])[0]
header, data = json.loads(raw[8:8 + size]), raw[8 + size:]
def tensor(name):
    if name not in header: return None
    begin, end = header[name]["data_offsets"]
    dtype, shape, part = header[name]["dtype"], header[name]["shape"], data[begin:end]
    if dtype == "BF16": part = b"".join(b"\0\0" + part[i:i + 2] for i in range(0, len(part), 2))
    values = struct.unpack("<%d%s" % (len(part) // (2 if dtype == "F16" else 4), "e" if dtype == "F16" else "f"), part)
    return values if len(shape) == 1 else [values[r * shape[1]:(r + 1) * shape[1]] for r in range(shape[0])]
def linear(name, x):
    bias = tensor(name + ".bias")
    y = [sum(a * b for a, b in zip(row, x)) for row in tensor(name + ".weight")]
    return [a + b for a, b in zip(y, bias)] if bias else y
def norm(name, x):
    scale = 1 / math.sqrt(sum(v * v for v in x) / len(x) + c.get("rms_norm_eps", 1e-6))
    return [w * v * scale for w, v in zip(tensor(name), x)]
heads = c["num_attention_heads"]
kv_heads, dim = c.get("num_key_value_heads", heads), c.get("head_dim", c["hidden_size"] // heads)
rope = c.get("rope_parameters") or {}
theta = rope.get("rope_theta", c.get("rope_theta", 10000.0))
linear_factor = (rope or c.get("rope_scaling") or {}).get("factor", 1)
window = c.get("sliding_window") or 10**9
def rotate(x, position):
    half, y = dim // 2, list(x)
    for i in range(half):
        angle = position * theta ** (-2 * i / dim) / linear_factor
        y[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return y
def split(x): return [x[i * dim:(i + 1) * dim] for i in range(len(x) // dim)]
stream = [list(tensor("model.embed_tokens.weight")[i]) for i in ids]
for layer in range(c["num_hidden_layers"]):
    at = f"model.layers.{layer}."
    normed = [norm(at + "input_layernorm.weight", x) for x in stream]
    q = [[rotate(h, p) for h in split(linear(at + "self_attn.q_proj", x))] for p, x in enumerate(normed)]
    k = [[rotate(h, p) for h in split(linear(at + "self_attn.k_proj", x))] for p, x in enumerate(normed)]
    v = [split(linear(at + "self_attn.v_proj", x)) for x in normed]
    for p in range(len(ids)):
        mixed = []
        for h in range(heads):
            kv, seen = h // (heads // kv_heads), range(max(0, p - window + 1), p + 1)
            scores = [math.exp(sum(a * b for a, b in zip(q[p][h], k[j][kv])) / math.sqrt(dim)) for j in seen]
            mixed += [sum(s * v[j][kv][i] for s, j in zip(scores, seen)) / sum(scores) for i in range(dim)]
        stream[p] = [a + b for a, b in zip(stream[p], linear(at + "self_attn.o_proj", mixed))]
    for p, x in enumerate(stream):
        y = norm(at + "post_attention_layernorm.weight", x)
        gated = [g / (1 + math.exp(-g)) * u for g, u in zip(linear(at + "mlp.gate_proj", y), linear(at + "mlp.up_proj", y))]
        stream[p] = [a + b for a, b in zip(x, linear(at + "mlp.down_proj", gated))]
head = "lm_head" if "lm_head.weight" in header else "model.embed_tokens"
expected = [v for x in stream for v in linear(head, norm("model.norm.weight", x))]
found = struct.unpack("<%df" % len(expected), open(dump, "rb").read())
nmse = sum((a - b) ** 2 for a, b in zip(found, expected)) / sum(b * b for b in expected)
print("NMSE", nmse)
assert nmse <= 1e-11
PYTHON

ids="1 2 3 5 8 13 21 34 0 39"
packed base

# -------------------------------------------------------------------------------------------------------- help and usage

expect "help exits 0" 0 "$CRUN" --help
says "help teaches by example" 'crun llama.cllm -p' stdout
expect "version exits 0" 0 "$CRUN" --version
expect "no model is a usage error" 2 "$CRUN" -p x
expect "two models are a usage error" 2 "$CRUN" base.cllm words -p x
expect "unknown option is a usage error" 2 "$CRUN" base.cllm --beam 4
expect "two prompts are a usage error" 2 "$CRUN" base.cllm -p x --prompt-ids 1
expect "both directions are a usage error" 2 "$CRUN" base.cllm --tokenize-jsonl --detokenize-jsonl
for value in x -1 1.5 99999999999999999999; do
    expect "-n $value is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 -n $value
done
for option in "--temp nan" "--temp -1" "--top-p 0" "--top-p 1.1" "--min-p 2" "--repeat-penalty 0" "--top-k -1" "--seed x" "-c 0"; do
    # shellcheck disable=SC2086 # an option and its value
    expect "$option is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 $option
done
for value in "1 x" "-1" "4294967296" "1;2" ""; do
    expect "--prompt-ids '$value' is a usage error" 2 "$CRUN" base.cllm --prompt-ids "$value"
done
expect "an id outside the vocabulary is a usage error" 2 "$CRUN" base.cllm --prompt-ids "1 40" -n 1
says "and says what was found and expected" 'token id 40, expected one below 40' stderr
for option in "--vram x" "--vram 0" "--vram -1" "--ram x" "--ram 0" "--residency packet" "--cache-layers x" "--runs 0" "--prompt-tokens 0"; do
    # shellcheck disable=SC2086 # an option and its value
    expect "$option is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 $option
done
expect "cached layers where all stay are a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 --residency raw --cache-layers 2
expect "two budgets are a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 --vram 1GiB --vram 2GiB
expect "bench with a prompt is a usage error" 2 "$CRUN" bench base.cllm -p x
expect "bench of a tokenizer is a usage error" 2 "$CRUN" bench base.cllm --tokenize-jsonl
expect "bench of no tokens is a usage error" 2 "$CRUN" bench base.cllm -n 0
says "and says so" '-n is 0' stderr
for option in "--runs 2" "--prompt-tokens 2"; do
    # shellcheck disable=SC2086 # an option and its value
    expect "$option without bench is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 -n 1 $option
done
for option in "--vram 1GiB" "--ram 1GiB" "--residency raw" "--cache-layers 1"; do
    # shellcheck disable=SC2086 # an option and its value
    expect "$option with --device cpu is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 -n 1 --device cpu $option
done
expect "bench without a model looks for a model of that name" 9 "$CRUN" bench
expect "bench and two models are a usage error" 2 "$CRUN" bench base.cllm words
run "$ANYWHERE" base.cllm --prompt-ids 1 -n 1 --device cuda
if [ "$code" -eq 11 ]; then
    says "--device cuda without a GPU says what to do" '--device cpu' stderr
    expect "--device auto without a GPU is the CPU" 0 "$ANYWHERE" --stats base.cllm --prompt-ids 1 -n 1
    says "and statistics say so" 'device +CPU' stderr
    expect "GPU options do no harm there" 0 "$ANYWHERE" base.cllm --prompt-ids 1 -n 1 --vram 1GiB --residency stream --cache-layers 1
else
    skip "--device cuda without a GPU" "there is one"
fi
expect "bench on the CPU" 0 "$CRUN" bench base.cllm -n 8 --prompt-tokens 4 --runs 2
says "bench: speed" 'generation, tokens/s +[0-9.]+' stdout
says "bench: verdict" '^cpu: [0-9.]+ tokens/s' stdout
expect "bench as JSON" 0 "$CRUN" bench base.cllm --json -n 8 --prompt-tokens 4 --runs 2
is_json "bench: figures of one column" stdout "d['generated_tokens']==8 and d['prompt_tokens']==4 and d['runs']==2 and len(d['columns'])==1 and d['columns'][0]['generated_tokens_per_second']>0 and d['columns'][0]['logits_identical']"
expect "bench in a small context" 0 "$CRUN" bench base.cllm --json -c 10
is_json "bench: prompt and output fill it" stdout "d['prompt_tokens']==5 and d['generated_tokens']==5"
# shellcheck disable=SC2016 # for the inner shell
limited=(bash -c 'ulimit -v 4000000 && exec "$@"' bash "$CRUN")
if nm "$BUILD/crun" 2>/dev/null | grep __asan_init >/dev/null; then
    skip "bench that can measure nothing" "the address sanitizer needs the address space"
elif "${limited[@]}" --version >stdout 2>stderr; then
    expect "bench that can measure nothing is a limit" 8 "${limited[@]}" bench base.cllm -n 2 --prompt-tokens 2 -c 268435456
    says "and says why" 'nothing could be measured; cpu: out of memory' stderr
else
    skip "bench that can measure nothing" "the address space cannot be limited"
fi
expect "unknown device is a usage error" 2 "$CRUN" base.cllm --prompt-ids 1 --device tpu
expect "missing model is an I/O error" 9 "$CRUN" absent.cllm --prompt-ids 1
expect "a model that is not a container is malformed" 3 "$CRUN" base/model.safetensors --prompt-ids 1
expect "errors as JSON" 7 "$CRUN" --json base.cllm -p x
is_json "errors as JSON have code and message" stderr "d['code']==7 and 'tokenizer.json' in d['message']"

# -------------------------------------------------------------------------------------------- logits of synthetic models

# logits NAME [KEY=JSON]...: packs a model and compares the logits of every position with the oracle's.
logits() {
    packed "$@"
    expect "$1 runs" 0 "$CRUN" "$1.cllm" --prompt-ids "$ids" -n 0 --dump-logits "$1.f32"
    check "$1 logits equal float64's" $PYTHON oracle.py "$1" "$1.f32" "$ids"
}
logits float32
logits bfloat16 dtype=BF16
logits float16 dtype=F16
logits tied tie_word_embeddings=true
logits tied_but_stored tie_word_embeddings=true shape=lm_head.weight:40x24
logits missing_fields num_key_value_heads=- head_dim=- rope_theta=-
logits one_kv_head num_key_value_heads=1
logits rope_parameters rope_theta=- 'rope_parameters={"rope_type":"linear","factor":4,"rope_theta":500.0}'
logits rope_scaling 'rope_scaling={"type":"linear","factor":4}'
logits biases attention_bias=true mlp_bias=true
logits qwen2 'architectures=["Qwen2ForCausalLM"]'
logits mistral_window 'architectures=["MistralForCausalLM"]' sliding_window=4
ids=$(seq -s ' ' 0 39)
logits long_prompt

# ---------------------------------------------------------------------------------------------------- output and stopping

run "$CRUN" long_prompt.cllm --prompt-ids "$ids" -n 12 --temp 0 --print-ids --dump-logits whole.f32
generated=$(cat stdout)
check "12 ids on one line" test "$(wc -w <stdout):$(wc -l <stdout)" = 12:1
check "a row of logits for every position" test "$(stat -c %s whole.f32)" = $(((40 + 12) * 40 * 4))
check "greedy ids are those of the highest logits" $PYTHON -c '
import struct, sys
rows = [struct.unpack("<40f", open("whole.f32", "rb").read()[i * 160:i * 160 + 160]) for i in range(52)]
assert [max(range(40), key=row.__getitem__) for row in rows[39:51]] == [int(i) for i in sys.argv[1].split()]' "$generated"
expect "the whole text as a prompt" 0 "$CRUN" long_prompt.cllm --prompt-ids "$ids $generated" -n 0 --dump-logits again.f32
check "logits do not depend on how the text is cut" cmp whole.f32 again.f32
for threads in 1 2 5; do
    run "$CRUN" long_prompt.cllm --prompt-ids "$ids" -n 12 --temp 0 --print-ids --dump-logits threads.f32 -T $threads
    check "logits do not depend on threads ($threads)" cmp whole.f32 threads.f32
done
run "$CRUN" long_prompt.cllm --prompt-ids "${ids// /,}" -n 12 --temp 0 --print-ids
check "ids may be separated by commas" test "$(cat stdout)" = "$generated"
expect "without a tokenizer ids are printed" 0 "$CRUN" long_prompt.cllm --prompt-ids "$ids" -n 12 --temp 0
check "the same ids" test "$(cat stdout)" = "$generated"
says "and a warning says why" 'no tokenizer.json' stderr
expect "-q has no warning" 0 "$CRUN" -q long_prompt.cllm --prompt-ids "$ids" -n 1
check "standard error is empty" test ! -s stderr
run "$CRUN" base.cllm --prompt-ids "1 2" --print-ids -n 20 --seed 5
first=$(cat stdout)
run "$CRUN" base.cllm --prompt-ids "1 2" --print-ids -n 20 --seed 5 -T 1
check "the same seed gives the same ids" test "$(cat stdout)" = "$first"
run "$CRUN" base.cllm --prompt-ids "1 2" --print-ids -n 20 --seed 6
check "another seed gives others" test "$(cat stdout)" != "$first"
expect "--json" 0 "$CRUN" --json base.cllm --prompt-ids "1 2" --print-ids -n 20 --seed 5
is_json "JSON has ids, seed, stop and speed" stdout "' '.join(map(str,d['ids']))=='$first' and d['prompt_ids']==[1,2] and d['seed']==5 and d['stop']=='limit' and d['generated_tokens']==20 and d['exit_code']==0 and d['model']=='base.cllm' and d['text'] is None and d['peak_memory_bytes']>0"
expect "--stats" 0 "$CRUN" --stats base.cllm --prompt-ids "1 2" --print-ids -n 3 --seed 77
says "statistics have the speed" 'generate +3 tokens .* tokens/s' stderr
says "statistics have the seed" 'seed 77' stderr
check "statistics leave standard output alone" test "$(wc -w <stdout)" = 3

# A decoder with byte fallback holds bytes back until it knows what follows: those of the prompt are not generated text.
cat >bytes.json <<'JSON'
{"model":{"type":"BPE","byte_fallback":true,"unk_token":"?","vocab":{"?":0,"<0x0A>":1,"a":2,"<0xC3>":3,"<0xA9>":4},"merges":[]},
"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]},
"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null}
JSON
for prompt in $'a\n' $'a\n\n' 'aé' 'a'; do
    expect "prompt with bytes at its end" 0 "$CRUN" --json base.cllm --tokenizer bytes.json -p "$prompt" -n 9 --seed 3 --temp 5
    is_json "its end is not generated text" stdout "d['text']==''.join('?\\na'[i] if i<3 else '' for i in d['ids']) or set(d['ids'])&{3,4}"
done

# The first id that greedy generation gives becomes an end token.
end=${generated%% *}
packed end_list "eos_token_id=[39,$end]"
run "$CRUN" end_list.cllm --prompt-ids "$ids" -n 12 --temp 0 --print-ids
check "generation stops after an end token" test "$(cat stdout)" = "$end"
run "$CRUN" end_list.cllm --prompt-ids "$ids" -n 12 --temp 0 --print-ids --ignore-eos
check "--ignore-eos goes on" test "$(cat stdout)" = "$generated"
echo "{\"eos_token_id\":$end}" >long_prompt/generation_config.json
"$CPACK" -q long_prompt -o generation.cllm
expect "end token of generation_config.json" 0 "$CRUN" --json generation.cllm --prompt-ids "$ids" -n 12 --temp 0
is_json "is one too, and named as the reason" stdout "d['ids']==[$end] and d['stop']=='end'"

expect "generation ends where the context does" 0 "$CRUN" --json base.cllm --prompt-ids "1 2" -c 8
is_json "context 8 has room for 7 ids after 2, the last without a position" stdout "len(d['ids'])==7 and d['stop']=='context'"
expect "a prompt as long as the context" 0 "$CRUN" base.cllm --prompt-ids "1 2 3" -c 3 -n 1
expect "a prompt beyond the context is a limit" 8 "$CRUN" base.cllm --prompt-ids "1 2 3 4" -c 3 -n 1
says "and says how long both are" 'has 4 tokens, the context holds 3' stderr
expect "a prompt beyond the model's context is a limit" 8 "$CRUN" base.cllm --prompt-ids "$ids $ids" -n 1
expect "-c beyond the model's positions warns" 0 "$CRUN" base.cllm --prompt-ids "$ids $ids" -n 1 -c 100
says "with both numbers" '-c 100: the model was made for 64' stderr

mkdir readonly
expect "unwritable logits are an I/O error" 9 "$CRUN" base.cllm --prompt-ids 1 -n 1 --dump-logits absent/x.f32
expect "failure after opening the logits" 2 "$CRUN" base.cllm --prompt-ids 99 -n 1 --dump-logits readonly/x.f32
is_empty "leaves no half-written logits" readonly
cp base.cllm own.cllm
expect "logits do not replace the model" 2 "$CRUN" own.cllm --prompt-ids 1 -n 1 --dump-logits ./own.cllm
check "which is as it was" cmp own.cllm base.cllm
# shellcheck disable=SC2016 # for sh
expect "a signal while the prompt is waited for" 143 \
    sh -c 'sleep 2 | timeout --preserve-status -s TERM 0.5 "$0" base.cllm --tokenizer bytes.json -n 1' "$CRUN"
says "is no failure to read" 'interrupted' stderr
run sh -c '"$0" "$@" >/dev/full' "$CRUN" base.cllm --prompt-ids 1 -n 1 --print-ids
check "a full disk is an I/O error" test "$code" = 9

# ------------------------------------------------------------------------------------------------ checkpoints that cannot run

# refused NAME CODE PATTERN [KEY=JSON]...
refused() {
    local name=$1 expected=$2 pattern=$3
    shift 3
    packed bad "$@"
    expect "$name" "$expected" "$CRUN" bad.cllm --prompt-ids 1 -n 1
    says "$name: message" "$pattern" stderr
    rm -rf bad bad.cllm
}
refused "unknown architecture is unsupported" 5 'GPT2LMHeadModel.*LlamaForCausalLM' 'architectures=["GPT2LMHeadModel"]'
refused "longrope is unsupported" 5 'longrope' 'rope_scaling={"rope_type":"longrope"}'
refused "missing tensor" 7 'model.layers.1.mlp.up_proj.weight' drop=model.layers.1.mlp.up_proj.weight
refused "missing head" 7 'lm_head.weight' drop=lm_head.weight
refused "wrong shape" 3 'model.norm.weight.* \[25\], expected \[24\]' shape=model.norm.weight:25
refused "transposed matrix" 3 '\[24, 40\], expected \[40, 24\]' shape=lm_head.weight:24x40
refused "wrong rank" 3 '\[24, 1\], expected \[24\]' shape=model.norm.weight:24x1
echo '{"architectures":["LlamaForCausalLM"],"hidden_size":1e9}' >base/config.json
"$CPACK" -q base -o sizes.cllm
expect "a size out of range is malformed" 3 "$CRUN" sizes.cllm --prompt-ids 1
"$CPACK" -q --only-weights base/model.safetensors -o weights.cllm
expect "weights without config.json" 7 "$CRUN" weights.cllm --prompt-ids 1
safetensors integers.safetensors model.embed_tokens.weight:I32:40x24
cp float32/config.json config.json && "$CPACK" -q integers.safetensors -o integers.cllm && rm config.json
expect "integer weights are unsupported" 5 "$CRUN" integers.cllm --prompt-ids 1
says "integer weights: message" 'I32.*BF16, F16 and F32' stderr
$PYTHON -c '
data = bytearray(open("float32.cllm", "rb").read())
data[len(data) // 3] ^= 1
open("damaged.cllm", "wb").write(data)'
expect "a flipped bit in the weights is an integrity failure" 4 "$CRUN" damaged.cllm --prompt-ids 1

# ----------------------------------------------------------------------------------------------------- synthetic models

if [ -x "$BUILD/tests/mkmodel" ]; then
    expect "mkmodel writes a checkpoint" 0 "$BUILD/tests/mkmodel" tiny made
    says "and calls it synthetic" 'synthetic checkpoint of shape tiny: 30 BF16 tensors' stdout
    run "$BUILD/tests/mkmodel" -T 1 tiny made1
    check "the same bytes with one thread" test "$(listing made)" = "$(listing made1)"
    run "$BUILD/tests/mkmodel" -s 2 tiny made2
    check "another seed, other weights" test "$(listing made)" != "$(listing made2)"
    expect "cpack packs it" 0 "$CPACK" -q made -o made.cllm
    expect "crun runs it" 0 "$CRUN" --json made.cllm -p "some words" -n 24 --temp 0
    is_json "text, and ids above the bytes" stdout "isinstance(d['text'],str) and len(d['ids'])==24 and max(d['prompt_ids'])>257"
    cp stdout expected
    run "$BUILD/tests/mkmodel" -S 100K made/config.json sharded
    check "the same checkpoint in files of 100 KiB" test "$(find sharded -name 'model-*-of-*.safetensors' | wc -l)" = 4
    expect "cpack packs them all" 0 "$CPACK" -q sharded -o sharded.cllm
    expect "crun runs it the same" 0 "$CRUN" --json sharded.cllm -p "some words" -n 24 --temp 0
    is_json "same ids" stdout "d['ids']==json.load(open('expected'))['ids']"
    expect "mkmodel F16" 0 "$BUILD/tests/mkmodel" -d F16 tiny made16
    expect "mkmodel without a shape" 2 "$BUILD/tests/mkmodel" made
    expect "mkmodel of an absent config.json" 1 "$BUILD/tests/mkmodel" absent.json made
else
    skip "synthetic models" "no tests/mkmodel in $BUILD"
fi

# ------------------------------------------------------------------------------------------------------- trained models

# golden NAME DIRECTORY REFERENCE: greedy ids, logits and text of every case.
golden() {
    "$CPACK" -q "$2" -o golden.cllm -f || { not_ok "$1" "cannot pack"; return; }
    check "$1: greedy ids, logits and text" $PYTHON - "$CRUN" "$3" <<'PYTHON'
import json, struct, subprocess, sys
crun, reference = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
def run(*options):
    return subprocess.run([crun, "golden.cllm", "--temp", "0", *options], check=True, capture_output=True, text=True).stdout
for case in reference["cases"]:
    prompt = case.get("input_ids", case.get("prompt_ids"))
    ids = case.get("greedy_ids_fp32", case.get("greedy_ids"))[len(prompt):]
    logits = case.get("last_logits_fp32", case.get("last_prompt_logits_f64"))
    length = ["-n", str(len(ids))]
    found = run("--prompt-ids", " ".join(map(str, prompt)), "--print-ids", "--dump-logits", "golden.f32", *length)
    assert [int(i) for i in found.split()] == ids, (case["prompt"], found)
    width = 4 * len(logits)
    raw = open("golden.f32", "rb").read()
    assert len(raw) == (len(prompt) + len(ids)) * width
    last = struct.unpack("<%df" % len(logits), raw[(len(prompt) - 1) * width:len(prompt) * width])
    nmse = sum((a - b) ** 2 for a, b in zip(last, logits)) / sum(b * b for b in logits)
    assert nmse <= 1e-9, nmse
    for step, (top, logit, _) in enumerate(case.get("steps_top1_logit_margin", [])):
        at = (len(prompt) - 1 + step) * width + 4 * top
        assert abs(struct.unpack("<f", raw[at:at + 4])[0] - logit) < 1e-4, step
    text = case.get("greedy_text")
    whole = case["prompt"] if text is None else ""
    assert whole + run("-p", case["prompt"], *length) == (case["text"] if text is None else text) + "\n", case["prompt"]
PYTHON
}
if [ -d "$DATA/shakespeare-llama" ]; then
    golden "shakespeare-llama" "$DATA/shakespeare-llama" "$DATA/shakespeare-llama-reference.json"
    for name in stories260K-f32 stories260K-bf16 babyllama105-bf16; do
        golden "$name" "$DATA/real-weights/$name" "$DATA/real-weights/$name/golden.json"
    done
    "$CPACK" -q "$DATA/shakespeare-llama" -o trained.cllm
    run "$CRUN" trained.cllm -p "ROMEO:" -n 16 --temp 0
    cp stdout expected
    printf 'ROMEO:\n' >prompt
    run "$CRUN" trained.cllm -f prompt -n 16 --temp 0
    check "-f reads the prompt without its last line feed" cmp stdout expected
    "$CRUN" trained.cllm -n 16 --temp 0 <prompt >stdout
    check "so does standard input" cmp stdout expected
    expect "the text as JSON" 0 "$CRUN" trained.cllm --json -p "ROMEO:" -n 16 --temp 0
    is_json "JSON has the same text" stdout "d['text']+'\n'==open('expected').read() and d['prompt_ids']==[0,848,27]"
    run "$CRUN" trained.cllm --json -p "ROMEO:" -n 1 --no-special
    is_json "--no-special adds no token" stdout "d['prompt_ids']==[848,27]"
    printf '"ROMEO:"\n' | "$CRUN" trained.cllm --tokenize-jsonl >stdout
    check "--tokenize-jsonl" test "$(tr -d ' ' <stdout)" = "[0,848,27]"
    printf '[0,848,27]\n' | "$CRUN" --tokenizer "$DATA/shakespeare-llama/tokenizer.json" --detokenize-jsonl --no-special >stdout
    check "--detokenize-jsonl needs no model" test "$(cat stdout)" = '"ROMEO:"'
    expect "--tokenizer that is not there" 9 "$CRUN" trained.cllm --tokenizer absent.json -p x
    run "$CRUN" trained.cllm -p "" -n 1
    check "an empty text has the token that the tokenizer adds" test "$code" = 0
    expect "an empty text without it is a usage error" 2 "$CRUN" trained.cllm -p "" -n 1 --no-special
else
    skip "trained models" "no ../shared/data"
fi
finish
