"""The scipy side of assignment.mjs. First line out: the versions. Then for every line on standard input,
`<order> <file of single-precision gains>`, one optimal assignment: the seconds it took and the sum of its gains in
double precision."""

import sys
import time

import numpy
import scipy
from scipy.optimize import linear_sum_assignment

print(f"numpy {numpy.__version__}, scipy {scipy.__version__}", flush=True)
for line in sys.stdin:
    order, source = line.split()
    gains = numpy.fromfile(source, dtype=numpy.float32).reshape(int(order), int(order))
    start = time.perf_counter()
    rows, columns = linear_sum_assignment(gains, maximize=True)
    seconds = time.perf_counter() - start
    print(seconds, gains[rows, columns].sum(dtype=numpy.float64), flush=True)
