#!/usr/bin/env python3
"""Compares crun's tokenizer with the Python `tokenizers` library (pip install tokenizers==0.23.*) on random strings and ids.

    tests/tools/fuzz_tokenizer.py --program build/release/crun --count 100000 ../shared/data/tokenizers/*/tokenizer.json
    tests/tools/fuzz_tokenizer.py --program build/release/crun --components 300 --count 500

The first form checks whole tokenizers, the second random combinations of components over a small vocabulary. Each string is
encoded with and without special tokens, its ids and a random sequence of ids are decoded with and without special tokens.
Prints one line per tokenizer and the first differences; exits 1 if there was any.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a panic of the library in one of its threads would hang it

from tokenizers import Tokenizer  # noqa: E402

RANGES = [  # scripts, symbols and corners of Unicode
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x530, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F),
    (0x2070, 0x218F), (0x2190, 0x22FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x2E80, 0x2FDF), (0x3000, 0x30FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xE010), (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF), (0xFE00, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x11FFF), (0x13430, 0x13460), (0x16100, 0x16140),
    (0x16D40, 0x16D80), (0x1CC00, 0x1CEB3), (0x1D400, 0x1D7FF), (0x1E000, 0x1EEFF), (0x1F000, 0x1FAFF), (0x1FB00, 0x1FBFF),
    (0x20000, 0x2A6DF), (0x2EBF0, 0x323AF), (0xE0000, 0xE01EF), (0xF0000, 0xF0010), (0x10FFF0, 0x10FFFF), (0x1, 0x10FFFF),
]
WORDS = """the of and to in is that it was for on are with as his they at be this from I have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down only
way find use may water long little very after words called just where most know naïve façade Straße ŒUVRE Ελλάδα привет мир
你好 世界 日本語 テスト 한국어 العربية עברית हिन्दी ไทย don't we're I'll you've it's he'd I'm CAN'T WE'RE I'LL return def
int main(void) { printf("%d\\n", x); } https://example.org/a?b=c&d=e 3.14159 1,000,000 2024-01-01 0x1F $5.00 50% C++ #tag
@user __init__ foo_bar fooBar ﬁ ﬂ ½ ² ① ⅷ Ⅷ ǅ ŉ İ ı ſ K Å ẞ""".split()
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u180e", "\u2028",
          "\u0085", "\x0b", "\x0c", "\ufeff", " " * 17, "\n" * 5, "\t\t"]
PIECES = ["'s", "'S", "'ſ", "'t", "'re", "'VE", "'m", "'ll", "'D", "''", "...", "!!!", "—", "“q”", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷",
          "e\u0301", "\u0301", "a\u0323\u0307", "q\u0307\u0323", "\u1100\u1161\u11a8", "한\u11a8", "\u0344", "\u0958", "\ufdfa",
          "\u2126", "\u0f73", "\u1e9b\u0323", "ﷺ", "Å", "\x00", "\ufffd", "\uffff", "\U0010ffff", "<0x41>", "<0xE2>", "▁", "▁▁",
          "Ġ", "ĠĠ", "Ċ", "<unk>", "_", "½", "٣", "१२३", "①②", "x²", "\u0345", "\u00ad", "\u0378", "\U000e0041"]


def random_text(rng, specials):
    parts = []
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13))):
        kind = rng.random()
        if kind < 0.30:
            parts.append(rng.choice(WORDS))
        elif kind < 0.50:
            parts.append(rng.choice(SPACES))
        elif kind < 0.62:
            parts.append(rng.choice(PIECES))
        elif kind < 0.72:
            low, high = rng.choice(RANGES)
            for _ in range(rng.randint(1, 6)):
                c = rng.randint(low, high)
                parts.append(chr(c) if not 0xD800 <= c <= 0xDFFF else "?")
        elif kind < 0.78:
            parts.append("".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 3, 4, 7, 20)))))
        elif kind < 0.86 and specials:
            token = rng.choice(specials)
            cut = rng.random()
            parts.append(token if cut < 0.8 else token[: rng.randint(0, len(token))] if cut < 0.9 else token.upper())
        elif kind < 0.90:
            parts.append(rng.choice((rng.choice(WORDS), rng.choice(PIECES), "a", "=", "-", " ")) * rng.choice((2, 3, 9, 40, 150)))
        elif kind < 0.97:
            parts.append("".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 12))))
        if kind > 0.3 and rng.random() < 0.4:
            parts.append(" ")
    return "".join(parts)


def random_ids(rng, vocab_size, bytes_ids):
    ids = []
    for _ in range(rng.choice((0, 1, 2, 3, 8, 20))):
        kind = rng.random()
        if kind < 0.4 and bytes_ids:
            ids.append(rng.choice(bytes_ids))
        elif kind < 0.97:
            ids.append(rng.randrange(vocab_size))
        else:
            ids.append(rng.choice((vocab_size, vocab_size + 1000, 2**32 - 1, 0)))
    return ids


def run_program(program, tokenizer, options, values):
    with tempfile.TemporaryFile("w+") as source:
        for value in values:
            source.write(json.dumps(value) + "\n")
        source.seek(0)
        result = subprocess.run([program, "--tokenizer", tokenizer] + options, stdin=source, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in result.stdout.decode().split("\n") if line]


class Comparison:
    def __init__(self, program, path, shown):
        self.program, self.path, self.shown = program, path, shown
        self.compared = self.differences = 0

    def check(self, what, options, values, expected):
        found = run_program(self.program, self.path, options, values)
        if len(found) != len(expected):
            raise SystemExit(f"{self.path}: {what}: {len(found)} lines, expected {len(expected)}")
        for value, ours, theirs in zip(values, found, expected):
            self.compared += 1
            if ours == theirs:
                continue
            self.differences += 1
            if self.differences <= self.shown:
                print(f"  {what} {json.dumps(value)}\n    found    {json.dumps(ours)}\n    expected {json.dumps(theirs)}")

    def batch(self, tokenizer, texts, id_lists):
        encode = ["--tokenize-jsonl"]
        decode = ["--detokenize-jsonl"]
        plain = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        full = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=True)]
        self.check("encode", encode, texts, full)
        self.check("encode plain", encode + ["--no-special"], texts, plain)
        ids = full + id_lists
        self.check("decode", decode, ids, tokenizer.decode_batch(ids, skip_special_tokens=False))
        self.check("decode skip", decode + ["--no-special"], ids, tokenizer.decode_batch(ids, skip_special_tokens=True))


def fuzz_file(path, arguments, rng):
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    added = tokenizer.get_added_tokens_decoder()
    specials = [token.content for token in added.values()]
    vocab = tokenizer.get_vocab()
    bytes_ids = [i for t, i in vocab.items() if len(t) == 1 or (len(t) == 6 and t.startswith("<0x"))]
    comparison = Comparison(arguments.program, path, arguments.shown)
    done = 0
    while done < arguments.count:
        count = min(20000, arguments.count - done)
        texts = [random_text(rng, specials) for _ in range(count)]
        id_lists = [random_ids(rng, max(vocab.values()) + 1, bytes_ids) for _ in range(count)]
        comparison.batch(tokenizer, texts, id_lists)
        done += count
    print(f"{path}: {done} strings, {comparison.compared} comparisons, {comparison.differences} differences", flush=True)
    return comparison.differences


# --------------------------------------------------------------------------------------------------------- components

REGEXES = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    r"[一-龥぀-ゟ゠-ヿ]+", r"\w+|[^\w\s]+", r"\s", r"\d{2}+", r"[\p{P}\p{S}]", r"^a|b$", r"\bt",
    r"\Bt", r"\p{Han}", r"(?:ab|a)(?<!x)", r"[\s\S]{3}", r"", r"x*", r"(?i)th|ER", r"a(?i)b|c",
    r"(?m:a.)", r"[^\S\n]+", r"\W", r"\h+",
    r"(?<=\s)\S", r"e{,2}", r"[\w]+", r"\R+", r"o++", r"l{2}?", r"\u0041|\x{4e16}", r"[[:space:]]", r"(?>t|th)e", r"\p{^L}+",
]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def random_pattern(rng):
    if rng.random() < 0.5:
        return {"Regex": rng.choice(REGEXES)}
    return {"String": rng.choice([" ", "a", "th", ".", "▁", "\n", "e\u0301", "(", "0"])}


def random_replacement(rng, contents):
    """Not a pattern that matches nothing: the library then repeats text when it cuts the result."""
    pattern = random_pattern(rng)
    while pattern.get("Regex") in ("", "x*", r"l{2}?"):
        pattern = random_pattern(rng)
    return {"type": "Replace", "pattern": pattern, "content": rng.choice(contents)}


def random_metaspace(rng):
    return {"type": "Metaspace", "replacement": rng.choice("▁_ "), "prepend_scheme": rng.choice(["always", "first", "never"]),
            "split": rng.random() < 0.5}


def random_normalizer(rng):
    return rng.choice([
        {"type": rng.choice(["NFC", "NFD", "NFKC", "NFKD"])}, {"type": "Lowercase"},
        {"type": "Prepend", "prepend": rng.choice(["▁", "ab"])},
        random_replacement(rng, ["▁", "", "xy"]),
        {"type": "Strip", "strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}])


def random_pre_tokenizer(rng):
    return rng.choice([
        {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": True, "use_regex": rng.random() < 0.5},
        {"type": "Split", "pattern": random_pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.5},
        {"type": "Split", "pattern": random_pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": False},
        {"type": "Digits", "individual_digits": rng.random() < 0.5}, random_metaspace(rng),
        {"type": "Punctuation", "behavior": rng.choice(BEHAVIORS)}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}])


def random_decoder(rng):
    return rng.choice([
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        random_replacement(rng, [" ", "", "xy"]), random_metaspace(rng),
        {"type": "Strip", "content": rng.choice(" ▁a"), "start": rng.randint(0, 2), "stop": 0}])


def random_sequence(rng, make, key):
    count = rng.choice((0, 1, 1, 2, 3))
    if count == 0:
        return None
    return make(rng) if count == 1 else {"type": "Sequence", key: [make(rng) for _ in range(count)]}


def random_model(rng):
    characters = [chr(c) for c in range(0x21, 0x144) if c not in range(0x7F, 0xA1) and c != 0xAD]
    tokens = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if rng.random() < 0.5 else []) + characters
    tokens += [t for t in ("▁", " ", "\n", "你", "é") if t not in tokens and rng.random() < 0.8]
    prefix, suffix = rng.choice([(None, None)] * 4 + [("##", None), (None, "</w>"), ("##", "</w>")])
    if prefix:
        tokens += [prefix + c for c in characters]
    if suffix:
        tokens += [t + suffix for t in tokens if not t.startswith("<")]
    seen, merges = set(tokens), []
    if not prefix:
        for _ in range(3000):
            usual = rng.choice("ĠĠ▁ ") + rng.choice(WORDS) if rng.random() < 0.8 else rng.choice(["000", "    ", "ĠĠĠĠ", "ab"])
            cut = rng.randint(1, max(1, len(usual) - 1))
            end = rng.randint(cut, len(usual))
            start = rng.randint(0, cut)
            left, right = usual[start:cut], usual[cut:end]
            if left in seen and right in seen and left and right:
                merges.append([left, right])
                if left + right not in seen:
                    seen.add(left + right)
                    tokens.append(left + right)
    unique = [list(m) for m in dict.fromkeys(map(tuple, merges))]
    return {"type": "BPE", "dropout": None, "unk_token": rng.choice([None, "<unk>"]), "continuing_subword_prefix": prefix,
            "end_of_word_suffix": suffix, "fuse_unk": rng.random() < 0.5, "byte_fallback": rng.random() < 0.5,
            "ignore_merges": rng.random() < 0.3, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": unique}


def random_added(rng, model):
    contents = ["<s>", "</s>", "<|a|>", "<|a|>b", "the", "The", "  ", "\n", "é", "<unk>", "1", "ab c", "Å"]
    added = []
    for content in rng.sample(contents, rng.randint(0, 6)):
        known = model["vocab"].get(content)
        added.append({"id": known if known is not None else 100000, "content": content, "single_word": rng.random() < 0.3,
                      "lstrip": rng.random() < 0.3, "rstrip": rng.random() < 0.3, "normalized": rng.random() < 0.5,
                      "special": rng.random() < 0.5})
    return added


def random_tokenizer(rng):
    model = random_model(rng)
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"X": {"id": "X", "ids": [1, 2], "tokens": ["a", "b"]}}}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": random_added(rng, model),
            "normalizer": random_sequence(rng, random_normalizer, "normalizers"),
            "pre_tokenizer": random_sequence(rng, random_pre_tokenizer, "pretokenizers"),
            "post_processor": rng.choice([None, template]),
            "decoder": random_sequence(rng, random_decoder, "decoders"), "model": model}


def is_ambiguous(tokenizer, definition):
    """Whether two added tokens become the same text (the library takes either, from run to run) or one becomes nothing (the
    library panics)."""
    contents = [token["content"] for token in definition["added_tokens"] if token["normalized"]]
    if tokenizer.normalizer:
        contents = [tokenizer.normalizer.normalize_str(content) for content in contents]
    return len(set(contents)) != len(contents) or "" in contents


def survives(function, argument):
    """Whether the library copes with the argument; it panics on some, in corners that no answer is right for."""
    try:
        function(argument)
        return True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return False


def fuzz_components(arguments, rng):
    differences = strings = comparisons = refused = 0
    for number in range(arguments.components):
        definition = random_tokenizer(rng)
        text = json.dumps(definition)
        if not survives(Tokenizer.from_str, text) or is_ambiguous(Tokenizer.from_str(text), definition):
            refused += 1  # by the library, or not the same twice: nothing to compare
            continue
        tokenizer = Tokenizer.from_str(text)
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            file.write(text)
        comparison = Comparison(arguments.program, file.name, arguments.shown)
        specials = [token["content"] for token in definition["added_tokens"]]
        bytes_ids = [i for t, i in definition["model"]["vocab"].items() if t.startswith("<0x")]
        texts = [random_text(rng, specials) for _ in range(arguments.count)]
        texts = [text for text in texts if survives(tokenizer.encode, text)]
        id_lists = [random_ids(rng, tokenizer.get_vocab_size(), bytes_ids) for _ in range(arguments.count)]
        try:
            comparison.batch(tokenizer, texts, id_lists)
        except subprocess.CalledProcessError as error:
            print(f"  {error}")
            comparison.differences += 1
        if comparison.differences:
            parts = {k: v for k, v in definition.items() if k not in ("model", "version", "truncation", "padding")}
            parts["model"] = {k: v for k, v in definition["model"].items() if k not in ("vocab", "merges")}
            print(f"combination {number}: {comparison.differences} differences, {file.name}: {json.dumps(parts)}", flush=True)
        else:
            os.unlink(file.name)
        differences += comparison.differences
        comparisons += comparison.compared
        strings += len(texts)
    print(f"components: {arguments.components - refused} combinations, {strings} strings, {comparisons} comparisons, "
          f"{differences} differences")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", help="tokenizer.json files")
    parser.add_argument("--program", default="build/release/crun")
    parser.add_argument("--count", type=int, default=100000, help="strings per tokenizer")
    parser.add_argument("--components", type=int, default=0, help="random combinations of components to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shown", type=int, default=3, help="differences shown per tokenizer")
    arguments = parser.parse_args()
    differences = 0
    for path in arguments.files:
        differences += fuzz_file(path, arguments, random.Random(arguments.seed))
    if arguments.components:
        differences += fuzz_components(arguments, random.Random(arguments.seed))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
