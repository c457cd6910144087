import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { mixingMethod } from '../src/fusion/mixing/rows/registry.js';
import type { MixingMethod, MixingParameter, MixingParameters } from '../src/fusion/mixing/types.js';
import type { ReportValue } from '../src/report/values.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import type { SharedOptions } from './shared-options.js';

export const MIX_SHARED = [
  'model',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'context',
  'out',
  'format',
  'report',
  'table',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

export type MixShared = Pick<SharedOptions, (typeof MIX_SHARED)[number] | 'config' | 'debug'>;

/** Options of the methods' numbers, as commander gives them. */
export interface ParameterOptions {
  readonly eta?: string;
  readonly mu?: string;
  readonly ema?: string;
  readonly gamma?: string;
  readonly memory?: string;
  readonly diagonal?: boolean;
  readonly normalize?: boolean;
  readonly smoothing?: string;
  readonly scoreClip?: string;
  readonly window?: string;
  readonly floor?: string;
}

/** Declares them. */
export function addParameterOptions(command: Command): Command {
  return command
    .option(
      '--eta <x>',
      'aioli, skill-it: step of exponentiated gradient (default: the recipe for so many groups; 0.2)',
    )
    .option('--mu <x>', 'doremi: step; doge: inverse step (default 0.01)')
    .option('--ema <beta>', 'aioli: weight of the matrices of before, or none (default: the recipe)')
    .option('--gamma <share>', 'aioli: share of the probed group (default: the recipe)')
    .option('--memory <how>', 'aioli: accumulate (the paper) or uniform (the code with --ema) (default as the code)')
    .option('--diagonal', 'aioli: only what a probe says of its own group')
    .option('--no-normalize', 'aioli: use the matrix as it was measured')
    .option('--smoothing <share>', 'doremi: share of the uniform mixture (default 0.001)')
    .option('--score-clip <x>', 'doge: greatest score, in learning rates (default 5)')
    .option('--window <n>', 'skill-it: evaluations that are summed (default 3)')
    .option('--floor <share>', 'no proportion falls below it (default 0)');
}

/** The option of every parameter. */
const OPTION_OF: Readonly<Record<MixingParameter, keyof ParameterOptions>> = {
  eta: 'eta',
  mu: 'mu',
  ema: 'ema',
  gamma: 'gamma',
  memory: 'memory',
  diagonal: 'diagonal',
  normalise: 'normalize',
  smoothing: 'smoothing',
  clip: 'scoreClip',
  window: 'window',
  floor: 'floor',
};

/** What stands in a slot that a method does not read. */
const UNREAD: MixingParameters = {
  eta: 0,
  mu: 0,
  ema: null,
  gamma: 1,
  memory: 'accumulate',
  diagonal: false,
  normalise: false,
  smoothing: 0,
  clip: 0,
  window: 1,
  floor: 0,
};

/** @throws InputError for numbers out of range and options that the method does not read */
export function parseParameters(own: ParameterOptions, method: MixingMethod, groups: number): MixingParameters {
  const defaults = method.parameters(groups);
  for (const [parameter, option] of Object.entries(OPTION_OF) as [MixingParameter, keyof ParameterOptions][]) {
    const given = option === 'normalize' ? own.normalize === false : own[option] !== undefined;
    if (!given || parameter in defaults) continue;
    const flag = option === 'normalize' ? '--no-normalize' : flagOf(option);
    throw new InputError(
      `${flag}: ${method.name} does not read it; it reads ${optionsOf(defaults).join(', ') || 'no numbers'}`,
    );
  }
  const number = (option: keyof ParameterOptions, fallback: number | undefined, low: number, high?: number): number =>
    own[option] === undefined ? (fallback ?? 0) : parseNumber(flagOf(option), String(own[option]), low, high);
  const ema = parseEma(own.ema, defaults.ema);
  return {
    ...UNREAD,
    ...defaults,
    eta: number('eta', defaults.eta, 0),
    mu: number('mu', defaults.mu, Number.MIN_VALUE),
    ema,
    gamma: number('gamma', defaults.gamma, 0, 1),
    memory:
      own.memory === undefined
        ? ema === null || defaults.ema === undefined
          ? 'accumulate'
          : 'uniform'
        : parseChoice('--memory', own.memory, ['accumulate', 'uniform'] as const),
    diagonal: own.diagonal === true,
    normalise: defaults.normalise === true && own.normalize !== false,
    smoothing: number('smoothing', defaults.smoothing, 0, 1),
    clip: number('scoreClip', defaults.clip, 0),
    window: own.window === undefined ? (defaults.window ?? 1) : parseInteger('--window', own.window, 1),
    floor: number('floor', defaults.floor, 0, 1 / groups),
  };
}

function parseEma(text: string | undefined, fallback: number | null | undefined): number | null {
  if (text === undefined) return fallback ?? null;
  if (text === 'none') return null;
  const beta = parseNumber('--ema', text, 0, 1);
  if (beta === 1) throw new InputError('--ema 1: would never hear a new matrix; a number below 1, or none');
  return beta;
}

const optionsOf = (defaults: Partial<MixingParameters>): string[] =>
  (Object.keys(defaults) as MixingParameter[]).map((parameter) => flagOf(OPTION_OF[parameter]));

/** The numbers that a method read, for a report. */
export function parameterValues(method: MixingMethod, parameters: MixingParameters): Record<string, ReportValue> {
  const read = Object.keys(method.parameters(2)) as MixingParameter[];
  const names: Partial<Record<MixingParameter, string>> = { normalise: 'normalize', clip: 'score_clip' };
  return Object.fromEntries(read.map((name) => [names[name] ?? name, parameters[name]]));
}

/** `name=value` pairs, in their order. @throws InputError for one that is none, or a name that stands twice */
export function parsePairs(flag: string, pairs: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at < 1 || at === pair.length - 1) throw new InputError(`${flag} ${pair}: write name=value`);
    const name = pair.slice(0, at);
    if (found.has(name)) throw new InputError(`${flag} ${pair}: ${name} stands twice`);
    found.set(name, pair.slice(at + 1));
  }
  return found;
}

