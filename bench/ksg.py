"""The other side of ksg.mjs: answers every path it is sent with the seconds and nats of scikit-learn's estimate.

usage: ksg.py K THREADS
"""

import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = sys.argv[2]

import numpy as np
import sklearn
from sklearn.feature_selection._mutual_info import _compute_mi_cc
from sklearn.neighbors import KDTree, NearestNeighbors
from scipy.special import digamma


def threaded(x, y, k, jobs):
    """_compute_mi_cc with n_jobs for its neighbour search, which the library's own does not pass on."""
    xy = np.column_stack((x, y))
    search = NearestNeighbors(metric="chebyshev", n_neighbors=k, n_jobs=jobs).fit(xy)
    radius = np.nextafter(search.kneighbors()[0][:, -1], 0)
    counts = [
        KDTree(column[:, None], metric="chebyshev").query_radius(column[:, None], radius, count_only=True)
        for column in (x, y)
    ]
    return digamma(x.size) + digamma(k) - sum(np.mean(digamma(count)) for count in counts)


k, threads = int(sys.argv[1]), int(sys.argv[2])
print(f"scikit-learn {sklearn.__version__}", flush=True)
for line in sys.stdin:
    x, y = np.fromfile(line.strip()).reshape(2, -1)
    start = time.perf_counter()
    if threads == 1:
        # The function gives max(0, I); at a correlation of 0.6 it does not matter.
        nats = _compute_mi_cc(x, y, k)
    else:
        nats = threaded(x, y, k, threads)
    print(time.perf_counter() - start, repr(float(nats)), flush=True)
