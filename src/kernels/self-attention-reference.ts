import type { SelfAttention, SelfAttentionGradients } from './self-attention.js';

/** Rows of one head [length, headDim] of an array [batch, length, count, headDim], turned by the rotary embedding. */
function rowsOf(
  r: SelfAttention,
  from: Float32Array,
  place: { readonly window: number; readonly head: number; readonly count: number },
  turned: boolean,
): Float64Array {
  const rows = new Float64Array(r.length * r.headDim);
  const half = turned && r.rotation ? r.rotation.dims / 2 : 0;
  for (let i = 0; i < r.length; i++) {
    const at = ((place.window * r.length + i) * place.count + place.head) * r.headDim;
    for (let d = 0; d < r.headDim; d++) rows[i * r.headDim + d] = from[at + d];
    for (let k = 0; k < half; k++) {
      const c = r.rotation?.cosines[i * half + k] ?? 1;
      const s = r.rotation?.sines[i * half + k] ?? 0;
      rows[i * r.headDim + k] = from[at + k] * c - from[at + k + half] * s;
      rows[i * r.headDim + k + half] = from[at + k + half] * c + from[at + k] * s;
    }
  }
  return rows;
}

/** Adds gradients of such rows to an array, through the transposed rotation. */
function addRows(
  r: SelfAttention,
  rows: Float64Array,
  to: Float32Array,
  place: { readonly window: number; readonly head: number; readonly count: number },
  turned: boolean,
): void {
  const half = turned && r.rotation ? r.rotation.dims / 2 : 0;
  for (let i = 0; i < r.length; i++) {
    const at = ((place.window * r.length + i) * place.count + place.head) * r.headDim;
    const own = rows.subarray(i * r.headDim, (i + 1) * r.headDim);
    for (let d = 2 * half; d < r.headDim; d++) to[at + d] += own[d];
    for (let k = 0; k < half; k++) {
      const c = r.rotation?.cosines[i * half + k] ?? 1;
      const s = r.rotation?.sines[i * half + k] ?? 0;
      to[at + k] += own[k] * c + own[k + half] * s;
      to[at + k + half] += own[k + half] * c - own[k] * s;
    }
  }
}

const dot = (a: Float64Array, i: number, b: Float64Array, j: number, width: number): number => {
  let sum = 0;
  for (let d = 0; d < width; d++) sum += a[i * width + d] * b[j * width + d];
  return sum;
};

/** Scores of query i with the keys from..i, capped. */
function scoresOf(
  r: SelfAttention,
  q: Float64Array,
  k: Float64Array,
  i: number,
): { from: number; scores: Float64Array } {
  const from = r.window === undefined ? 0 : Math.max(0, i - r.window + 1);
  const scores = new Float64Array(i + 1 - from);
  for (let j = from; j <= i; j++) {
    const score = r.scale * dot(q, i, k, j, r.headDim);
    scores[j - from] = r.softcap === undefined ? score : r.softcap * Math.tanh(score / r.softcap);
  }
  return { from, scores };
}

/** {@link selfAttentionForward} in plain loops. */
export function selfAttentionForwardReference(r: SelfAttention): void {
  for (let window = 0; window < r.batch; window++) {
    for (let head = 0; head < r.heads; head++) {
      const own = { window, head, count: r.heads };
      const shared = { window, head: Math.floor((head * r.kvHeads) / r.heads), count: r.kvHeads };
      const q = rowsOf(r, r.queries, own, true);
      const k = rowsOf(r, r.keys, shared, true);
      const v = rowsOf(r, r.values, shared, false);
      for (let i = 0; i < r.length; i++) {
        const { from, scores } = scoresOf(r, q, k, i);
        const most = scores.reduce((a, b) => Math.max(a, b));
        let sum = 0;
        for (const score of scores) sum += Math.exp(score - most);
        r.sums[(window * r.heads + head) * r.length + i] = most + Math.log(sum);
        const at = ((window * r.length + i) * r.heads + head) * r.headDim;
        for (let d = 0; d < r.headDim; d++) {
          let mixed = 0;
          scores.forEach((score, j) => {
            mixed += (Math.exp(score - most) / sum) * v[(from + j) * r.headDim + d];
          });
          r.mixed[at + d] = mixed;
        }
      }
    }
  }
}

/** {@link selfAttentionBackward} in plain loops. */
export function selfAttentionBackwardReference(r: SelfAttention, gradients: SelfAttentionGradients): void {
  const { headDim } = r;
  gradients.queries.fill(0);
  gradients.keys.fill(0);
  gradients.values.fill(0);
  for (let window = 0; window < r.batch; window++) {
    for (let head = 0; head < r.heads; head++) {
      const own = { window, head, count: r.heads };
      const shared = { window, head: Math.floor((head * r.kvHeads) / r.heads), count: r.kvHeads };
      const q = rowsOf(r, r.queries, own, true);
      const k = rowsOf(r, r.keys, shared, true);
      const v = rowsOf(r, r.values, shared, false);
      const g = rowsOf(r, gradients.mixed, own, false);
      const out = rowsOf(r, r.mixed, own, false);
      const [dq, dk, dv] = [q, k, v].map((rows) => new Float64Array(rows.length));
      for (let i = 0; i < r.length; i++) {
        const { from, scores } = scoresOf(r, q, k, i);
        const sum = r.sums[(window * r.heads + head) * r.length + i];
        const mean = dot(g, i, out, i, headDim);
        scores.forEach((score, offset) => {
          const j = from + offset;
          const p = Math.exp(score - sum);
          const capped = r.softcap === undefined ? 1 : 1 - (score / r.softcap) ** 2;
          const slope = r.scale * capped * p * (dot(g, i, v, j, headDim) - mean);
          for (let d = 0; d < headDim; d++) {
            dv[j * headDim + d] += p * g[i * headDim + d];
            dq[i * headDim + d] += slope * k[j * headDim + d];
            dk[j * headDim + d] += slope * q[i * headDim + d];
          }
        });
      }
      addRows(r, dq, gradients.queries, own, true);
      addRows(r, dk, gradients.keys, shared, true);
      addRows(r, dv, gradients.values, shared, false);
    }
  }
}
