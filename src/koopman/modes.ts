import { generalEigenvalues } from '../linalg/general-eigenvalues.js';

/** One eigenvalue of the Koopman matrix. */
export interface Mode {
  readonly real: number;
  readonly imaginary: number;
  readonly modulus: number;
  /** Angle in radians, −π to π. */
  readonly argument: number;
}

/** Eigenvalues of C `[width, width]` (those of K = Cᵀ too), by falling modulus, then rising argument. */
export function koopmanModes(c: Float64Array, width: number): Mode[] {
  const { real, imaginary } = generalEigenvalues(c.slice(), width);
  return Array.from(real, (re, i) => ({
    real: re,
    imaginary: imaginary[i],
    modulus: Math.hypot(re, imaginary[i]),
    argument: Math.atan2(imaginary[i], re),
  })).sort((a, b) => b.modulus - a.modulus || a.argument - b.argument);
}

/** Moduli of the eigenvalues, descending; the first is the spectral radius. */
export function modeModuli(c: Float64Array, width: number): Float64Array {
  return Float64Array.from(koopmanModes(c, width), (mode) => mode.modulus);
}

/** Eigenvalues closer than this to the unit circle neither die out nor grow soon. */
export const NEAR_UNIT = 0.05;

export function nearUnitCount(modes: readonly Mode[]): number {
  return modes.filter((mode) => Math.abs(mode.modulus - 1) < NEAR_UNIT).length;
}
