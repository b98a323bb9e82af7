#!/usr/bin/env python3
"""Sizes of weights that were quantised and written as floats again, packed by cpack and compressed by xz -9e.

    bench/quantised.py [CPACK]        default build/release/cpack; needs python3-numpy

4 MiB each: Gaussian weights in rows of 4096, each row of another size; quantised symmetrically by the greatest of a group, the
scale rounded to its type, the products rounded to BF16. Zeros keep their signs, as they do where numbers are never integers. The
floor is the entropy of the numbers, -0 apart, and the bytes of the scales.
"""
import json
import lzma
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

COLUMNS, COUNT = 4096, 1 << 21
CASES = [(7, 4096, "F32"), (7, 4096, "BF16"), (7, 128, "F16"), (7, 64, "BF16"), (7, 32, "F16"), (127, 4096, "F32"),
         (127, 128, "F16"), ("E4M3", 128, "F32")]


def to_bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def round_scales(scales, kind):
    if kind == "BF16":
        return (to_bf16(scales).astype(np.uint32) << 16).view(np.float32)
    return scales.astype(np.float16).astype(np.float32) if kind == "F16" else scales


def quantise(random, greatest, group, kind):
    """The elements as BF16, and the entropy of a number in bits."""
    sizes = 0.02 * np.exp(random.normal(0, 0.3, (COUNT // COLUMNS, 1)))
    weights = (random.standard_normal((COUNT // COLUMNS, COLUMNS)) * sizes).astype(np.float32).reshape(-1, group)
    scales = round_scales(np.abs(weights).max(1, keepdims=True) / np.float32(greatest), kind)
    numbers = np.clip(np.rint(weights / scales), -greatest - 1, greatest)
    kinds = np.where((numbers == 0) & np.signbit(numbers), greatest + 1, numbers).astype(int)
    counts = np.bincount((kinds + greatest + 1).reshape(-1))
    shares = counts[counts > 0] / COUNT
    return to_bf16(numbers * scales).reshape(-1), -(shares * np.log2(shares)).sum()


def quantise_e4m3(random, _, group, kind):
    """The same as F8_E4M3 with a scale for each block of `group` rows and columns, as it is turned into BF16."""
    codes = np.arange(127)
    numbers = np.where(codes < 8, codes * 2.0**-9, (8 + codes % 8) * 2.0 ** (codes // 8 - 10)).astype(np.float32)
    weights = (random.standard_normal((COUNT // COLUMNS, COLUMNS)) * 0.02).astype(np.float32)
    blocks = weights.reshape(-1, group, COLUMNS // group, group)
    scales = np.abs(blocks).max((1, 3), keepdims=True) / np.float32(448)
    ratios = blocks / scales
    nearest = np.searchsorted((numbers[1:] + numbers[:-1]) / 2, np.abs(ratios))
    counts = np.bincount((nearest + 128 * np.signbit(ratios)).reshape(-1))
    shares = counts[counts > 0] / COUNT
    return to_bf16(np.copysign(numbers[nearest], ratios) * scales).reshape(-1), -(shares * np.log2(shares)).sum()


def main():
    cpack = sys.argv[1] if len(sys.argv) > 1 else "build/release/cpack"
    random = np.random.default_rng(5)
    print("| greatest number | group | scale | floor | cpack | xz -9e |\n|---|---|---|---|---|---|")
    for greatest, group, kind in CASES:
        elements, entropy = (quantise_e4m3 if greatest == "E4M3" else quantise)(random, greatest, group, kind)
        header = json.dumps({"w": {"dtype": "BF16", "shape": [COUNT // COLUMNS, COLUMNS], "data_offsets": [0, COUNT * 2]}})
        header += " " * (-len(header) % 8)
        original = struct.pack("<Q", len(header)) + header.encode() + elements.tobytes()
        with tempfile.TemporaryDirectory() as folder:
            path, packed = os.path.join(folder, "w.safetensors"), os.path.join(folder, "w.cllm")
            with open(path, "wb") as file:
                file.write(original)
            subprocess.run([cpack, "-q", path, "-o", packed], check=True)
            sizes = os.path.getsize(packed), len(lzma.compress(original, preset=9 | lzma.PRESET_EXTREME))
        floor = (entropy + 8 * (4 if kind == "F32" else 2) / group) / 16
        print(f"| {greatest} | {group} | {kind} | {floor:.2%} | " + " | ".join(f"{size / len(original):.2%}" for size in sizes) + " |")


if __name__ == "__main__":
    main()
