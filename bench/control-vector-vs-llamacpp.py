"""Logits of llama.cpp with a control vector, for control-vector-vs-llamacpp.mjs.

python control-vector-vs-llamacpp.py MODEL.gguf VECTOR.gguf TOKENS.json STRENGTH THREADS OUT

The vector's file is read by llama.cpp's own GGUF reader (ggml's gguf_* functions) under the rules of its loader of control
vectors, and given to llama_set_adapter_cvec. OUT gets f32 logits [2, tokens, vocabulary]: without the vector, with it.
"""

import ctypes
import glob
import json
import os
import re
import sys

import llama_cpp
import numpy as np

model_path, vector_path, tokens_path, strength, threads, out_path = sys.argv[1:]
tokens = json.load(open(tokens_path))
library = glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.*"))[0]
ggml = ctypes.CDLL(library)


class GgufInit(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, GgufInit]
ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_get_n_tensors.argtypes = [ctypes.c_void_p]
ggml.gguf_get_n_tensors.restype = ctypes.c_int64
ggml.gguf_get_tensor_name.argtypes = [ctypes.c_void_p, ctypes.c_int64]
ggml.gguf_get_tensor_name.restype = ctypes.c_char_p
ggml.gguf_get_tensor_type.argtypes = [ctypes.c_void_p, ctypes.c_int64]
ggml.gguf_get_tensor_type.restype = ctypes.c_int
ggml.ggml_get_tensor.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
ggml.ggml_get_tensor.restype = ctypes.c_void_p
ggml.ggml_nelements.argtypes = [ctypes.c_void_p]
ggml.ggml_nelements.restype = ctypes.c_int64
ggml.ggml_get_data_f32.argtypes = [ctypes.c_void_p]
ggml.ggml_get_data_f32.restype = ctypes.POINTER(ctypes.c_float)


def control_vector(path, hidden, layers, factor):
    """Rows [layers - 1, hidden] of blocks 1 to layers - 1."""
    context = ctypes.c_void_p()
    file = ggml.gguf_init_from_file(path.encode(), GgufInit(False, ctypes.pointer(context)))
    if not file:
        sys.exit(f"llama.cpp cannot read {path}")
    rows = np.zeros((layers - 1, hidden), np.float32)
    for i in range(ggml.gguf_get_n_tensors(file)):
        name = ggml.gguf_get_tensor_name(file, i).decode()
        match = re.fullmatch(r"direction\.(\d+)", name)
        tensor = ggml.ggml_get_tensor(context, name.encode())
        if not match or int(match[1]) < 1 or ggml.gguf_get_tensor_type(file, i) != 0:
            sys.exit(f"llama.cpp refuses {name}")
        if ggml.ggml_nelements(tensor) != hidden:
            sys.exit(f"{name} has {ggml.ggml_nelements(tensor)} elements")
        if int(match[1]) < layers:
            rows[int(match[1]) - 1] += factor * np.ctypeslib.as_array(ggml.ggml_get_data_f32(tensor), (hidden,))
    return rows


llama_cpp.llama_backend_init()
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, None)
model_parameters = llama_cpp.llama_model_default_params()
model_parameters.n_gpu_layers = 0
model = llama_cpp.llama_model_load_from_file(model_path.encode(), model_parameters)
parameters = llama_cpp.llama_context_default_params()
parameters.n_ctx = max(256, len(tokens))
parameters.n_batch = parameters.n_ubatch = parameters.n_ctx
parameters.n_threads = parameters.n_threads_batch = int(threads)
parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
hidden = llama_cpp.llama_model_n_embd(model)
layers = llama_cpp.llama_model_n_layer(model)
vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))


def logits(rows):
    context = llama_cpp.llama_init_from_model(model, parameters)
    if rows is not None:
        data = np.ascontiguousarray(rows).ravel()
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        apply = getattr(llama_cpp, "llama_set_adapter_cvec", None) or llama_cpp.llama_apply_adapter_cvec
        if apply(context, pointer, data.size, hidden, 1, layers) != 0:
            sys.exit("llama.cpp refuses the control vector")
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    if llama_cpp.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    result = np.stack(
        [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocabulary,)).copy() for i in range(len(tokens))]
    )
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    return result


rows = control_vector(vector_path, hidden, layers, float(strength))
np.concatenate([logits(None), logits(rows)]).astype("<f4").tofile(out_path)
