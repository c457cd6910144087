"""Peer of generation.mjs: transformers' generate on the same prompts. Reads a JSON request a line, answers one a line."""

import json
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM

path, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
torch.manual_seed(1)
if path.endswith(".gguf"):
    model = AutoModelForCausalLM.from_pretrained(
        os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32
    )
else:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
model.eval()
model.generation_config.eos_token_id = None

WAYS = {
    "greedy": {"do_sample": False},
    "steered": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0},
}

for line in sys.stdin:
    request = json.loads(line)
    ids = torch.tensor(request["prompts"])
    vector = torch.tensor(request["vector"])
    handle = None
    if request["way"] == "steered":

        def add(_module, _inputs, output):
            if isinstance(output, tuple):
                return (output[0] + vector, *output[1:])
            return output + vector

        handle = model.model.layers[request["layer"]].register_forward_hook(add)
    begin = time.perf_counter()
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request["tokens"],
            min_new_tokens=request["tokens"],
            pad_token_id=0,
            **WAYS[request["way"]],
        )
    seconds = time.perf_counter() - begin
    if handle is not None:
        handle.remove()
    print(json.dumps({"seconds": seconds, "tokens": made[:, ids.shape[1] :].tolist()}), flush=True)
