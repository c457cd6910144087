"""The scikit-learn side of probes.mjs: for every solver named on standard input fits the same objective once, and prints
seconds, objective, the norm of its gradient and the iterations."""

import json
import sys
import time

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

folder, rows, features, classes, decay = sys.argv[1], *sys.argv[2:5], float(sys.argv[5])
rows, features, classes = int(rows), int(features), int(classes)
x = np.fromfile(f"{folder}/x.f64").reshape(rows, features)
y = np.fromfile(f"{folder}/y.i32", dtype=np.int32)
print(json.dumps({"version": sklearn.__version__}), flush=True)

for line in sys.stdin:
    solver = line.strip()
    # Tolerances on the largest entry of the gradient, so that its norm comes near 1e-8.
    tolerance = 1e-8 / np.sqrt(classes * (features + 1))
    model = LogisticRegression(C=1 / (rows * decay), solver=solver, tol=tolerance, max_iter=20000)
    start = time.perf_counter()
    model.fit(x, y)
    seconds = time.perf_counter() - start
    w, b = model.coef_, model.intercept_
    logits = x @ w.T + b
    logits -= logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    d = np.exp(log_p)
    objective = -log_p[np.arange(rows), y].mean() + decay / 2 * (w**2).sum()
    d[np.arange(rows), y] -= 1
    d /= rows
    norm = np.sqrt(((d.T @ x + decay * w) ** 2).sum() + (d.sum(0) ** 2).sum())
    print(
        json.dumps(
            {
                "seconds": seconds,
                "objective": objective,
                "gradientNorm": norm,
                "passes": int(model.n_iter_.max()),
            }
        ),
        flush=True,
    )
