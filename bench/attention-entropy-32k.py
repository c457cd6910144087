"""The dense way of attention-entropy-32k.mjs: LENGTH DIM THREADS -> seconds, bytes beyond the inputs, sum of entropies."""
import json
import math
import resource
import sys
import time

import numpy
import torch

length, dim, threads = (int(argument) for argument in sys.argv[1:])
torch.set_num_threads(threads)


def draw(count, seed):
    """The congruence of the other side: x' = 1664525 x + 1013904223 modulo 2^32, by doubling."""
    states = numpy.empty(count, dtype=numpy.uint32)
    states[0] = (1664525 * seed + 1013904223) % 2**32
    done, factor, shift = 1, 1664525, 1013904223
    while done < count:
        more = min(done, count - done)
        states[done : done + more] = states[:more] * numpy.uint32(factor) + numpy.uint32(shift)
        shift = (shift * factor + shift) % 2**32
        factor = factor * factor % 2**32
        done += more
    return torch.from_numpy((states / 4294967296 * 4 - 2).astype(numpy.float32))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


with torch.inference_mode():
    queries = draw(length * dim, 1).reshape(length, dim)
    keys = draw(length * dim, 2).reshape(length, dim)
    before = peak()
    start = time.perf_counter()
    scores = queries @ keys.T
    scores *= 1 / math.sqrt(dim)
    hidden = torch.ones(length, length, dtype=torch.bool).triu_(1)
    scores.masked_fill_(hidden, -math.inf)
    del hidden
    attention = torch.softmax(scores, -1)
    del scores
    entropies = torch.special.entr(attention).sum(-1)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": peak() - before, "sum": float(entropies.double().sum())}))
