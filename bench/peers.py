"""How fast other compressors are on one core, on Gaussian BF16: what is installed is measured, what is not is named.

    python3 bench/peers.py [MIB]
"""

import importlib
import shutil
import subprocess
import sys
import time

RUNS = 3


def gaussian_bf16(byte_count):
    import numpy

    values = numpy.random.default_rng(1).normal(0, 0.02, byte_count // 2).astype(numpy.float32)
    return (values.view(numpy.uint32) + 0x8000 >> 16).astype(numpy.uint16).tobytes()


def median_speed(data, work):
    seconds = []
    for _ in range(RUNS):
        start = time.monotonic()
        result = work(data)
        seconds.append(time.monotonic() - start)
    return len(data) / sorted(seconds)[RUNS // 2] / 1e9, len(result) / len(data)


def zipnn(data):
    packer = importlib.import_module("zipnn").ZipNN(method="auto", input_format="byte", bytearray_dtype="bfloat16", threads=1)
    return median_speed(data, lambda d: packer.compress(bytearray(d)))


def program(*arguments):
    if shutil.which(arguments[0]) is None:
        raise ImportError("no program " + arguments[0])
    return lambda data: median_speed(data, lambda d: subprocess.run(arguments, input=d, stdout=subprocess.PIPE, check=True).stdout)


def main():
    byte_count = (int(sys.argv[1]) if len(sys.argv) > 1 else 64) << 20
    peers = [("ZipNN", lambda: zipnn), ("lz4 -1", lambda: program("lz4", "-1", "-c")),
             ("gzip -1", lambda: program("gzip", "-1", "-c")), ("xz -0", lambda: program("xz", "-0", "-T1", "-c"))]
    try:
        data = gaussian_bf16(byte_count)
    except ImportError as reason:
        print("peers: skipped (%s)" % reason)
        return
    print("\n| peer, compressing on one core | GB/s | stored |\n|---|---|---|")
    for name, find in peers:
        try:
            speed, stored = find()(data)
            print("| %s | %.3f | %.2f %% |" % (name, speed, 100 * stored))
        except ImportError as reason:
            print("| %s | missing (%s) | |" % (name, reason))


main()
