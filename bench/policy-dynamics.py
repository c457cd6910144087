"""Makes a rollout dump, and takes the figures of `analyze-policy dynamics` with NumPy, pandas and Polars. Used by policy-dynamics.mjs.

  python policy-dynamics.py make DUMP.npz TOKENS STEPS
  python policy-dynamics.py serve DUMP.npz

`serve` reads one way a line from standard input (numpy, numpy-file, pandas, polars) and answers each with a line of JSON.
"""
import json
import resource
import sys
import time

import numpy as np

FRACTIONS = [2e-4, 2e-3, 2e-2, 0.2, 0.5, 1.0]
QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.8, 0.95, 0.99]
GROUP = 8
VOCABULARY = 32000


def make(path, tokens, steps):
    rng = np.random.default_rng(7)
    mean_length = 512
    per_step = tokens // steps
    lengths, step_of, prompt, reward = [], [], [], []
    for step in range(steps):
        own = rng.integers(mean_length // 4, mean_length * 7 // 4, 2 * per_step // mean_length + GROUP)
        own = own[: np.searchsorted(np.cumsum(own), per_step) // GROUP * GROUP]
        lengths.append(own)
        step_of.append(np.full(len(own), step))
        prompt.append(np.arange(len(own)) // GROUP)
        ability = np.repeat(rng.random(len(own) // GROUP), GROUP)
        reward.append((rng.random(len(own)) < ability).astype(np.float64))
    lengths = np.concatenate(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = offsets[-1]
    level = np.repeat(1.4 * np.exp(-2.0 * np.concatenate(step_of) / steps) + 0.1, lengths)
    entropy = rng.gamma(0.5, level / 0.5)
    logprob = -rng.exponential(np.maximum(entropy, 1e-4))
    old = np.minimum(0.0, logprob + rng.normal(0, 0.08, n))
    np.savez(
        path,
        offsets=offsets.astype(np.int64),
        step=np.concatenate(step_of).astype(np.int64),
        prompt_id=np.concatenate(prompt).astype(np.int64),
        reward=np.concatenate(reward),
        tokens=rng.zipf(1.3, n).clip(1, VOCABULARY).astype(np.int32) - 1,
        logprob=logprob,
        old_logprob=old,
        entropy=entropy,
        mask=(rng.random(n) > 0.03).astype(np.uint8),
    )
    print(json.dumps({"tokens": int(n), "records": int(len(lengths))}))


def clustered(sums, counts):
    mean = sums.sum() / counts.sum()
    r = len(sums)
    return mean, np.sqrt(r / (r - 1) * ((sums - counts * mean) ** 2).sum()) / counts.sum()


def advantages(reward, group, groups):
    n = np.bincount(group, minlength=groups)
    mean = np.bincount(group, reward, groups) / n
    centred = reward - mean[group]
    s = np.sqrt(np.bincount(group, centred**2, groups) / np.maximum(n - 1, 1))
    return centred / (s[group] + 1e-6)


def numpy_step(d, first, last):
    """The figures of the records [first, last) of one step."""
    begin, end = d["offsets"][first], d["offsets"][last]
    m = d["mask"][begin:end] != 0
    starts = d["offsets"][first:last] - begin
    counts = np.add.reduceat(m, starts).astype(np.float64)
    lengths = np.diff(d["offsets"][first : last + 1])
    reward = d["reward"][first:last]
    _, group = np.unique(d["prompt_id"][first:last], return_inverse=True)
    groups = group.max() + 1
    a_record = advantages(reward, group, groups)
    record = np.repeat(np.arange(last - first), lengths)[m]
    a = a_record[record]
    l, old, h, ids = (d[k][begin:end][m] for k in ("logprob", "old_logprob", "entropy", "tokens"))
    n = len(l)

    def by_record(x):
        return np.bincount(record, x, last - first)

    h_sum, l_sum = by_record(h), by_record(l)
    entropy, entropy_se = clustered(h_sum, counts)
    quantiles = np.quantile(h, QUANTILES)
    c = (a - a.mean()) * (l - l.mean())
    c_sum = by_record(c)
    cov, cov_se = clustered(c_sum, counts)
    ks = [max(1, int(f * n)) for f in FRACTIONS]
    part = np.partition(c, [n - k for k in ks])
    top = [part[n - k :].mean() for k in ks]
    accuracy = (np.bincount(group, reward, groups) / np.bincount(group, minlength=groups))[group]
    buckets = {float(v): c_sum[accuracy == v].sum() / counts[accuracy == v].sum() for v in np.unique(accuracy)}
    lr = l_sum / counts
    size = np.bincount(group, minlength=groups)
    mean_l = np.bincount(group, lr, groups) / size
    mean_a = np.bincount(group, a_record, groups) / size
    response = (np.bincount(group, (lr - mean_l[group]) * (a_record - mean_a[group]), groups) / size).mean()
    d_ratio = l - old
    rho = np.exp(d_ratio)
    clipped = ((a > 0) & (rho > 1.2)) | ((a < 0) & (rho < 0.8))
    clip, clip_se = clustered(by_record(clipped), counts)
    k1, k1_se = clustered(by_record(-d_ratio), counts)
    k3, k3_se = clustered(by_record(rho - d_ratio - 1), counts)
    x = np.clip(np.exp(l), 1e-8, 1 - 1e-8)
    q = np.clip(np.exp(old), 1e-8, 1)
    tendency = np.log(x) + h
    omega = a / q * x * (1 - x) * tendency
    quadrant = 2 * (a < 0) + (tendency < 0)
    moving = (a != 0) & (tendency != 0)
    q_counts = np.bincount(quadrant[moving], minlength=4)
    q_omega = np.bincount(quadrant[moving], omega[moving], 4)
    net, net_se = clustered(by_record(-omega), counts)
    high = np.bincount(ids[h >= quantiles[4]], minlength=VOCABULARY)
    every = np.bincount(ids, minlength=VOCABULARY)
    return {
        "entropy_token_mean": entropy,
        "entropy_token_mean_se": entropy_se,
        "entropy_seq_mean": (h_sum / counts).mean(),
        "nll_mean": -l.mean(),
        **{f"entropy_p{int(100 * p):02d}": v for p, v in zip(QUANTILES, quantiles)},
        "cov_mean": cov,
        "cov_mean_se": cov_se,
        "cov_frac_positive": (c > 0).mean(),
        **dict(zip(["cov_top_2e-4", "cov_top_2e-3", "cov_top_2e-2", "cov_top_0.2", "cov_top_0.5", "cov_top_1"], top)),
        "response_cov": response,
        "clip_frac": clip,
        "clip_frac_se": clip_se,
        "kl_k1_nats": k1,
        "kl_k1_nats_se": k1_se,
        "kl_k3_nats": k3,
        "kl_k3_nats_se": k3_se,
        "log_ratio_abs_mean": np.abs(d_ratio).mean(),
        "tokens_pp": q_counts[0],
        "tokens_nn": q_counts[3],
        "omega_share_pp": abs(q_omega[0]) / np.abs(q_omega).sum(),
        "omega_net": net,
        "omega_net_se": net_se,
        "zero_adv_group_frac": np.mean([(a_record[group == g] == 0).all() for g in range(groups)]),
        "reward_mean": reward.mean(),
        "length_mean": counts.mean(),
    }, (buckets, high, every)


def with_numpy(d):
    step = d["step"]
    edges = np.flatnonzero(np.diff(step)) + 1
    bounds = np.concatenate([[0], edges, [len(step)]])
    rows, high, every = [], 0, 0
    for first, last in zip(bounds[:-1], bounds[1:]):
        row, (_, h, e) = numpy_step(d, first, last)
        rows.append({"step": int(step[first]), **{k: float(v) for k, v in row.items()}})
        high, every = high + h, every + e
    return rows


def with_pandas(d):
    """Entropies, covariances, ratios and quadrants by step, as a data frame would give them."""
    import pandas as pd

    lengths = np.diff(d["offsets"])
    records = pd.DataFrame({k: d[k] for k in ("step", "prompt_id", "reward")})
    grouped = records.groupby(["step", "prompt_id"])["reward"]
    records["a"] = (records["reward"] - grouped.transform("mean")) / (grouped.transform("std") + 1e-6)
    m = d["mask"] != 0
    record = np.repeat(np.arange(len(lengths)), lengths)[m]
    t = pd.DataFrame({k: d[k][m] for k in ("logprob", "old_logprob", "entropy")})
    t["record"] = record
    t["step"] = d["step"][record]
    t["a"] = records["a"].to_numpy()[record]
    by = t.groupby("step", sort=True)
    t["c"] = (t["a"] - by["a"].transform("mean")) * (t["logprob"] - by["logprob"].transform("mean"))
    ratio = t["logprob"] - t["old_logprob"]
    rho = np.exp(ratio)
    t["clipped"] = ((t["a"] > 0) & (rho > 1.2)) | ((t["a"] < 0) & (rho < 0.8))
    t["k3"] = rho - ratio - 1
    x = np.exp(t["logprob"]).clip(1e-8, 1 - 1e-8)
    tendency = np.log(x) + t["entropy"]
    t["omega"] = t["a"] / np.exp(t["old_logprob"]).clip(1e-8, 1) * x * (1 - x) * tendency
    by = t.groupby("step", sort=True)
    means = by[["entropy", "logprob", "c", "clipped", "k3", "omega"]].mean()
    quantiles = by["entropy"].quantile(QUANTILES).unstack()
    seq = t.groupby(["step", "record"])["entropy"].mean().groupby("step").mean()
    tops = {
        step: [own.nlargest(max(1, int(f * len(own)))).mean() for f in FRACTIONS[:4]] for step, own in by["c"]
    }
    return [
        {
            "step": int(step),
            "entropy_token_mean": float(row["entropy"]),
            "entropy_seq_mean": float(seq[step]),
            "entropy_p50": float(quantiles.loc[step, 0.5]),
            "cov_mean": float(row["c"]),
            "cov_top_2e-3": float(tops[step][1]),
            "clip_frac": float(row["clipped"]),
            "kl_k3_nats": float(row["k3"]),
            "omega_net": float(-row["omega"]),
        }
        for step, row in means.iterrows()
    ]


def with_polars(d):
    """The same figures as with_pandas, by lazy expressions over a Polars frame of the tokens."""
    import polars as pl

    lengths = np.diff(d["offsets"])
    records = pl.DataFrame({k: d[k] for k in ("step", "prompt_id", "reward")}).with_columns(
        a=(pl.col("reward") - pl.col("reward").mean().over("step", "prompt_id"))
        / (pl.col("reward").std().over("step", "prompt_id") + 1e-6)
    )
    m = d["mask"] != 0
    record = np.repeat(np.arange(len(lengths)), lengths)[m]
    l, old, h, a = (pl.col(k) for k in ("logprob", "old_logprob", "entropy", "a"))
    rho = (l - old).exp()
    x = l.exp().clip(1e-8, 1 - 1e-8)
    tokens = pl.DataFrame({k: d[k][m] for k in ("logprob", "old_logprob", "entropy")}).with_columns(
        record=pl.Series(record), step=pl.Series(d["step"][record]), a=pl.Series(records["a"].to_numpy()[record])
    )
    c = (a - a.mean()) * (l - l.mean())
    clipped = ((a > 0) & (rho > 1.2)) | ((a < 0) & (rho < 0.8))
    omega = a / old.exp().clip(1e-8, 1) * x * (1 - x) * (x.log() + h)
    by_step = tokens.lazy().group_by("step").agg(
        entropy_token_mean=h.mean(),
        entropy_p50=h.quantile(0.5, "linear"),
        cov_mean=c.mean(),
        **{
            f"cov_top_{name}": c.top_k((pl.len() * f).cast(pl.Int64).clip(1, None)).mean()
            for name, f in zip(("2e-4", "2e-3", "2e-2", "0.2"), FRACTIONS)
        },
        clip_frac=clipped.mean(),
        kl_k3_nats=(rho - (l - old) - 1).mean(),
        omega_net=-omega.mean(),
    )
    sequence = (
        tokens.lazy().group_by("step", "record").agg(h.mean()).group_by("step").agg(entropy_seq_mean=h.mean())
    )
    return by_step.join(sequence, on="step").sort("step").collect().to_dicts()


def load(path):
    with np.load(path) as archive:
        return {k: archive[k] for k in archive.files}


def serve(path):
    d = load(path)
    for line in sys.stdin:
        way = line.strip()
        start = time.perf_counter()
        if way == "numpy-file":
            rows = with_numpy(load(path))
        else:
            rows = {"numpy": with_numpy, "pandas": with_pandas, "polars": with_polars}[way](d)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "rows": rows, "peak": peak}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(float(sys.argv[3])), int(sys.argv[4]))
    else:
        serve(sys.argv[2])
