import { InputError } from '../errors.js';
import { norm, projections, unit } from './vector-measures.js';

/**
 * Length of a vector: `unit` 1; `raw` as its method gives it; `mean-projection` the mean of |<z, v/|v|>|, the projection
 * of the activations on it; `residual-fraction:f` f times the mean norm of the layer's activations.
 */
export type VectorScale =
  | { readonly kind: 'unit' | 'raw' | 'mean-projection' }
  | { readonly kind: 'residual-fraction'; readonly fraction: number };

const NAMES: Readonly<Record<string, 'unit' | 'raw' | 'mean-projection' | 'residual-fraction'>> = {
  unit: 'unit',
  raw: 'raw',
  'mean-projection': 'mean-projection',
  'mean-proj': 'mean-projection',
  'residual-fraction': 'residual-fraction',
  'resid-fraction': 'residual-fraction',
};

/** @throws InputError for a word that names no scale, or a fraction that is not positive */
export function parseVectorScale(text: string): VectorScale {
  const [name, value, ...more] = text.split(':');
  const kind = NAMES[name.trim().toLowerCase()];
  const known = 'unit, raw, mean-projection, residual-fraction:0.1';
  if (kind === undefined || more.length > 0) throw new InputError(`--scale ${text}: known are ${known}`);
  if (kind !== 'residual-fraction') {
    if (value !== undefined) throw new InputError(`--scale ${text}: ${kind} takes no number; known are ${known}`);
    return { kind };
  }
  const fraction = value === undefined || value.trim() === '' ? Number.NaN : Number(value);
  if (!(fraction > 0) || !Number.isFinite(fraction)) {
    throw new InputError(
      `--scale ${text}: a positive share of the residual norm is needed, such as residual-fraction:0.1`,
    );
  }
  return { kind, fraction };
}

export function formatVectorScale(scale: VectorScale): string {
  return scale.kind === 'residual-fraction' ? `residual-fraction:${scale.fraction}` : scale.kind;
}

/** Norms that a scale refers to, of the activations that the vector was learnt from. */
export interface ActivationNorms {
  /** Mean of |z|. */
  readonly meanNorm: number;
  /** Mean of |<z, v/|v|>|. */
  readonly meanProjection: number;
}

/** Both norms for rows `[n, width]`. */
export function activationNorms(rows: ArrayLike<number>, width: number, vector: ArrayLike<number>): ActivationNorms {
  const count = rows.length / width;
  const length = norm(vector);
  let meanProjection = 0;
  for (const value of projections(rows, width, vector)) meanProjection += Math.abs(value) / length / count;
  let meanNorm = 0;
  for (let r = 0; r < count; r++) {
    let squared = 0;
    for (let at = r * width; at < (r + 1) * width; at++) squared += rows[at] * rows[at];
    meanNorm += Math.sqrt(squared) / count;
  }
  return { meanNorm, meanProjection };
}

/** The vector at the wanted length; its direction stays. @throws InputError where it has none */
export function scaleVector(vector: Float64Array, scale: VectorScale, norms: ActivationNorms): Float64Array {
  if (scale.kind === 'raw') return vector;
  const direction = unit(vector, 'the steering vector');
  if (scale.kind === 'unit') return direction;
  const length = scale.kind === 'residual-fraction' ? scale.fraction * norms.meanNorm : norms.meanProjection;
  return direction.map((value) => value * length);
}
