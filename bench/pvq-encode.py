"""The NumPy side of pvq-encode.mjs: greedy search, gains and row scales, vectorised over all groups; indices are not
packed. For every line on standard input encodes once and prints the seconds and the dB."""

import sys
import time
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
rows, columns, D, K = map(int, sys.argv[2:])
weights = np.fromfile(folder / "weights", np.float32).reshape(rows, columns)
levels = np.fromfile(folder / "levels", np.float32).astype(np.float64)
thresholds = (levels[1:] + levels[:-1]) / 2


def search(x):
    """Greedy pulses [groups, D]: one pulse a step in every group that has some left."""
    u = np.abs(x)
    u /= u.max(axis=1, keepdims=True)
    if K > D // 2:
        y = np.floor(K * u / u.sum(axis=1, keepdims=True))
    else:
        y = np.zeros_like(u)
    left = K - y.sum(axis=1)
    xy = (u * y).sum(axis=1)
    yy = (y * y).sum(axis=1)
    while (active := np.flatnonzero(left > 0)).size:
        top = (xy[active, None] + u[active]) ** 2
        best = np.argmax(top / (yy[active, None] + 2 * y[active] + 1), axis=1)
        xy[active] += u[active, best]
        yy[active] += 2 * y[active, best] + 1
        y[active, best] += 1
        left[active] -= 1
    return np.where(x < 0, -y, y)


def encode():
    x = weights.reshape(-1, D)
    y = search(x)
    s = ((x * y).sum(axis=1) / np.sqrt((y * y).sum(axis=1))).reshape(rows, -1).astype(np.float64)
    scale = np.sqrt((weights.astype(np.float64) ** 2).sum(axis=1))
    for _ in range(3):
        q = levels[np.searchsorted(thresholds, s / scale[:, None])]
        scale = (q * s).sum(axis=1) / (q * q).sum(axis=1)
    scale = scale.astype(np.float16).astype(np.float64)
    q = levels[np.searchsorted(thresholds, s / scale[:, None])]
    return y, q * scale[:, None]


print(np.__version__, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    y, gain = encode()
    elapsed = time.perf_counter() - start
    decoded = y * (gain.reshape(-1, 1) / np.sqrt((y * y).sum(axis=1, keepdims=True)))
    error = ((weights - decoded.reshape(rows, columns)) ** 2).sum()
    print(elapsed, 10 * np.log10((weights.astype(np.float64) ** 2).sum() / error), flush=True)
