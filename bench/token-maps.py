"""Peer of token-maps.mjs: nearest pivot token of each query by comparing it with all, the first among equals."""

import json
import sys
import time

try:
    from editdistance import eval as distance

    NAME = "editdistance"
except ImportError:
    NAME = "plain Python"

    def distance(a, b):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            following = [i]
            for j, y in enumerate(b, 1):
                following.append(min(row[j - 1] + (x != y), row[j] + 1, following[-1] + 1))
            row = following
        return row[-1]


with open(sys.argv[1], encoding="utf-8") as file:
    given = json.load(file)
start = time.perf_counter()
nearest, distances = [], []
for query in given["queries"]:
    found = [distance(query, text) if text else 10**9 for text in given["texts"]]
    distances.append(min(found))
    nearest.append(found.index(distances[-1]))
json.dump(
    {"distance": NAME, "seconds": time.perf_counter() - start, "nearest": nearest, "distances": distances},
    sys.stdout,
)
