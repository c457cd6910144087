"""Holds graphs patched by `surprisal steer patch` against PyTorch: the residuals and the steered logits.

    python steer-patch-vs-pytorch.py MODEL_DIR PATCHED.onnx [...]

MODEL_DIR is the checkpoint that the graphs were exported from; the graphs were patched with --layer all --expose all.
Needs torch, transformers, onnx and onnxruntime. Prints a line a graph: the ONNX checker's verdict, the largest
difference of any residual from hidden_states[l + 1], and of the logits steered at each layer and the last positions
from a forward hook's. The last residual is before the final norm, which hidden_states[-1] is not: it is read by a hook.
"""
import sys

import numpy as np
import onnx
import onnxruntime as ort
import torch
from transformers import AutoModelForCausalLM


def blocks_of(model):
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return next(m for m in lists if len(m) == model.config.num_hidden_layers)


def reference(model, ids, layer=None, vector=None, first=0):
    """Outputs of all blocks, and logits, with the vector added from position `first` on."""
    seen, handles = [], []

    def hook(index):
        def run(_, __, output):
            stream = output[0] if isinstance(output, tuple) else output
            if index == layer:
                stream = stream.clone()
                stream[:, first:] += vector
            seen.append(stream)
            return (stream, *output[1:]) if isinstance(output, tuple) else stream
        return run

    for index, block in enumerate(blocks_of(model)):
        handles.append(block.register_forward_hook(hook(index)))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return [s.numpy() for s in seen], logits.numpy()


def main(directory, paths):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    layers, hidden = model.config.num_hidden_layers, model.config.hidden_size
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, model.config.vocab_size, (1, 9)))
    for path in paths:
        try:
            onnx.checker.check_model(path)
            verdict = "valid"
        except onnx.checker.ValidationError as error:
            # onnxruntime-genai puts SimplifiedLayerNormalization, which only ONNX Runtime has, in the default domain.
            if "No Op registered for SimplifiedLayerNormalization" not in str(error): raise
            verdict = "valid but for ONNX Runtime's own operators"
        onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=False)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {}
        for value in session.get_inputs():
            kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float16)": np.float16}.get(value.type, np.float32)
            if value.name == "input_ids": feeds[value.name] = ids.numpy().astype(kind)
            elif value.name == "attention_mask": feeds[value.name] = np.ones(ids.shape, kind)
            elif value.name == "position_ids": feeds[value.name] = np.arange(ids.shape[1], dtype=kind)[None]
            else:
                heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
                width = getattr(model.config, "head_dim", None) or hidden // model.config.num_attention_heads
                feeds[value.name] = np.zeros((1, heads, 0, width), kind)
        names = [o.name for o in session.get_outputs()]
        overridable = {v.name: v.type for v in session.get_overridable_initializers()}
        run = lambda extra={}: dict(zip(names, session.run(None, {**feeds, **extra})))
        plain = run()
        seen, logits = reference(model, ids)
        residuals = max(np.abs(plain[f"residual.{l}"].astype(np.float32) - seen[l]).max() for l in range(layers))
        base = np.abs(plain["logits"].astype(np.float32) - logits).max()
        steered = 0.0
        moved = np.inf
        for layer in range(layers):
            vector = np.random.default_rng(layer).standard_normal(hidden).astype(np.float32)
            rows = np.zeros((1, ids.shape[1], hidden), np.float16 if "float16" in overridable[f"steer.{layer}"] else np.float32)
            rows[:, 4:] = vector
            got = run({f"steer.{layer}": rows})["logits"].astype(np.float32)
            _, expected = reference(model, ids, layer, torch.from_numpy(rows[0, 4].astype(np.float32)), 4)
            steered = max(steered, np.abs(got - expected).max())
            moved = min(moved, np.abs(expected - logits).max())
        print(f"{path}: {verdict}, residuals {residuals:.2e}, logits {base:.2e}, steered logits {steered:.2e} (moved by {moved:.2e} or more)", flush=True)


main(sys.argv[1], sys.argv[2:])
