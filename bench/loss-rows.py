"""Peer of loss-rows.mjs: the same losses and gradients by PyTorch autograd. Prints seconds by name as JSON."""
import json
import sys
import time

import torch
import torch.nn.functional as F

rows, classes, threads, repeats = (int(value) for value in sys.argv[1:5])
torch.set_num_threads(threads)
generator = torch.Generator().manual_seed(1)
student = (3 * torch.randn(rows, classes, generator=generator)).requires_grad_()
teacher = 3 * torch.randn(rows, classes, generator=generator)
labels = torch.randint(classes, (rows,), generator=generator)
k = 64
ids = torch.stack([torch.randperm(classes, generator=generator)[:k] for _ in range(rows)])
log_probs = torch.full((rows, k), 0.9 / k).log()


def log_softmax(x, t=1.0):
    return F.log_softmax(x / t, dim=-1)


def reverse_kl():
    s, t = log_softmax(student), log_softmax(teacher)
    return (s.exp() * (s - t)).sum(-1).mean()


def jsd(beta=0.5):
    s, t = log_softmax(student), log_softmax(teacher)
    log_m = torch.logsumexp(torch.stack([s + torch.log1p(torch.tensor(-beta)), t + torch.log(torch.tensor(beta))]), 0)
    kl = lambda p, q: F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    return (beta * kl(t, log_m) + (1 - beta) * kl(s, log_m)).mean()


def sparse():
    s = log_softmax(student).gather(-1, ids)
    rest = torch.log1p(-s.exp().sum(-1))
    q = log_probs.exp()
    return ((q * (log_probs - s)).sum(-1) + 0.1 * (torch.log(torch.tensor(0.1)) - rest)).mean()


cases = {
    "cross-entropy": lambda: F.cross_entropy(student, labels),
    "forward KL": lambda: 4 * F.kl_div(log_softmax(student, 2), log_softmax(teacher, 2), reduction="batchmean", log_target=True),
    "reverse KL": reverse_kl,
    "JSD": jsd,
    "comp-sum 1.7": lambda: (-torch.expm1(0.7 * log_softmax(student).gather(-1, labels[:, None])) / 0.7).mean(),
    "top-64 KL": sparse,
}
result = {}
for name, loss in cases.items():
    seconds = []
    for _ in range(repeats + 1):
        student.grad = None
        start = time.perf_counter()
        loss().backward()
        seconds.append(time.perf_counter() - start)
    result[name] = sorted(seconds[1:])[repeats // 2]
print(json.dumps(result))
