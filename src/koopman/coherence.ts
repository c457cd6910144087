import { multiply } from '../kernels/gemm.js';
import type { Sequences } from './sequences.js';

/** How similar latents are: cosine of the angle, or the plain inner product. */
export type Similarity = 'cosine' | 'inner-product';

/** Which latents stand in the paper's denominator: those of the anchor's sequence, or of all sequences. */
export type Denominator = 'sequence' | 'minibatch';

export interface CoherenceOptions {
  /** Neighbours on each side of an anchor that count as its own. */
  readonly window: number;
  readonly temperature: number;
  readonly similarity?: Similarity;
  readonly denominator?: Denominator;
}

/** Value in nats and its gradient with respect to the latents of each sequence, `[steps, width]`. */
export interface Coherence {
  readonly nats: number;
  readonly anchors: number;
  readonly gradients?: readonly Float64Array[];
}

/** Added to the denominator by the released code, after the exponents were shifted. */
const CODE_EPSILON = 1e-8;
const LEAST_NORM = 1e-12;

interface Directions {
  readonly rows: Float64Array;
  readonly norms: Float64Array;
}

function directionsOf(z: Float64Array, steps: number, width: number, similarity: Similarity): Directions {
  const norms = new Float64Array(steps).fill(1);
  if (similarity === 'inner-product') return { rows: z, norms };
  for (let t = 0; t < steps; t++) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += z[t * width + i] ** 2;
    norms[t] = Math.max(LEAST_NORM, Math.sqrt(squares));
  }
  return { rows: z.map((value, at) => value / norms[Math.floor(at / width)]), norms };
}

/** Takes a gradient on directions back to the latents: what lies along a latent changes nothing. */
function throughNorms(gradient: Float64Array, directions: Directions, width: number, similarity: Similarity): void {
  if (similarity === 'inner-product') return;
  const { rows, norms } = directions;
  for (let t = 0; t < norms.length; t++) {
    let along = 0;
    for (let i = 0; i < width; i++) along += gradient[t * width + i] * rows[t * width + i];
    for (let i = 0; i < width; i++) {
      gradient[t * width + i] = (gradient[t * width + i] - along * rows[t * width + i]) / norms[t];
    }
  }
}

const isNeighbour = (a: number, b: number, window: number): boolean => a !== b && Math.abs(a - b) <= window;

/**
 * The contrastive loss of the released code (Cheng et al. 2025): for anchors k..T−k−1 of each sequence,
 * `−log(P / (P + Q + 1e-8))` with P over the 2k neighbours and Q over all other steps of the same sequence; mean over
 * sequences, over anchors. An anchor without negatives adds 0. A sequence of at most 2k steps has no anchor.
 */
export function codeCoherenceLoss(sequences: Sequences, options: CoherenceOptions, gradients = false): Coherence {
  const { window, temperature, similarity = 'cosine' } = options;
  const { width, list } = sequences;
  const found: Float64Array[] = [];
  let total = 0;
  let anchors = 0;
  for (const { steps, z } of list) {
    const directions = directionsOf(z, steps, width, similarity);
    const gradient = new Float64Array(gradients ? z.length : 0);
    found.push(gradient);
    const count = steps - 2 * window;
    if (count <= 0) continue;
    anchors += count;
    const scores = scoresOf(directions.rows, directions.rows, steps, steps, width, temperature);
    const weights = new Float64Array(gradients ? steps * steps : 0);
    const share = 1 / (count * list.length);
    for (let n = window; n < steps - window; n++) {
      if (steps === 2 * window + 1) continue;
      let most = Number.NEGATIVE_INFINITY;
      for (let j = 0; j < steps; j++) if (j !== n) most = Math.max(most, scores[n * steps + j]);
      let positive = 0;
      let negative = 0;
      for (let j = 0; j < steps; j++) {
        if (j === n) continue;
        const e = Math.exp(scores[n * steps + j] - most);
        if (isNeighbour(j, n, window)) positive += e;
        else negative += e;
      }
      const whole = positive + negative + CODE_EPSILON;
      total -= share * (Math.log(positive) - Math.log(whole));
      if (!gradients) continue;
      for (let j = 0; j < steps; j++) {
        if (j === n) continue;
        const e = Math.exp(scores[n * steps + j] - most);
        weights[n * steps + j] = share * (e / whole - (isNeighbour(j, n, window) ? e / positive : 0));
      }
    }
    if (gradients) {
      addScoreGradient(gradient, gradient, weights, directions.rows, directions.rows, steps, steps, width, temperature);
      throughNorms(gradient, directions, width, similarity);
    }
  }
  return { nats: total, anchors, ...(gradients && { gradients: found }) };
}

