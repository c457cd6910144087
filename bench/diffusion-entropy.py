"""The dse-dsmi side of diffusion-entropy.mjs: reads points [n, d] in f64 from a file, and for every line on standard
input computes the diffusion spectral entropy once and prints the seconds it took and the value."""

import sys
import time

import numpy
from dse_dsmi import diffusion_spectral_entropy

path, rows, columns, sigma, t = sys.argv[1:6]
points = numpy.fromfile(path).reshape(int(rows), int(columns))
print(f"numpy {numpy.__version__}", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    bits = diffusion_spectral_entropy(points, gaussian_kernel_sigma=float(sigma), t=int(t))
    print(time.perf_counter() - start, bits, flush=True)
