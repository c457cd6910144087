"""Peer of pld.mjs: Plackett-Luce loss and its gradient by PyTorch's autograd, in f32 and with the same threads.

Reads one JSON line (rows, classes, listed, block, threads, repeats), answers one JSON line per repeat. The logits are drawn
as in pld.mjs; `block` rows at a time go through the graph, and 0 stands for all at once.
"""

import json
import resource
import sys
import time

import torch


def loss_of(student, teacher, labels, listed):
    """Sum over rows, as one would write it: label first, the others by descending teacher, stable."""
    rows = torch.arange(len(labels))
    weights = torch.softmax(teacher, -1)
    first = teacher.clone()
    first[rows, labels] = float("inf")
    if listed >= teacher.shape[1]:
        order = torch.sort(first, dim=-1, descending=True, stable=True).indices
        scores = student.gather(1, order)
        suffix = torch.logcumsumexp(scores.flip(-1), -1).flip(-1)
        return (weights.gather(1, order) * (suffix - scores)).sum()
    # The label and the teacher's K: the last place is empty where the label is one of these.
    order = torch.topk(first, listed + 1, dim=-1).indices
    known = (teacher.topk(listed, dim=-1).indices == labels[:, None]).any(-1)
    filled = torch.ones_like(order, dtype=torch.bool)
    filled[known, -1] = False
    scores = student.gather(1, order)
    outside = student.scatter(1, order, scores.masked_fill(filled, -1e30))
    scores = scores.masked_fill(~filled, -1e30)
    tail = outside.logsumexp(-1, keepdim=True)
    suffix = torch.logcumsumexp(torch.cat([scores, tail], -1).flip(-1), -1).flip(-1)[:, :-1]
    return (weights.gather(1, order) * (suffix - scores) * filled).sum()


def main():
    options = json.loads(sys.stdin.readline())
    torch.set_num_threads(options["threads"])
    rows, classes = options["rows"], options["classes"]
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(rows, classes, generator=generator).mul_(3)
    teacher = torch.randn(rows, classes, generator=generator).mul_(3)
    labels = torch.randint(classes, (rows,), generator=generator)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    block = options["block"] or rows
    print(json.dumps({"held": held, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        total = 0.0
        gradient = torch.empty_like(student) if block < rows else None
        for at in range(0, rows, block):
            part = student[at : at + block].detach().requires_grad_()
            loss = loss_of(part, teacher[at : at + block], labels[at : at + block], options["listed"])
            loss.backward()
            total += loss.item()
            if gradient is not None:
                gradient[at : at + block] = part.grad
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak": peak, "loss": total / rows}), flush=True)


main()
