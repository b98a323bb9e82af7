#!/usr/bin/env python3
"""Sizes of real weights: what cpack makes of each file, everything counted, beside the floor and other compressors.

    ratio.py [--cpack build/release/cpack] [--quick] [FILE.safetensors ...]

Without files: the model of fixtures/ and those of ../shared/data/real-weights, where it exists. --quick leaves the peers out.
The floor is what a coder with one exact model a tensor would need for the exponents, plus sign and mantissa as they are, and
nothing for the header of the file; integers count as bytes. Peers that are not installed are named. Needs numpy; ZipNN and the
two kinds of zstd are looked for (packages zipnn, zstandard; program zstd). Ends with one line of JSON.
"""

import argparse
import glob
import json
import lzma
import os
import platform
import subprocess
import sys
import tempfile

import numpy as np

# dtype: bytes of an element, position and width of the field that is coded
FIELDS = {
    "BF16": (2, 7, 8), "F16": (2, 10, 5), "F32": (4, 23, 8), "C64": (4, 23, 8), "F64": (8, 52, 11),
    "F8_E4M3": (1, 3, 4), "F8_E5M2": (1, 2, 5),
}  # fmt: skip
ZIPNN_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def read_safetensors(path):
    """(header, bytes of the file, offset of the tensors)"""
    data = open(path, "rb").read()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    return header, data, 8 + header_bytes


def entropy_bits(symbols):
    counts = np.bincount(symbols)
    counts = counts[counts > 0].astype(float)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def floor_bytes(header, data, start):
    bits = 0.0
    for tensor in header.values():
        first, last = tensor["data_offsets"]
        size, shift, width = FIELDS.get(tensor["dtype"], (1, 0, 8))
        elements = np.frombuffer(data[start + first : start + last], dtype=f"<u{size}")
        if len(elements) == 0:
            continue
        symbols = (elements >> elements.dtype.type(shift)) & elements.dtype.type((1 << width) - 1)
        bits += entropy_bits(symbols.astype(np.int64)) + len(elements) * (8 * size - width)
    return int(bits / 8 + 0.5)


def main_dtype(header):
    sizes = {}
    for tensor in header.values():
        first, last = tensor["data_offsets"]
        sizes[tensor["dtype"]] = sizes.get(tensor["dtype"], 0) + last - first
    return max(sizes, key=sizes.get) if sizes else "U8"


def shuffled(data, size):
    whole = len(data) // size * size
    planes = np.frombuffer(data[:whole], dtype=np.uint8).reshape(-1, size)
    return planes.T.tobytes() + data[whole:]


def find_zstd():
    """(version, compress) of whichever zstd there is, or None"""
    try:
        import zstandard

        compressor = zstandard.ZstdCompressor(level=19)
        return "zstandard %s" % ".".join(map(str, zstandard.ZSTD_VERSION)), lambda data: len(compressor.compress(data))
    except ImportError:
        pass
    try:
        version = subprocess.run(["zstd", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except OSError:
        return None

    def compress(data):
        return len(subprocess.run(["zstd", "-19", "-q", "-c"], input=data, capture_output=True, check=True).stdout)

    return version, compress


def find_zipnn():
    try:
        import zipnn
        from importlib.metadata import version
    except ImportError:
        return None

    def compress(data, dtype):
        if dtype not in ZIPNN_DTYPES:
            return None
        packer = zipnn.ZipNN(method="auto", input_format="byte", bytearray_dtype=ZIPNN_DTYPES[dtype])
        return len(packer.compress(bytearray(data)))

    return version("zipnn"), compress


def pack(cpack, path):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.cllm")
        subprocess.run([cpack, path, "--only-weights", "-q", "-o", out], check=True)
        return os.path.getsize(out)


def measure(path, cpack, peers):
    header, data, start = read_safetensors(path)
    dtype = main_dtype(header)
    row = {"file": "/".join(path.split("/")[-2:]), "dtype": dtype, "raw": len(data), "floor": floor_bytes(header, data, start)}
    row["cllm"] = pack(cpack, path)
    size = FIELDS.get(dtype, (1,))[0]
    if "zstd" in peers:
        row["zstd -19"] = peers["zstd"][1](data)
        row["shuffle+zstd"] = peers["zstd"][1](shuffled(data, size))
    if "xz" in peers:
        row["xz -9e"] = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    if "zipnn" in peers:
        row["ZipNN"] = peers["zipnn"][1](data, dtype)
    return row


COLUMNS = ["floor", "cllm", "zstd -19", "xz -9e", "shuffle+zstd", "ZipNN"]


def print_row(row):
    cells = [f"{100 * row[c] / row['raw']:.2f}" if row.get(c) else "-" for c in COLUMNS]
    best = min((row[c] for c in COLUMNS[2:] if row.get(c)), default=0)
    over = f"{100 * (row['cllm'] - row['floor']) / row['raw']:+.2f}"
    margin = f"{100 * (row['cllm'] - best) / row['raw']:+.2f}" if best else "-"
    print(f"| {row['file']} | {row['raw']} | " + " | ".join(cells) + f" | {over} | {margin} |", flush=True)


def default_files():
    files = ["fixtures/shakespeare-llama/model.safetensors"]
    return files + sorted(glob.glob("../shared/data/real-weights/*/*.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--cpack", default="build/release/cpack")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    peers = {}
    if not arguments.quick:
        found = {"zstd": find_zstd(), "xz": ("liblzma of Python %s" % platform.python_version(), None), "zipnn": find_zipnn()}
        peers = {name: peer for name, peer in found.items() if peer}
        missing = [name for name, peer in found.items() if not peer]
        print("peers: " + ", ".join(f"{name} ({peer[0]})" for name, peer in peers.items()))
        if missing:
            print("missing: " + ", ".join(missing))
    print("\n| % of the file | bytes | " + " | ".join(COLUMNS) + " | over floor | over best peer |\n" + "|---" * (len(COLUMNS) + 4) + "|")
    rows = []
    for path in arguments.files or default_files():
        rows.append(measure(path, arguments.cpack, peers))
        print_row(rows[-1])
    version = subprocess.run([arguments.cpack, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(json.dumps({"cllm": version, "peers": {name: peer[0] for name, peer in peers.items()}, "sizes": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
