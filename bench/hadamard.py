"""The Python side of hadamard.mjs. First line out: what computes. Then one line in, one number out:
`load <rows> <n> <core> <rows file> <core file> <signs file>` keeps a matrix; `time <way> <threads>` rotates it once and
answers with the seconds; `result <file>` writes the rotated rows of PyTorch."""

import sys
import time

import numpy
import torch


def butterflies(x, segment, library):
    """x [rows, core, segment] times the Sylvester matrix of order segment, a stride at a time."""
    shape = x.shape
    stride = 1
    while stride < segment:
        x = x.reshape(-1, segment // (2 * stride), 2, stride)
        a, b = x[:, :, 0], x[:, :, 1]
        x = library.stack((a + b, a - b), 2)
        stride *= 2
    return x.reshape(shape)


def rotate(x, held, library):
    rows, n, core, segment = held["shape"]
    signs, matrix = held[library.__name__]
    y = butterflies((x * signs).reshape(rows, core, segment), segment, library)
    if core > 1:
        y = matrix @ y
    return (y * n**-0.5).reshape(rows, n)


def dense_matrix(held):
    rows, n, core, segment = held["shape"]
    identity = torch.eye(n)
    return rotate(identity, {**held, "shape": (n, n, core, segment)}, torch).T.contiguous()


def load(rows, n, core, rows_file, core_file, signs_file):
    rows, n, core = int(rows), int(n), int(core)
    x = numpy.fromfile(rows_file, numpy.float32).reshape(rows, n)
    signs = numpy.fromfile(signs_file, numpy.int8).astype(numpy.float32)
    matrix = numpy.fromfile(core_file, numpy.int8).reshape(core, core).astype(numpy.float32)
    held = {
        "shape": (rows, n, core, n // core),
        "x": x,
        "numpy": (signs, matrix),
        "torch": (torch.from_numpy(signs), torch.from_numpy(matrix)),
    }
    return held


def timed(held, way, threads):
    torch.set_num_threads(int(threads))
    single = torch.from_numpy(held["x"])
    if way == "dense" and "dense" not in held:
        held["dense"] = dense_matrix(held)
    start = time.perf_counter()
    if way == "numpy":
        rotate(held["x"], held, numpy)
    elif way == "torch":
        rotate(single, held, torch)
    else:
        single @ held["dense"].T
    return time.perf_counter() - start


held = None
print(f"numpy {numpy.__version__}, torch {torch.__version__}", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    if command == "load":
        held = load(*words)
        print(0, flush=True)
    elif command == "time":
        with torch.no_grad():
            print(timed(held, *words), flush=True)
    else:
        rotate(torch.from_numpy(held["x"]), held, torch).numpy().tofile(words[0])
        print(0, flush=True)
