/**
 * How the input of every linear (router and head aside) is quantised and dequantised again at run time, as a simulation:
 * one scale a token.
 *
 * `int`: symmetric, scale = clip * max|x| / (2^(bits-1) - 1), codes -2^(bits-1) to 2^(bits-1) - 1, round half to even.
 * `pvq`: groups of `groupLength` numbers as points of the pyramid P(groupLength, pulses) with a gain of `gainBits` bits
 * relative to the token's norm; the token's root mean square is kept as f16.
 * `rotated`: the row is rotated by a randomised Hadamard matrix of its width first, and back afterwards.
 */
export type ActivationQuantization =
  | { readonly kind: 'int'; readonly bits: 4 | 8; readonly clip: number; readonly rotated: boolean }
  | {
      readonly kind: 'pvq';
      readonly groupLength: number;
      readonly pulses: number;
      readonly gainBits: number;
      readonly rotated: boolean;
    };

/** A text that is equal for equal settings: keys of sessions, figures in reports. */
export function activationsKey(activations: ActivationQuantization | undefined): string {
  if (activations === undefined) return 'none';
  const rotated = activations.rotated ? ':rotated' : '';
  if (activations.kind === 'int') return `int${activations.bits}:${activations.clip}${rotated}`;
  return `pvq:${activations.groupLength}:${activations.pulses}:${activations.gainBits}${rotated}`;
}
