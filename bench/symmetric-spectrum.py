"""The LAPACK side of symmetric-spectrum.mjs. First line out: what computes, with how many threads. Then for every line
on standard input, `<way> <order> <matrix file> <values file>`, the eigenvalues of the matrix once, written as doubles,
and the seconds they took."""

import os
import sys
import time

threads = sys.argv[1]
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[name] = threads

import numpy
import scipy
import scipy.linalg


def libraries():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}, {threads} threads asked for"
    kinds = (f"{i['internal_api']} {i['version']} {i.get('architecture', '')} {i['num_threads']} threads" for i in threadpool_info())
    return "; ".join(sorted(set(kinds)))


ways = {"numpy": numpy.linalg.eigvalsh, "scipy": scipy.linalg.eigvalsh}
print(f"numpy {numpy.__version__}, scipy {scipy.__version__}: {libraries()}", flush=True)
for line in sys.stdin:
    way, order, source, target = line.split()
    matrix = numpy.fromfile(source).reshape(int(order), int(order))
    start = time.perf_counter()
    values = ways[way](matrix)
    seconds = time.perf_counter() - start
    values.tofile(target)
    print(seconds, flush=True)
