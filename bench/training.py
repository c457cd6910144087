"""The PyTorch side of training.mjs and loss-curve.mjs: makes the model, then trains it step by step as it is told.

    python training.py DIRECTORY THREADS CONFIG_JSON

Writes a randomly started LlamaForCausalLM to DIRECTORY and prints a line. For every line on standard input, an object
{"tokens": file of int32 [micro, batch, length], "way": "sdpa" | "eager", "rate": learning rate, "clip": norm or null,
"last": whether to leave out the last position}, makes one step (forward, mean cross-entropy over all micro-batches,
backward, clipping, fused AdamW) and prints {"seconds", "loss", "norm"}.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

directory, threads, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
fields = json.loads(text)
torch.set_num_threads(threads)
torch.manual_seed(1)
start = LlamaForCausalLM(LlamaConfig(**fields["model"])).float()
start.save_pretrained(directory)
models, optimizers = {}, {}


def prepare(way):
    if way in models:
        return
    model = LlamaForCausalLM.from_pretrained(directory, attn_implementation=way, dtype=torch.float32).train()
    models[way] = model
    optimizers[way] = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)


def step(request):
    prepare(request["way"])
    model, optimizer = models[request["way"]], optimizers[request["way"]]
    tokens = torch.from_numpy(np.fromfile(request["tokens"], dtype=np.int32).reshape(request["shape"])).long()
    before = time.perf_counter()
    for group in optimizer.param_groups:
        group["lr"] = request["rate"]
    total, valid = 0.0, tokens.shape[0] * tokens.shape[1] * (tokens.shape[2] - 1)
    for micro in tokens:
        logits = model(micro, use_cache=False).logits
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        loss = torch.nn.functional.cross_entropy(flat, micro[:, 1:].reshape(-1), reduction="sum") / valid
        loss.backward()
        total += loss.item()
    norm = None
    if request["clip"] is not None:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), request["clip"]).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "loss": total, "norm": norm, "peak": peak}


print(json.dumps({"torch": torch.__version__, "parameters": sum(p.numel() for p in start.parameters())}), flush=True)
del start
for line in sys.stdin:
    print(json.dumps(step(json.loads(line))), flush=True)