/**
 * Numbers by group, written `a=0.2,b=0.8`, in the order of `groups`.
 * @throws InputError for groups that are unknown or missing
 */
export function parseShares(flag: string, text: string, groups: readonly string[]): Float64Array {
  const pairs = parsePairs(flag, text.split(','));
  for (const name of pairs.keys()) {
    if (!groups.includes(name)) throw new InputError(`${flag}: there is no group ${name}; known: ${groups.join(', ')}`);
  }
  return Float64Array.from(groups, (name) => {
    const share = pairs.get(name);
    if (share === undefined) throw new InputError(`${flag} ${text}: nothing is said of ${name}`);
    return parseNumber(`${flag} ${name}`, share, 0);
  });
}

/** The method that `--method`, or the first word, names; aioli where neither does. */
export const methodOf = (name: string | undefined): MixingMethod => mixingMethod(name ?? 'aioli');

/**
 * Proportions at the start matter to a method that multiplies them, and to steps before its first round.
 * @throws InputError where nothing would read them
 */
export function checkPrior(
  own: { readonly prior?: string; readonly priorSteps?: string; readonly memory?: string; readonly ema?: string },
  method: MixingMethod,
): void {
  const moves = method.evidence !== null && method.evidence !== 'losses';
  if (!moves && (own.prior !== undefined || own.priorSteps !== undefined)) {
    throw new InputError(`${own.prior === undefined ? '--prior-steps' : '--prior'}: ${method.name} does not read it`);
  }
  const { memory } =
    method.evidence === 'probes' ? parseParameters({ memory: own.memory, ema: own.ema }, method, 2) : UNREAD;
  if (
    moves &&
    own.prior !== undefined &&
    method.evidence === 'probes' &&
    memory === 'uniform' &&
    !(Number(own.priorSteps) > 0)
  ) {
    throw new InputError(
      '--prior: aioli begins anew at uniform in every round with --memory uniform; pass --memory accumulate, or train on it with --prior-steps',
    );
  }
}
