"""Naive peer of bench/evidence.mjs: tests every pair of alloys and folds Dempster's rule piece by piece."""

import itertools
import json
import sys
import time

given = json.load(sys.stdin)
alloys = [frozenset(alloy) for alloy in given["alloys"]]
labels, most, alpha = given["labels"], given["most"], given["alpha"]

start = time.perf_counter()
masses = {}
pieces = 0
for i, j in itertools.combinations(range(len(alloys)), 2):
    a, b = alloys[i], alloys[j]
    if not a & b or abs(len(a) - len(b)) > 2:
        continue
    t, v = a - b, b - a
    if len(t) > most or len(v) > most or not (t or v):
        continue
    pieces += 1
    key = tuple(sorted(("|".join(sorted(t)), "|".join(sorted(v)))))
    similar, dissimilar, both = masses.get(key, (0.0, 0.0, 1.0))
    s, d = (alpha, 0.0) if labels[i] == labels[j] else (0.0, alpha)
    rest = 1 - s - d
    agreement = 1 - similar * d - dissimilar * s
    masses[key] = (
        (similar * s + similar * rest + both * s) / agreement,
        (dissimilar * d + dissimilar * rest + both * d) / agreement,
        both * rest / agreement,
    )
print(json.dumps({"seconds": time.perf_counter() - start, "pieces": pieces, "pairs": len(masses)}))
