#!/usr/bin/python3
"""Writes synthetic safetensors checkpoints: every dtype, every edge. Standard library only; same options, same bytes.

    mksafetensors.py out.safetensors                       all dtypes, sizes around block and chunk edges (about 40 MB)
    mksafetensors.py --dtypes BF16,F32 --max-elements 4097 out.safetensors
    mksafetensors.py --shards 3 outdir                     the same tensors as a sharded checkpoint with its small files
"""
import argparse
import array
import json
import os
import random
import struct
import sys

# name: (bits per element, exponent shift, exponent bits); exponent bits 0 where the dtype is no float
DTYPES = {
    "BOOL": (8, 0, 0), "F4": (4, 1, 2), "F6_E2M3": (6, 3, 2), "F6_E3M2": (6, 2, 3), "U8": (8, 0, 0), "I8": (8, 0, 0),
    "F8_E5M2": (8, 2, 5), "F8_E4M3": (8, 3, 4), "F8_E8M0": (8, 0, 8), "F8_E4M3FNUZ": (8, 3, 4), "F8_E5M2FNUZ": (8, 2, 5),
    "I16": (16, 0, 0), "U16": (16, 0, 0), "F16": (16, 10, 5), "BF16": (16, 7, 8), "I32": (32, 0, 0), "U32": (32, 0, 0),
    "F32": (32, 23, 8), "C64": (64, 23, 8), "F64": (64, 52, 11), "I64": (64, 0, 0), "U64": (64, 0, 0),
}
EDGES = [1, 2, 31, 32, 33, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097,
         32767, 32768, 32769, 65535, 65536, 65537]
POOL_ELEMENTS = 1 << 17


