"""The peer of panel-operators.mjs: NumPy (stride tricks, cumulative sums) and, where it is there, pandas."""
import json
import os
import sys
import time

days, stocks, threads, repeats = map(int, sys.argv[1:5])
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(threads)
import numpy as np  # noqa: E402

try:
    import pandas as pd
except ImportError:
    pd = None

WINDOW = 20
rng = np.random.default_rng(1)
x = (50 * np.cumprod(1 + 0.04 * (rng.random((days, stocks)) - 0.5), axis=0)).astype(np.float32)
y = (1e5 * (0.5 + rng.random((days, stocks)))).astype(np.float32)
fx = pd.DataFrame(x) if pd else None
fy = pd.DataFrame(y) if pd else None
windows = np.lib.stride_tricks.sliding_window_view


def running_mean(values):
    sums = np.cumsum(values, axis=0, dtype=np.float64)
    sums[WINDOW:] = sums[WINDOW:] - sums[:-WINDOW]
    return (sums[WINDOW - 1 :] / WINDOW).astype(np.float32)


def running_std(values):
    v = values.astype(np.float64)
    mean = running_mean(v).astype(np.float64)
    return np.sqrt(np.maximum(running_mean(v * v) - mean * mean, 0) * WINDOW / (WINDOW - 1)).astype(np.float32)


def correlation():
    a, b = x.astype(np.float64), y.astype(np.float64)
    ma, mb = running_mean(a), running_mean(b)
    cov = running_mean(a * b) - ma * mb
    return cov / np.sqrt((running_mean(a * a) - ma * ma) * (running_mean(b * b) - mb * mb))


def exponential():
    decay = 1 - 2 / (WINDOW + 1)
    weights = decay ** np.arange(WINDOW, 0, -1)
    weights /= weights.sum()
    out = np.zeros((days - WINDOW + 1, stocks))
    for k in range(WINDOW):
        out += weights[k] * x[k : days - WINDOW + 1 + k]
    return out.astype(np.float32)


def z_scores(values):
    v = values.astype(np.float64)
    return (v - v.mean(axis=1, keepdims=True)) / v.std(axis=1, keepdims=True)


TASKS = {
    "x / y": (lambda: x / y, lambda: fx / fy),
    "Mean 20d": (lambda: running_mean(x), lambda: fx.rolling(WINDOW).mean()),
    "Std 20d": (lambda: running_std(x), lambda: fx.rolling(WINDOW).std()),
    "Max 20d": (lambda: windows(x, WINDOW, axis=0).max(axis=-1), lambda: fx.rolling(WINDOW).max()),
    "Med 20d": (None, lambda: fx.rolling(WINDOW).median()),
    "EMA 20d": (exponential, None),
    "Corr 20d": (correlation, lambda: fx.rolling(WINDOW).corr(fy)),
    "z-scores": (lambda: z_scores(x), lambda: fx.sub(fx.mean(axis=1), axis=0).div(fx.std(axis=1, ddof=0), axis=0)),
    "IC": (lambda: (z_scores(x) * z_scores(y)).mean(axis=1), lambda: fx.corrwith(fy, axis=1)),
    "ranks by day": (lambda: x.argsort(axis=1).argsort(axis=1), lambda: fx.rank(axis=1)),
}


def seconds(task):
    if task is None:
        return None
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[len(spent) // 2]


result = {}
for name, (numpy_task, pandas_task) in TASKS.items():
    result[name] = {"numpy": seconds(numpy_task), "pandas": seconds(pandas_task) if pd else None}
print(json.dumps(result))
