import { InputError } from '../../errors.js';
import { type StraightLine, straightLine } from '../../linalg/straight-line.js';
import { bootstrapLaw, type LawIntervals, usualBlock } from './law-bootstrap.js';
import type { JoinedRun } from './law-data.js';
import {
  distinctEntropies,
  type EarlyPrediction,
  fitLaw,
  type LawFit,
  predictFromEarly,
  residualAutocorrelation,
} from './law-fit.js';

/** How many of the first points an early fit has. */
export type EarlyChoice = { readonly points: number } | { readonly share: number };

export interface LawOptions {
  readonly early: EarlyChoice;
  /** Whether `early` was asked for: then what stands in its way is an error, else a warning. */
  readonly earlyAsked: boolean;
  readonly seed: number;
  readonly draws: number;
  /** Coverage of all intervals. */
  readonly level: number;
  /** Points that are drawn together; n^(1/3) when absent. */
  readonly block?: number;
  /** Numbers of parameters whose law is to be predicted. */
  readonly predictParams: readonly number[];
}

/** Intervals with points drawn alone, and with neighbours drawn together. */
export interface BothIntervals {
  readonly points: LawIntervals | undefined;
  readonly blocks: LawIntervals | undefined;
}

export interface RunLaw {
  readonly joined: JoinedRun;
  readonly fit: LawFit;
  readonly intervals: BothIntervals;
  readonly autocorrelation: number;
  readonly early?: EarlyPrediction & { readonly points: number; readonly intervals: BothIntervals };
  readonly warnings: readonly string[];
}

/** a and b as straight lines in ln(parameters). */
export interface LawScaling {
  readonly runs: number;
  readonly a: StraightLine;
  readonly b: StraightLine;
  readonly predicted: readonly {
    readonly params: number;
    readonly a: number;
    readonly b: number;
    readonly ceiling: number;
  }[];
}

export interface LawAnalysis {
  readonly runs: readonly RunLaw[];
  readonly scaling?: LawScaling;
  readonly warnings: readonly string[];
}

/** A line needs three points. */
const LEAST_EARLY = 3;
/** Below it the law says little of the run. */
const POOR_R2 = 0.5;

/** Points of an early fit of n. */
export function earlyPoints(choice: EarlyChoice, n: number): number {
  return 'points' in choice ? choice.points : Math.max(LEAST_EARLY, Math.round(choice.share * n));
}

/** The law of one run, its early fit, and the intervals of both. @throws InputError as {@link fitLaw} */
export function analyseRun(joined: JoinedRun, options: LawOptions): RunLaw {
  const { run, entropy } = joined;
  const warnings: string[] = [];
  const warn = (text: string): void => void warnings.push(`run "${run}": ${text}`);
  const named = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`run "${run}": ${error.message}`);
      throw error;
    }
  };
  const fit = named(() => fitLaw(joined));
  if (options.block !== undefined && options.block >= entropy.length) {
    throw new InputError(
      `run "${run}": blocks of ${options.block} of ${entropy.length} points can be drawn in one way; a shorter one is needed (--block)`,
    );
  }
  if (fit.a < 0) warn('law not applicable: entropy and performance fall together');
  else if (fit.a === 0) warn('law not applicable: the performance does not change');
  if (fit.r2 < POOR_R2)
    warn(`the law explains ${(100 * fit.r2).toFixed(0)} % of the variance: read nothing into its ceiling`);
  const { span, distance } = extrapolation(entropy);
  if (distance > span) {
    warn('the ceiling lies further from the points, in e^H, than they span: it is an extrapolation');
  }
  if (joined.evaluationOnly.length > 0) {
    const { length } = joined.evaluationOnly;
    warn(
      `${length} evaluated step${length === 1 ? ' has' : 's have'} no entropy and ${length === 1 ? 'is' : 'are'} left out`,
    );
  }
  const early = earlyOf(joined, options, named, warn);
  return {
    joined,
    fit,
    intervals: bothIntervals(joined, options, entropy.length),
    autocorrelation: residualAutocorrelation(joined, fit),
    ...(early && { early }),
    warnings,
  };
}

