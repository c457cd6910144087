import { didYouMean, InputError } from '../errors.js';
import type { BaselineSettings } from './baselines/baseline.js';
import { findMethod, isMethod, methodNames } from './baselines/registry.js';
import { foreseenBits } from './rate-distortion.js';
import type { AllocationMode } from './settings.js';
import type { SelectedTensor } from './tensor-selection.js';

/** How the pyramid quantiser of this tool is run in a sweep. */
export interface PvqVariant {
  readonly title: string;
  readonly rotation: 'stored' | 'none';
  /** Error feedback and refits from the Hessians of `--data`. */
  readonly hessian: boolean;
  readonly allocation: AllocationMode;
}

/** The variants by name. */
export const PVQ_VARIANTS: Readonly<Record<string, PvqVariant>> = {
  pvq: { title: 'PVQ', rotation: 'stored', hessian: false, allocation: 'uniform' },
  'pvq-unrotated': { title: 'PVQ, unrotated', rotation: 'none', hessian: false, allocation: 'uniform' },
  'pvq-hessian': { title: 'PVQ + Hessian', rotation: 'stored', hessian: true, allocation: 'uniform' },
  'pvq-unrotated-hessian': {
    title: 'PVQ, unrotated + Hessian',
    rotation: 'none',
    hessian: true,
    allocation: 'uniform',
  },
  'pvq-hessian-allocated': {
    title: 'PVQ + Hessian + allocation',
    rotation: 'stored',
    hessian: true,
    allocation: 'kl',
  },
};

/** A method as it was asked for: `rtn`, or `rtn:bits=3:group=64` for one setting of it. */
export interface AskedMethod {
  readonly text: string;
  readonly name: string;
  readonly fixed?: BaselineSettings;
}

/** One row of a sweep, before it is run. */
export interface SweepCandidate {
  /** Unique in the sweep: method and setting. */
  readonly id: string;
  readonly method: string;
  readonly title: string;
  /** Rates that it was chosen for; empty for a method of one rate. */
  readonly askedBitsPerWeight: readonly number[];
  /** Bits of all selected tensors; of a PVQ candidate what is asked for. */
  readonly foreseenBits: number;
  readonly run:
    | { readonly kind: 'baseline'; readonly settings: BaselineSettings }
    | { readonly kind: 'pvq'; readonly variant: PvqVariant; readonly bitsPerWeight: number };
}

/** What is not run, and why. */
export interface LeftOut {
  readonly method: string;
  readonly asked_bits_per_weight: number | null;
  readonly bits_per_weight: number | null;
  readonly reason: string;
}

export interface SweepPlan {
  readonly candidates: readonly SweepCandidate[];
  readonly leftOut: readonly LeftOut[];
}

export interface SweepRequest {
  readonly methods: readonly AskedMethod[];
  /** Bits per quantised weight. */
  readonly rates: readonly number[];
  readonly tensors: readonly SelectedTensor[];
  /** Bits per weight of a source that is quantised itself: nothing at or above them is run. */
  readonly sourceBitsPerWeight?: number;
}

/** How far from a rate a setting of a method may lie and still stand for it. */
const NEAR = 0.15;

const names = (): string[] => [...Object.keys(PVQ_VARIANTS), ...methodNames()];

/** @throws InputError for an unknown method, key or value */
export function parseMethods(texts: readonly string[]): AskedMethod[] {
  const parts = texts.flatMap((text) => text.split(',')).map((text) => text.trim());
  return parts.filter((text) => text !== '').map(parseMethod);
}

function parseMethod(text: string): AskedMethod {
  const [name, ...pairs] = text.split(':');
  if (!isMethod(name) && !Object.hasOwn(PVQ_VARIANTS, name)) {
    throw new InputError(`--methods: no method "${name}"${didYouMean(name, names())}`);
  }
  if (pairs.length === 0) return { text, name };
  const keys = isMethod(name) ? Object.keys(findMethod(name).baseline.settings[0]) : [];
  const fixed: Record<string, number> = {};
  for (const pair of pairs) {
    const [key, value] = pair.split('=');
    if (!keys.includes(key)) {
      const known = keys.length > 0 ? `it has ${keys.join(' and ')}` : 'it has none';
      throw new InputError(`--methods ${text}: no setting "${key}" of ${name}; ${known}`);
    }
    const number = Number(value);
    const least = key === 'bits' ? 2 : 0;
    if (value === undefined || !Number.isInteger(number) || number < least || (key === 'bits' && number > 8)) {
      const range = key === 'bits' ? '2 to 8' : 'a whole number, 0 for the whole row';
      throw new InputError(`--methods ${text}: ${key}=${value ?? ''}: expected ${range}`);
    }
    fixed[key] = number;
  }
  const missing = keys.filter((key) => fixed[key] === undefined);
  if (missing.length > 0)
    throw new InputError(`--methods ${text}: ${missing.join(' and ')} is missing beside the rest`);
  return { text, name, fixed };
}

