import { multiply } from '../kernels/gemm.js';
import { type CoherenceOptions, codeCoherenceLoss, paperCoherence } from './coherence.js';
import { consistencyLoss, koopmanMatrix } from './koopman-matrix.js';
import { latentEntropy, latentEntropyGradient } from './latent-entropy.js';
import { type Sequences, stackedLatents, stepCount } from './sequences.js';

/** `paper`: information and entropy are maximised. `code`: the released code, which minimises the entropy. */
export type KoopmanVariant = 'paper' | 'code';

export const KOOPMAN_VARIANTS: readonly KoopmanVariant[] = ['paper', 'code'];

/** Weights of the information Lagrangian (Cheng et al. 2025). */
export interface LagrangianWeights {
  /** Of the latent mutual information. */
  readonly alpha: number;
  /** Paper: of the structural consistency. Code: of the von Neumann entropy, which the code calls beta. */
  readonly beta: number;
  /** Paper: of the von Neumann entropy. The code has no such term. */
  readonly gamma: number;
  /** Code: of the reconstruction of the latents' own steps. */
  readonly reconstruction: number;
}

export interface LagrangianSettings extends CoherenceOptions {
  readonly variant: KoopmanVariant;
  readonly ridge: number;
  readonly weights: LagrangianWeights;
}

/** Every term of the objective, and the latent part of its value: what is minimised but for reconstruction. */
export interface LagrangianTerms {
  readonly koopman: Float64Array;
  /** Paper: the estimate of I, to be maximised. Code: the contrastive loss, to be minimised. */
  readonly coherenceNats: number;
  readonly anchors: number;
  /** Mean of ‖z' − z C‖². */
  readonly consistency: number;
  readonly entropyNats: number;
  readonly effectiveDimension: number;
  readonly collapsed: boolean;
  /** `−α I + β consistency − γ S` (paper); `α loss + β S` (code). */
  readonly lagrangian: number;
}

/** Terms of the Lagrangian on latents, with C fitted on the same latents unless one is given. */
export function lagrangianTerms(
  sequences: Sequences,
  settings: LagrangianSettings,
  koopman = koopmanMatrix(sequences, settings.ridge),
): LagrangianTerms {
  const { variant, weights } = settings;
  const { alpha, beta, gamma } = weights;
  const coherence = variant === 'paper' ? paperCoherence(sequences, settings) : codeCoherenceLoss(sequences, settings);
  const { width } = sequences;
  const entropy = latentEntropy(stackedLatents(sequences), stepCount(sequences), width, variant);
  const consistency = consistencyLoss(sequences, koopman);
  const lagrangian =
    variant === 'paper'
      ? -alpha * coherence.nats + beta * consistency - gamma * entropy.entropyNats
      : alpha * coherence.nats + beta * entropy.entropyNats;
  return {
    koopman,
    coherenceNats: coherence.nats,
    anchors: coherence.anchors,
    consistency,
    entropyNats: entropy.entropyNats,
    effectiveDimension: entropy.effectiveDimension,
    collapsed: entropy.collapsed,
    lagrangian,
  };
}

/**
 * Gradient of `lagrangian` with respect to latents and, where they are others, their successors; `[steps, width]` a
 * sequence. C is held fixed, as in the released code.
 */
export function lagrangianGradients(
  sequences: Sequences,
  settings: LagrangianSettings,
  koopman: Float64Array,
): { readonly z: readonly Float64Array[]; readonly next: readonly Float64Array[] } {
  const { variant, weights } = settings;
  const { alpha, beta, gamma } = weights;
  const { width, list } = sequences;
  const paper = variant === 'paper';
  const coherence = paper ? paperCoherence(sequences, settings, true) : codeCoherenceLoss(sequences, settings, true);
  const count = stepCount(sequences);
  const entropy = latentEntropyGradient(stackedLatents(sequences), count, width, variant);
  const coherenceWeight = paper ? -alpha : alpha;
  const entropyWeight = paper ? -gamma : beta;
  const next = list.map(({ next: rows }) => new Float64Array(rows.length));
  let at = 0;
  const z = list.map(({ steps, z: rows, next: after }, s) => {
    const gradient = entropy.slice(at, at + rows.length).map((value) => value * entropyWeight);
    at += rows.length;
    const own = coherence.gradients?.[s];
    if (own) for (let i = 0; i < gradient.length; i++) gradient[i] += coherenceWeight * own[i];
    if (!paper || beta === 0) return gradient;
    const size = { m: steps, n: width, k: width };
    const residual = multiply(rows, koopman, new Float64Array(rows.length), size);
    for (let i = 0; i < residual.length; i++) residual[i] = (2 * beta * (after[i] - residual[i])) / count;
    next[s].set(residual);
    return multiply(residual, koopman, gradient, size, { transposeB: true, alpha: -1, beta: 1 });
  });
  return { z, next };
}
