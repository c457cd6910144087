"""The side of vendi-score (the authors' package) of vendi-score.mjs. For every line on standard input, `dual` or `matrix`,
scores once and prints the seconds and the score of order 1. The features and the kernel matrix are read from .npy files."""

import sys
import time

import numpy as np
from vendi_score import vendi

features = np.load(sys.argv[1])
matrix = np.load(sys.argv[2])
ways = {
    "dual": lambda: vendi.score_dual(features, q=1),
    "matrix": lambda: vendi.score_K(matrix, q=1),
}
print(np.__version__, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    score = ways[line.strip()]()
    print(time.perf_counter() - start, repr(float(score)), flush=True)