function settingText(settings: BaselineSettings): string {
  return Object.entries(settings)
    .map(([key, value]) => `:${key}=${value}`)
    .join('');
}

/**
 * Which candidates are run: a method of several settings at the setting nearest to each rate, a method of one setting
 * once. What cannot be reached or stored, or is not below the source, is listed with its reason.
 */
export function planSweep(request: SweepRequest): SweepPlan {
  const leftOut: LeftOut[] = [];
  const found = new Map<string, SweepCandidate>();
  for (const asked of request.methods) {
    const own = Object.hasOwn(PVQ_VARIANTS, asked.name)
      ? planPvq(asked, request)
      : planBaseline(asked, request, leftOut);
    for (const candidate of own) {
      const before = found.get(candidate.id);
      const rates = [...new Set([...(before?.askedBitsPerWeight ?? []), ...candidate.askedBitsPerWeight])];
      found.set(candidate.id, { ...candidate, askedBitsPerWeight: rates });
    }
  }
  const weights = elementsOf(request.tensors);
  const limit = request.sourceBitsPerWeight;
  const candidates = [...found.values()].filter((candidate) => {
    const bits = candidate.foreseenBits / weights;
    if (limit === undefined || bits < limit) return true;
    leftOut.push({
      method: candidate.id,
      asked_bits_per_weight: candidate.askedBitsPerWeight[0] ?? null,
      bits_per_weight: bits,
      reason: `at or above the ${limit.toFixed(3)} bits of the source, which is quantised itself`,
    });
    return false;
  });
  return { candidates, leftOut };
}

function elementsOf(tensors: readonly SelectedTensor[]): number {
  return tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
}

function planPvq({ name }: AskedMethod, { rates, tensors }: SweepRequest): SweepCandidate[] {
  return rates.map((rate) => ({
    id: `${name}:bpw=${rate}`,
    method: name,
    title: PVQ_VARIANTS[name].title,
    askedBitsPerWeight: [rate],
    foreseenBits: rate * elementsOf(tensors),
    run: { kind: 'pvq', variant: PVQ_VARIANTS[name], bitsPerWeight: rate },
  }));
}

function planBaseline(asked: AskedMethod, { rates, tensors }: SweepRequest, leftOut: LeftOut[]): SweepCandidate[] {
  const { baseline, title } = findMethod(asked.name);
  const weights = elementsOf(tensors);
  const reachable: SweepCandidate[] = [];
  const misfit = baseline.misfit;
  if (misfit && tensors.every(({ columns }) => misfit({}, columns) !== undefined)) {
    leftOut.push({
      method: asked.name,
      asked_bits_per_weight: null,
      bits_per_weight: null,
      reason: `no tensor fits: ${misfit({}, tensors[0].columns)}`,
    });
    return [];
  }
  for (const settings of asked.fixed ? [asked.fixed] : baseline.settings) {
    try {
      reachable.push({
        id: `${asked.name}${settingText(settings)}`,
        method: asked.name,
        title,
        askedBitsPerWeight: [],
        foreseenBits: foreseenBits({ method: asked.name, settings }, tensors),
        run: { kind: 'baseline', settings },
      });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const method = `${asked.name}${settingText(settings)}`;
      leftOut.push({ method, asked_bits_per_weight: null, bits_per_weight: null, reason: error.message });
    }
  }
  if (asked.fixed || baseline.settings.length === 1) return reachable;
  const chosen: SweepCandidate[] = [];
  for (const rate of rates) {
    const distance = (candidate: SweepCandidate): number => Math.abs(candidate.foreseenBits / weights - rate);
    const nearest = [...reachable].sort((a, b) => distance(a) - distance(b) || a.foreseenBits - b.foreseenBits)[0];
    if (nearest && distance(nearest) <= NEAR) {
      chosen.push({ ...nearest, askedBitsPerWeight: [rate] });
      continue;
    }
    leftOut.push({
      method: asked.name,
      asked_bits_per_weight: rate,
      bits_per_weight: nearest ? nearest.foreseenBits / weights : null,
      reason: nearest
        ? `cannot be reached: the nearest setting, ${nearest.id}, has ${(nearest.foreseenBits / weights).toFixed(3)} bits`
        : 'no setting fits the widths of the tensors',
    });
  }
  return chosen;
}
