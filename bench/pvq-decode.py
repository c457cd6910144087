"""The NumPy side of pvq-decode.mjs: the same packing and dequantisation, vectorised over all groups. For every line on
standard input, `pack` or `dequantize`, does it once and prints the seconds. Indices are at most 64 bits long."""

import sys
import time
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
rows, columns, D, K, gain_bits, bits = map(int, sys.argv[2:])
groups = columns // D
pulses = np.fromfile(folder / "pulses", np.int16).reshape(rows * groups, D)
index = np.fromfile(folder / "index", np.uint8).reshape(rows, -1)
gain = np.fromfile(folder / "gain", np.uint8).reshape(rows, -1)
scales = np.fromfile(folder / "scales", np.float32)
levels = np.fromfile(folder / "levels", np.float32)

# U(n, k), the words whose first coordinate is positive.
counts = np.zeros((D + 1, K + 2), np.uint64)
counts[0, 0] = 1
for n in range(1, D + 1):
    for k in range(1, K + 2):
        counts[n, k] = counts[n - 1, k] + counts[n, k - 1] + counts[n - 1, k - 1]


def pack_bits(values, width):
    """values [rows * groups] as little-endian words of `width` bits, every row padded to a byte."""
    as_bytes = values.astype("<u8").view(np.uint8).reshape(-1, 8)
    all_bits = np.unpackbits(as_bytes, axis=1, bitorder="little")[:, :width]
    return np.packbits(all_bits.reshape(rows, groups * width), axis=1, bitorder="little")


def unpack_bits(packed, width):
    all_bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : groups * width]
    words = np.zeros((rows * groups, 64), np.uint8)
    words[:, :width] = all_bits.reshape(rows * groups, width)
    return np.packbits(words, axis=1, bitorder="little").view("<u8").ravel()


def pack():
    magnitude = np.abs(pulses).astype(np.int64)
    before = np.cumsum(magnitude[:, ::-1], axis=1)[:, ::-1]
    after = before - magnitude
    n = np.arange(D, 0, -1)
    indices = counts[n, after].sum(axis=1)
    indices += np.where(pulses < 0, counts[n, before + 1], np.uint64(0)).sum(axis=1)
    return pack_bits(indices, bits)


def dequantize():
    left = np.full(rows * groups, K)
    rest = unpack_bits(index, bits)
    y = np.empty((rows * groups, D), np.float32)
    for i, n in enumerate(range(D, 0, -1)):
        half = counts[n, left + 1]
        negative = rest >= half
        rest = rest - np.where(negative, half, np.uint64(0))
        # A row of the table ascends, and the index is below the entry at left + 1.
        after = np.searchsorted(counts[n], rest, side="right") - 1 if n > 1 else np.zeros_like(left)
        rest = rest - counts[n, after]
        y[:, i] = np.where(negative, after - left, left - after)
        left = after
    codes = unpack_bits(gain, gain_bits) if gain_bits > 0 else np.zeros(rows * groups, np.uint64)
    norms = np.sqrt((y.astype(np.float64) ** 2).sum(axis=1))
    factors = np.repeat(scales.astype(np.float64), groups) * levels[codes] / norms
    return y * factors.astype(np.float32)[:, None], y


assert np.array_equal(pack(), index)
assert np.array_equal(dequantize()[1], pulses)
ways = {"pack": pack, "dequantize": dequantize}
print(np.__version__, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    ways[line.strip()]()
    print(time.perf_counter() - start, flush=True)
