"""PyTorch's side of optimizers.mjs: one optimiser step for every line read; prints the seconds it took.

  python optimizers.py PARAMETERS TENSORS THREADS

The first line printed is the version. Ways: `fused` and `foreach` are torch.optim.AdamW alone; `fused+clip` and
`foreach+clip` add what a training step needs around it: clip_grad_norm_ and zeroed gradients.
"""

import sys
import time

import torch


def main() -> None:
    parameters, tensors, threads = (int(text) for text in sys.argv[1:4])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    length = parameters // tensors
    ways = {}
    for kind in ("fused", "foreach"):
        weights = [torch.nn.Parameter(torch.randn(length) * 0.02) for _ in range(tensors)]
        for weight in weights:
            weight.grad = torch.randn(length) * 1e-3
        ways[kind] = (weights, torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.01, **{kind: True}))
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        kind, _, rest = line.strip().partition("+")
        weights, optimizer = ways[kind]
        start = time.perf_counter()
        if rest:
            torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        if rest:
            optimizer.zero_grad(set_to_none=False)
        print(time.perf_counter() - start, flush=True)


main()
