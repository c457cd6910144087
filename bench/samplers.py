"""The transformers side of samplers.mjs: for every pipeline on standard input, one step of sampling (processors, softmax,
multinomial) of a row of float32 logits; prints the seconds of one step."""

import pathlib
import sys
import time

import numpy as np
import torch
import transformers

from samplers_peer import pipeline

logits = torch.from_numpy(np.fromfile(pathlib.Path(sys.argv[1]), dtype=np.float32)).reshape(1, -1)
torch.set_num_threads(int(sys.argv[2]))
print(transformers.__version__, flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        start = time.perf_counter()
        scores = pipeline(line.strip())(None, logits)
        torch.multinomial(torch.softmax(scores, -1), 1)
        print(time.perf_counter() - start, flush=True)
