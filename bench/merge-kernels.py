"""Peer of merge-kernels.mjs: one merge by mergekit's own functions for every JSON line on standard input.

    python merge-kernels.py SIDE DTYPE THREADS TENSORS
"""
import json
import sys
import time

import mergekit
import torch
from mergekit.merge_methods.api import merge_tensors

side, dtype, threads, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
torch.manual_seed(1)
kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
base = 0.02 * torch.randn(side, side)
tensors = [(base if i == 0 else base + 0.001 * torch.randn(side, side)).to(kind) for i in range(count)]
version = getattr(mergekit, "__version__", None)
print(json.dumps({"torch": torch.__version__, "mergekit": version}), flush=True)

for line in sys.stdin:
    entry = json.loads(line)
    has_base = entry.get("base", False)
    inputs = tensors[: entry["models"] + (1 if has_base else 0)]
    parameters = dict(entry.get("parameters", {}))
    for name in ("weight", "density", "gamma", "epsilon"):
        if name in entry:
            first = 1 if has_base else 0
            parameters[name] = {i: entry[name] for i in range(first, len(inputs))}
    start = time.perf_counter()
    merge_tensors(inputs, entry["method"], parameters=parameters, base_index=0 if has_base else None)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
