"""Kept sets of transformers' logits processors: reads DIR/logits.bin (float32 [rows, vocabulary]) and, for every line on
standard input, `dtype pipeline`, writes DIR/kept.bin (one byte a token, 1 where it is kept) and prints its size."""

import pathlib
import sys

import numpy as np
import torch
import transformers

from samplers_peer import pipeline

folder = pathlib.Path(sys.argv[1])
rows, vocabulary = int(sys.argv[2]), int(sys.argv[3])
logits = torch.from_numpy(np.fromfile(folder / "logits.bin", dtype=np.float32).reshape(rows, vocabulary))
print(transformers.__version__, flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        dtype, text = line.split()
        scores = logits.to(torch.float64 if dtype == "float64" else torch.float32)
        kept = torch.isfinite(pipeline(text)(None, scores.clone()))
        kept.numpy().astype(np.uint8).tofile(folder / "kept.bin")
        print(kept.sum().item(), flush=True)