def pack(values, bits):
    """Unsigned element values to bytes, the first element in the lowest bits; sub-byte counts must fill whole bytes."""
    if bits in (8, 16, 32, 64):
        data = array.array({8: "B", 16: "H", 32: "I", 64: "Q"}[bits], values)
        if sys.byteorder == "big":
            data.byteswap()
        return data.tobytes()
    group = 2 if bits == 4 else 4  # elements that fill one or three bytes
    out = bytearray()
    for i in range(0, len(values), group):
        word = sum(value << (bits * k) for k, value in enumerate(values[i:i + group]))
        out += word.to_bytes(bits * group // 8, "little")
    return bytes(out)


def whole(count, bits):
    """The next element count that fills whole bytes."""
    group = {4: 2, 6: 4}.get(bits, 1)
    return -(-count // group) * group


def floats_to(dtype, floats):
    """Python floats as elements of a wide float dtype, by truncation."""
    if dtype == "F64":
        return struct.pack("<%dd" % len(floats), *floats)
    if dtype in ("F32", "C64"):
        return struct.pack("<%df" % len(floats), *floats)
    if dtype == "F16":
        return struct.pack("<%de" % len(floats), *floats)
    single = struct.pack("<%df" % len(floats), *floats)
    out = bytearray(2 * len(floats))
    out[0::2] = single[2::4]
    out[1::2] = single[3::4]
    return bytes(out)


class Generator:
    """Contents by seed. Gaussian numbers come from one pool, read from a different place for each tensor."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pool = [self.random.gauss(0.0, 0.02) for _ in range(POOL_ELEMENTS)]
        self.packed = {}

    def gaussian(self, dtype, count):
        bits = DTYPES[dtype][0]
        wide = {"F64": "F64", "F32": "F32", "C64": "F32", "F16": "F16", "F8_E5M2": "F16", "F8_E5M2FNUZ": "F16"}.get(dtype, "BF16")
        if wide not in self.packed:
            self.packed[wide] = floats_to(wide, self.pool)
        data, width = self.packed[wide], {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}[wide]
        if bits == 8:  # sign and exponent byte of a half; for the others near enough to what such weights look like
            data, width = data[1::2], 1
        byte_count = count * bits // 8
        start = self.random.randrange(len(data) // width) * width
        data = data[start:] + data[:start]
        return (data * (byte_count // len(data) + 1))[:byte_count]

    def uniform(self, dtype, count):
        if dtype == "BOOL":
            return bytes(self.random.getrandbits(1) for _ in range(count))
        return self.random.randbytes(count * DTYPES[dtype][0] // 8)

    def small_integers(self, dtype, count):
        """Few distinct values around zero, as indices and quantised weights have."""
        bits = DTYPES[dtype][0]
        return pack([self.random.choice((0, 0, 0, 1, 1, 2, 3, (1 << bits) - 1)) for _ in range(count)], bits)


def specials(dtype):
    """Every class of element: for floats both zeros, smallest and largest denormals and normals, infinities and NaNs, quiet
    and signalling, with several payloads (what the patterns mean differs in the small formats, all are stored alike)."""
    bits, shift, width = DTYPES[dtype]
    if dtype == "BOOL":
        return [0, 1, 2, 255]
    if width == 0:
        top = 1 << (bits - 1)
        return [0, 1, top - 1, top, top + 1, 2 * top - 1]
    if dtype == "C64":
        halves = specials("F32")
        return [a | b << 32 for a in halves for b in halves[::3]]
    if dtype == "F8_E8M0":
        return list(range(256))
    ones = (1 << width) - 1
    quiet = 1 << shift >> 1
    mantissas = sorted({0, 1, quiet, quiet | 1, (1 << shift) - 1, (1 << shift) // 3})
    exponents = sorted({0, 1, ones >> 1, ones - 1, ones})
    return [sign << (shift + width) | e << shift | m & ((1 << shift) - 1)
            for sign in (0, 1) for e in exponents for m in mantissas]


def skewed_exponents(dtype, generator):
    """Exponents with Fibonacci frequencies: the deepest code trees that a Huffman builder can be made to make."""
    bits, shift, width = DTYPES[dtype]
    values, a, b = [], 1, 1
    for exponent in range(min(1 << width, 20)):
        values += [exponent << shift] * a
        a, b = b, a + b
    generator.random.shuffle(values)
    mask = (1 << shift) - 1
    return [value | generator.random.getrandbits(shift) & mask if shift else value for value in values]


def tensors_of(dtype, generator, max_elements):
    """Yields (name, shape, bytes)."""
    bits, shift, width = DTYPES[dtype]
    sizes = sorted({whole(size, bits) for size in EDGES if size <= max_elements})
    fill = generator.gaussian if width else generator.uniform
    for shape in ([0], [0, 7], [3, 0, 2]):
        yield "empty." + "x".join(map(str, shape)), shape, b""
    if bits >= 8:
        yield "scalar", [], fill(dtype, 1)
    for size in sizes:
        yield "edge.%d" % size, [size], fill(dtype, size)
    values = specials(dtype)
    cycle = (values * (4096 // len(values) + 1))[:4096]
    yield "special", [64, 64], pack(cycle, bits)
    largest = whole(min(max_elements, 65537), bits)
    for i, value in enumerate((0, values[-1], values[len(values) // 2])):
        for size in {whole(1, bits), whole(33, bits), largest}:
            yield "equal.%d.%d" % (i, size), [size], pack([value] * size, bits)
    count = whole(min(max_elements, 40000), bits)
    yield "uniform", [2, count // 2] if count % 2 == 0 else [count], generator.uniform(dtype, count)
    if width == 0:
        yield "small", [count], generator.small_integers(dtype, count)
        return
    sprinkled = bytearray(fill(dtype, count))  # outliers in otherwise smooth weights
    for value in values if bits >= 8 else ():
        at = generator.random.randrange(count) * bits // 8
        sprinkled[at:at + bits // 8] = pack([value], bits)
    yield "sprinkled", [count], bytes(sprinkled)
    if bits >= 8:
        skewed = skewed_exponents(dtype, generator)
        yield "skewed", [len(skewed)], pack(skewed, bits)


def write_file(path, tensors, generator):
    """Data in shuffled order, header sorted by name: the two orders differ, and tensors are not aligned."""
    order = list(tensors)
    generator.random.shuffle(order)
    header, offset = {}, 0
    for name, dtype, shape, data in order:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    entries = {"__metadata__": {"format": "pt", "note": "synthetic; caf\u00e9 \u2603"}}
    entries.update(sorted(header.items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, data in order:
            file.write(data)


def write_shards(directory, tensors, shard_count, generator):
    os.makedirs(directory, exist_ok=True)
    weight_map, total_size = {}, 0
    for i in range(shard_count):
        name = "model-%05d-of-%05d.safetensors" % (i + 1, shard_count)
        mine = tensors[i::shard_count]
        write_file(os.path.join(directory, name), mine, generator)
        weight_map.update((tensor[0], name) for tensor in mine)
        total_size += sum(len(tensor[3]) for tensor in mine)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    small = {"model.safetensors.index.json": json.dumps(index, indent=2) + "\n", "config.json": '{"model_type": "synthetic"}\n',
             "README.md": "Synthetic tensors.\n", "generation_config.json": "{}\n", "vocab.txt": ""}
    for name, text in small.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="file, or with --shards directory, to write")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="comma-separated (default: all 22)")
    parser.add_argument("--max-elements", type=int, default=65537, metavar="N", help="leave out larger tensors (default 65537)")
    parser.add_argument("--gaussian", type=int, default=0, metavar="N", help="add a Gaussian tensor of N elements (with a period of 131072) for each float")
    parser.add_argument("--shards", type=int, default=0, metavar="N", help="a sharded checkpoint in a directory")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    generator = Generator(options.seed)
    tensors = []
    for dtype in options.dtypes.split(","):
        if dtype not in DTYPES:
            parser.error("unknown dtype %s, expected one of %s" % (dtype, " ".join(DTYPES)))
        tensors += [("%s.%s" % (dtype, name), dtype, shape, data)
                    for name, shape, data in tensors_of(dtype, generator, options.max_elements)]
        if options.gaussian and DTYPES[dtype][2]:
            count = whole(options.gaussian, DTYPES[dtype][0])
            tensors.append(("%s.gaussian" % dtype, dtype, [count], generator.gaussian(dtype, count)))
    if options.shards:
        write_shards(options.output, tensors, options.shards, generator)
    else:
        write_file(options.output, tensors, generator)


if __name__ == "__main__":
    main()