/** In e^H: what the points span, and how far the lowest is from H = 0. */
export function extrapolation(entropy: Float64Array): { span: number; distance: number } {
  const low = entropy.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = entropy.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return { span: Math.exp(high) - Math.exp(low), distance: Math.expm1(low) };
}

function bothIntervals(joined: JoinedRun, options: LawOptions, count: number): BothIntervals {
  const { seed, draws, level, block = usualBlock(count) } = options;
  if (draws === 0) return { points: undefined, blocks: undefined };
  return {
    points: bootstrapLaw(joined, { seed, draws, level, block: 1 }, count),
    blocks: bootstrapLaw(joined, { seed, draws, level, block }, count),
  };
}

function earlyOf(
  joined: JoinedRun,
  options: LawOptions,
  named: <T>(work: () => T) => T,
  warn: (text: string) => void,
): RunLaw['early'] {
  const n = joined.entropy.length;
  const m = earlyPoints(options.early, n);
  const distinct = distinctEntropies(joined.entropy, m);
  if (!options.earlyAsked && (m >= n || distinct < LEAST_EARLY)) {
    warn(`no early fit: the first ${m} of ${n} points ${m >= n ? 'leave none to predict' : 'have too few entropies'}`);
    return undefined;
  }
  const early = named(() => predictFromEarly(joined, m, options.level));
  if (m < 5) warn(`the early fit has ${m} points: its intervals are wide and say little`);
  if (early.fit.a <= 0) warn('law not applicable to the early points: entropy and performance fall together there');
  return { ...early, points: m, intervals: bothIntervals(joined, options, m) };
}

/**
 * Laws of several runs, and a and b as straight lines in ln(parameters) where two or more sizes are known.
 * @throws InputError as {@link analyseRun}, or where sizes are to be predicted without two of them
 */
export function analyseLaws(
  runs: readonly JoinedRun[],
  options: LawOptions,
  progress?: (runs: number) => void,
): LawAnalysis {
  const laws = runs.map((joined, i) => {
    const law = analyseRun(joined, options);
    progress?.(i + 1);
    return law;
  });
  const warnings = laws.flatMap((law) => law.warnings);
  const sized = laws.filter(({ joined }) => joined.params !== undefined);
  const x = Float64Array.from(sized, ({ joined }) => Math.log(joined.params ?? Number.NaN));
  const [a, b] = [sized.map(({ fit }) => fit.a), sized.map(({ fit }) => fit.b)];
  const lines = sized.length < 2 ? undefined : [straightLine(x, a), straightLine(x, b)];
  if (lines?.[0] === undefined || lines[1] === undefined) {
    if (options.predictParams.length > 0) {
      throw new InputError(
        '--predict-params needs runs of two or more known sizes (--params run=number,... or --params-column)',
      );
    }
    return { runs: laws, warnings };
  }
  const [lineA, lineB] = lines as [StraightLine, StraightLine];
  if (sized.length < laws.length)
    warnings.push(`${laws.length - sized.length} runs without a number of parameters are not in the regression on it`);
  if (sized.length === 2)
    warnings.push('two sizes determine the regression on ln(parameters) exactly: it has no error');
  const predicted = options.predictParams.map((params) => {
    const at = (line: StraightLine): number => line.intercept + line.slope * Math.log(params);
    return { params, a: at(lineA), b: at(lineB), ceiling: at(lineB) - at(lineA) };
  });
  return { runs: laws, scaling: { runs: sized.length, a: lineA, b: lineB, predicted }, warnings };
}

/** Joined runs to laws: a job in a thread of its own. */
export function analyseLawsJob(
  { runs, options }: { readonly runs: readonly JoinedRun[]; readonly options: LawOptions },
  progress: (value: unknown) => void,
): LawAnalysis {
  return analyseLaws(runs, options, progress);
}
