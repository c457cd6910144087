import type { FilterStep } from '../../kernels/token-filter.js';
import type { SamplerStep } from '../types.js';

/** A number or word of a step: its name in text, its default where the method has one, and what it may be. */
export type SamplerParameter =
  | {
      readonly name: string;
      readonly default?: number;
      readonly accepts: (value: number) => boolean;
      /** In words, for messages: `a number in (0, 1]`. */
      readonly range: string;
    }
  | { readonly name: string; readonly default: string; readonly words: readonly string[] };

/** What changes from token to token of one sequence. */
export interface StepState {
  /** Mirostat's bound on the surprise, bits. */
  readonly muBits: number;
  /** Whether a filter that acts by chance acts now. */
  readonly acts: boolean;
}

/** A sampler: its parameters in the order in which text gives them, and how a step becomes a filter of the kernel. */
export interface SamplerMethod<S extends SamplerStep = SamplerStep> {
  readonly summary: string;
  readonly parameters: readonly SamplerParameter[];
  /** Keys of the step that hold the parameters, in their order. */
  readonly keys: readonly Exclude<keyof S, 'kind'>[];
  /** Undefined where the step does nothing this time. */
  readonly filter: (step: S, state: StepState) => FilterStep | undefined;
  /** The chance with which the step acts; 1 unless given. */
  readonly chance?: (step: S) => number;
  /** Bits of surprise aimed at, and the rate of learning, where the step steers towards a surprise. */
  readonly target?: (step: S) => { readonly tauBits: number; readonly eta: number };
}

export const positive = { accepts: (v: number) => v > 0, range: 'a number above 0' } as const;
export const notNegative = { accepts: (v: number) => v >= 0, range: 'a number that is not negative' } as const;
export const share = { accepts: (v: number) => v > 0 && v <= 1, range: 'a number in (0, 1]' } as const;
export const openShare = { accepts: (v: number) => v > 0 && v < 1, range: 'a number in (0, 1)' } as const;
export const count = {
  accepts: (v: number) => Number.isInteger(v) && v >= 1 && v < 2 ** 31,
  range: 'a positive whole number',
} as const;
