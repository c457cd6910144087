import { InputError } from '../errors.js';

/** One trajectory of latents: row t of `z` is followed by row t of `next`, both `[steps, width]`, row-major. */
export interface LatentSequence {
  readonly steps: number;
  readonly z: Float64Array;
  readonly next: Float64Array;
}

/** Trajectories of one latent space. */
export interface Sequences {
  readonly width: number;
  readonly list: readonly LatentSequence[];
}

/** Total of the steps of all sequences. */
export function stepCount(sequences: Sequences): number {
  return sequences.list.reduce((sum, { steps }) => sum + steps, 0);
}

/**
 * Sequences from stacked rows: without `next`, each is shifted by one step inside itself and so loses its last row.
 * @param z `[sum of lengths, width]`
 * @param lengths rows of each sequence
 * @param next rows one step later, laid out like `z`
 * @throws InputError when a sequence has fewer than two rows and no successor is given
 */
export function sequencesOf(
  z: Float64Array,
  width: number,
  lengths: readonly number[],
  next?: Float64Array,
  where = 'the sequences',
): Sequences {
  let at = 0;
  const list = lengths.map((length, index): LatentSequence => {
    const rows = z.subarray(at * width, (at + length) * width);
    const after = next?.subarray(at * width, (at + length) * width);
    at += length;
    if (after) return { steps: length, z: rows, next: after };
    if (length < 2) {
      throw new InputError(
        `${where}: sequence ${index} has ${length} step; at least 2 are needed to follow one another`,
      );
    }
    return { steps: length - 1, z: rows.subarray(0, (length - 1) * width), next: rows.subarray(width) };
  });
  return { width, list };
}

/** All latents of all sequences, `[steps, width]`. */
export function stackedLatents(sequences: Sequences): Float64Array {
  const rows = new Float64Array(stepCount(sequences) * sequences.width);
  let at = 0;
  for (const { z } of sequences.list) {
    rows.set(z, at);
    at += z.length;
  }
  return rows;
}
