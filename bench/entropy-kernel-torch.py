"""The PyTorch side of entropy-kernel.mjs: for every line on standard input, one of `log_softmax` and `categorical`,
computes the entropy of every row once and prints the seconds it took."""

import sys
import time

import torch

rows, columns, threads = (int(value) for value in sys.argv[1:4])
torch.set_num_threads(threads)
torch.manual_seed(1)
logits = torch.randn(rows, columns) * 3


def log_softmax():
    log_p = torch.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def categorical():
    return torch.distributions.Categorical(logits=logits).entropy()


ways = {"log_softmax": log_softmax, "categorical": categorical}
with torch.inference_mode():
    for way in ways.values():
        way()
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        ways[line.strip()]()
        print(time.perf_counter() - start, flush=True)
