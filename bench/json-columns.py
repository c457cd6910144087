"""Peer of json-columns.mjs: the same lines into NumPy arrays. Prints seconds by name as JSON."""
import json
import sys
import time

import numpy as np

path, repeats = sys.argv[1], int(sys.argv[2])


def arrays(loads):
    columns = []
    with open(path, "rb") as lines:
        for line in lines:
            record = loads(line)
            columns.append({key: np.asarray(value) for key, value in record.items() if isinstance(value, list)})
    return columns


def with_polars():
    frame = polars.read_ndjson(path)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, polars.List)]
    return [frame[name].explode().to_numpy() for name in lists]


ways = {"python json": lambda: arrays(json.loads)}
try:
    import orjson

    ways["orjson"] = lambda: arrays(orjson.loads)
except ImportError:
    pass
try:
    import polars

    ways["polars read_ndjson"] = with_polars
except ImportError:
    pass

result = {}
for name, run in ways.items():
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    result[name] = sorted(times)[len(times) // 2]
print(json.dumps(result))
