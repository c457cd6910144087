"""The other side of bench/scoring-speed.mjs: transformers or llama.cpp, one pass a line of standard input.

    scoring-peers.py transformers DIR THREADS IDS.json        (torch, transformers)
    scoring-peers.py llama.cpp FILE.gguf THREADS IDS.json     (llama_cpp, numpy)

IDS.json holds windows of equal length. Every answer is one JSON line of seconds: forward (logits of every position)
and statistics (surprisal and entropy of every position).
"""
import json, os, sys, time

kind, path, threads, ids = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.load(open(sys.argv[4]))
os.environ["OMP_NUM_THREADS"] = str(threads)

if kind == "transformers":
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def score():
        forward = statistics = surprisal = entropy = 0.0
        with torch.inference_mode():
            for window in ids:
                tokens = torch.tensor([window])
                start = time.perf_counter()
                logits = model(tokens, use_cache=False).logits
                middle = time.perf_counter()
                logs = torch.log_softmax(logits, -1)
                surprisal -= logs[0, :-1].gather(-1, tokens[0, 1:, None]).double().sum().item()
                entropy -= (logs.exp() * logs).sum(-1).double().sum().item()
                forward += middle - start
                statistics += time.perf_counter() - middle
        return forward, statistics, surprisal, entropy
else:
    import numpy as np
    import llama_cpp
    length = len(ids[0])
    model = llama_cpp.Llama(path, n_ctx=length, n_batch=length, n_ubatch=512, logits_all=True, n_threads=threads,
                            n_threads_batch=threads, verbose=False)

    def score():
        forward = statistics = surprisal = entropy = 0.0
        for window in ids:
            model.reset()
            start = time.perf_counter()
            model.eval(window)
            middle = time.perf_counter()
            logits = model.scores[:length]
            shifted = logits - logits.max(1, keepdims=True)
            weights = np.exp(shifted)
            total = weights.sum(1)
            logs = np.log(total)
            surprisal += float((logs[:-1] - shifted[np.arange(length - 1), window[1:]]).sum())
            entropy += float((logs - (weights * shifted).sum(1) / total).sum())
            forward += middle - start
            statistics += time.perf_counter() - middle
        return forward, statistics, surprisal, entropy

print("ready", flush=True)
for _ in sys.stdin:
    forward, statistics, surprisal, entropy = score()
    print(json.dumps({"forward": forward, "statistics": statistics, "surprisal": surprisal, "entropy": entropy}), flush=True)
