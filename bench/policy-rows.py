"""Log-sum-exp, entropy and log-probability of the target of every row of bfloat16 logits with PyTorch. Used by policy-rows.mjs.

  python policy-rows.py ROWS COLUMNS THREADS LOGITS TARGETS

LOGITS is a file of bfloat16, TARGETS of int32. One way a line on standard input; each is answered by a line of JSON.
"""
import json
import sys
import time

import numpy as np
import torch

rows, columns, threads = (int(text) for text in sys.argv[1:4])
torch.set_num_threads(threads)
bits = torch.from_numpy(np.fromfile(sys.argv[4], dtype=np.int16))
logits = bits.view(torch.bfloat16).view(rows, columns)
targets = torch.from_numpy(np.fromfile(sys.argv[5], dtype=np.int32)).long()


def chunked(body, size=128):
    """As TRL takes entropies: chunks of rows, each in float32."""
    return tuple(torch.cat(parts) for parts in zip(*(body(slice(i, i + size)) for i in range(0, rows, size))))


def log_softmax(part):
    logps = torch.log_softmax(logits[part].float(), dim=-1)
    entropy = -(torch.exp(logps) * logps).sum(-1)
    return entropy, logps.gather(-1, targets[part, None]).squeeze(-1)


def fused_sums(part):
    """Without log-probabilities of all columns: log-sum-exp, and the mean logit under the softmax."""
    x = logits[part].float()
    lse = torch.logsumexp(x, dim=-1)
    entropy = lse - (torch.softmax(x, dim=-1) * x).sum(-1)
    return entropy, x.gather(-1, targets[part, None]).squeeze(-1) - lse


WAYS = {"log_softmax": log_softmax, "logsumexp": fused_sums}
print(torch.__version__, flush=True)
for line in sys.stdin:
    way = WAYS[line.strip()]
    start = time.perf_counter()
    with torch.no_grad():
        entropy, selected = chunked(way)
    seconds = time.perf_counter() - start
    head = {"entropy": entropy[:8].tolist(), "selected": selected[:8].tolist()}
    print(json.dumps({"seconds": seconds, **head}), flush=True)