/** `[rows, columns]` of inner products over the temperature. */
function scoresOf(
  a: Float64Array,
  b: Float64Array,
  rows: number,
  columns: number,
  width: number,
  temperature: number,
): Float64Array {
  const scores = new Float64Array(rows * columns);
  return multiply(a, b, scores, { m: rows, n: columns, k: width }, { transposeB: true, alpha: 1 / temperature });
}

/** Adds what weights `[rows, columns]` on scores mean for both sides of the products. */
function addScoreGradient(
  intoA: Float64Array,
  intoB: Float64Array,
  weights: Float64Array,
  a: Float64Array,
  b: Float64Array,
  rows: number,
  columns: number,
  width: number,
  temperature: number,
): void {
  multiply(weights, b, intoA, { m: rows, n: width, k: columns }, { alpha: 1 / temperature, beta: 1 });
  multiply(weights, a, intoB, { m: columns, n: width, k: rows }, { transposeA: true, alpha: 1 / temperature, beta: 1 });
}

/**
 * The paper's estimate of `I(z_n; P_n)` in nats, to be maximised (Cheng et al. 2025, algorithms 1 and 2): mean over anchors
 * k..T−k−1 and their 2k neighbours p of `log [exp(s_np) / Σ_j exp(s_nj)]`, self and neighbours in the denominator. The
 * sum runs over the anchor's own sequence; `minibatch` extends it to all sequences. 0 where no sequence is longer than 2k.
 */
export function paperCoherence(sequences: Sequences, options: CoherenceOptions, gradients = false): Coherence {
  const { window, temperature, similarity = 'cosine', denominator = 'sequence' } = options;
  const { width, list } = sequences;
  const directions = list.map(({ steps, z }) => directionsOf(z, steps, width, similarity));
  const found = list.map(({ z }) => new Float64Array(gradients ? z.length : 0));
  const anchors = list.reduce((sum, { steps }) => sum + Math.max(0, steps - 2 * window), 0);
  if (anchors === 0) return { nats: 0, anchors, ...(gradients && { gradients: found }) };
  let total = 0;
  list.forEach(({ steps }, own) => {
    if (steps <= 2 * window) return;
    const others = denominator === 'sequence' ? [own] : list.map((_, index) => index);
    const blocks = others.map((other) => ({
      other,
      columns: list[other].steps,
      scores: scoresOf(directions[own].rows, directions[other].rows, steps, list[other].steps, width, temperature),
      weights: new Float64Array(gradients ? steps * list[other].steps : 0),
    }));
    for (let n = window; n < steps - window; n++) {
      let most = Number.NEGATIVE_INFINITY;
      for (const { scores, columns } of blocks) {
        for (let j = 0; j < columns; j++) most = Math.max(most, scores[n * columns + j]);
      }
      let sum = 0;
      for (const { scores, columns } of blocks) {
        for (let j = 0; j < columns; j++) sum += Math.exp(scores[n * columns + j] - most);
      }
      const logSum = most + Math.log(sum);
      for (const { other, scores, columns, weights } of blocks) {
        for (let j = 0; j < columns; j++) {
          const neighbour = other === own && isNeighbour(j, n, window);
          if (neighbour) total += (scores[n * columns + j] - logSum) / (2 * window);
          if (gradients) {
            const e = Math.exp(scores[n * columns + j] - logSum);
            weights[n * columns + j] = ((neighbour ? 1 / (2 * window) : 0) - e) / anchors;
          }
        }
      }
    }
    if (!gradients) return;
    for (const { other, columns, weights } of blocks) {
      const [a, b] = [directions[own].rows, directions[other].rows];
      addScoreGradient(found[own], found[other], weights, a, b, steps, columns, width, temperature);
    }
  });
  if (gradients) {
    for (const [i, gradient] of found.entries()) throughNorms(gradient, directions[i], width, similarity);
  }
  return { nats: total / anchors, anchors, ...(gradients && { gradients: found }) };
}
