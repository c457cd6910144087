import { InputError } from '../errors.js';
import { type FilteredRows, type FilterStep, filterTokens, type LogitRow } from '../kernels/token-filter.js';
import { createRandom } from '../random.js';
import type { StepState } from './samplers/method.js';
import { SAMPLER_NAMES, samplerOf } from './samplers/registry.js';
import type { SampledToken, SamplerStep, SamplingPlan, SequenceSampler } from './types.js';

/** Which stream of random numbers a sequence draws from. */
export interface SequenceKey {
  readonly seed: number;
  readonly sequence: number;
}

/** A sequence's sampler whose rows may be served together with those of others: see {@link sampleRows}. */
export interface KeyedSampler extends SequenceSampler {
  readonly greedy: boolean;
  /** The filters and the uniform number of the next token. */
  readonly draw: () => { readonly filters: readonly FilterStep[]; readonly uniform: number };
  /** Takes what was drawn, -log2 of its probability among the kept, and goes on to the next token. */
  readonly settle: (surpriseBits: number) => void;
  /** Bound on the surprise in bits; NaN without Mirostat. */
  readonly muBits: () => number;
  /** -log2 of the last token's probability among the kept; NaN before the first. */
  readonly surpriseBits: () => number;
}

/**
 * @throws InputError for a value out of its range, an unknown kind, or a Mirostat that is not the last step
 */
export function checkSamplingPlan(plan: SamplingPlan): void {
  plan.steps.forEach((step, position) => {
    if (!SAMPLER_NAMES.includes(step.kind)) throw new InputError(`unknown sampler ${JSON.stringify(step.kind)}`);
    const method = samplerOf(step.kind);
    method.parameters.forEach((parameter, k) => {
      checkParameter(step, parameter, step[method.keys[k] as keyof SamplerStep]);
    });
    if (method.target === undefined) return;
    if (position < plan.steps.length - 1) {
      throw new InputError(`${step.kind} must be the last step: it learns from the probability that is drawn from`);
    }
  });
}

function checkParameter(
  { kind }: SamplerStep,
  parameter: ReturnType<typeof samplerOf>['parameters'][number],
  value: unknown,
): void {
  const named = parameter.name === kind ? kind : `${kind}: ${parameter.name}`;
  if ('words' in parameter) {
    if (typeof value === 'string' && parameter.words.includes(value)) return;
    throw new InputError(`${named} is ${String(value)}; expected one of ${parameter.words.join(', ')}`);
  }
  if (typeof value === 'number' && Number.isFinite(value) && parameter.accepts(value)) return;
  throw new InputError(`${named} is ${String(value)}; expected ${parameter.range}`);
}

function filtersOf(plan: SamplingPlan, stateOf: (step: SamplerStep) => StepState): FilterStep[] {
  return plan.steps.flatMap((step) => samplerOf(step.kind).filter(step, stateOf(step)) ?? []);
}

/**
 * A sampler for one sequence. Random numbers are those of (seed, sequence, step): what else is generated, and in which
 * batches, does not matter.
 * @throws InputError for a plan that {@link checkSamplingPlan} refuses
 */
export function createSequenceSampler(plan: SamplingPlan, key: SequenceKey): KeyedSampler {
  const root = createRandom(key.seed).fork(key.sequence);
  return createDrivenSampler(plan, (position) => root.fork(position).uniform);
}

/**
 * A sampler whose random numbers are given: `uniforms(position)` makes the generator of numbers in [0, 1) of the token at
 * that position. The first draws the token; filters that act by chance take the next ones, in their order.
 * @throws InputError for a plan that {@link checkSamplingPlan} refuses
 */
export function createDrivenSampler(plan: SamplingPlan, uniforms: (position: number) => () => number): KeyedSampler {
  checkSamplingPlan(plan);
  const target = plan.steps.map((step) => samplerOf(step.kind).target?.(step)).find((wanted) => wanted !== undefined);
  let position = 0;
  let mu = target === undefined ? Number.NaN : 2 * target.tauBits;
  let surprise = Number.NaN;
  const sampler: KeyedSampler = {
    greedy: plan.greedy === true,
    draw() {
      const next = uniforms(position);
      const uniform = next();
      const acts = (step: SamplerStep): boolean => {
        const chance = samplerOf(step.kind).chance?.(step);
        return chance === undefined || next() < chance;
      };
      return { uniform, filters: filtersOf(plan, (step) => ({ muBits: mu, acts: acts(step) })) };
    },
    settle(surpriseBits) {
      position++;
      surprise = surpriseBits;
      if (target !== undefined) mu -= target.eta * (surpriseBits - target.tauBits);
    },
    muBits: () => mu,
    surpriseBits: () => surprise,
    next: (logits) => sampleRows([sampler], logits, logits.length)[0],
  };
  return sampler;
}

/**
 * The next token of every sequence, one row of logits each, in one call of the kernel.
 * @param logits [samplers.length, vocabulary]
 * @throws InputError naming the row where logits are NaN, +Infinity or all -Infinity
 */
export function sampleRows(
  samplers: readonly KeyedSampler[],
  logits: LogitRow,
  vocabulary: number,
  threads?: number,
): SampledToken[] {
  const result = new Array<SampledToken>(samplers.length);
  // Rows whose pipelines are of the same methods go together; others (XTC by chance) follow on their own.
  const groups = new Map<string, { rows: number[]; filters: (readonly FilterStep[])[]; uniforms: number[] }>();
  samplers.forEach((sampler, row) => {
    const { filters, uniform } = sampler.draw();
    const name = `${sampler.greedy} ${filters.map(({ method }) => method).join()}`;
    const group = groups.get(name) ?? { rows: [], filters: [], uniforms: [] };
    if (group.rows.length === 0) groups.set(name, group);
    group.rows.push(row);
    group.filters.push(filters);
    group.uniforms.push(uniform);
  });
  for (const { rows, filters, uniforms } of groups.values()) {
    const filtered = filterTokens({
      logits: rows.length === samplers.length ? logits : gathered(logits, vocabulary, rows),
      rows: rows.length,
      vocabulary,
      pipelines: filters,
      uniforms: Float64Array.from(uniforms),
      greedy: samplers[rows[0]].greedy,
      ...(threads !== undefined && { threads }),
    });
    rows.forEach((row, r) => {
      result[row] = sampledToken(filtered, r);
      samplers[row].settle(-filtered.figures.logProbabilityAfter[r] / Math.LN2);
    });
  }
  return result;
}

function gathered(logits: LogitRow, vocabulary: number, rows: readonly number[]): LogitRow {
  const out =
    logits instanceof Float32Array
      ? new Float32Array(rows.length * vocabulary)
      : new Float64Array(rows.length * vocabulary);
  rows.forEach((row, r) => {
    out.set(logits.subarray(row * vocabulary, (row + 1) * vocabulary), r * vocabulary);
  });
  return out;
}

function sampledToken({ tokens, figures }: FilteredRows, r: number): SampledToken {
  return {
    token: tokens[r],
    entropyNats: figures.entropyNats[r],
    entropyAfterNats: figures.entropyAfterNats[r],
    keptMass: figures.keptMass[r],
    keptCount: figures.keptCount[r],
    surprisalNats: figures.surprisalNats[r],
  };
}

/** State of a pipeline that is looked at without drawing. */
export interface PipelineState {
  /** Mirostat's bound; default that of a first token, 2 tau. */
  readonly muBits?: number;
  /** Whether filters that act by chance (XTC) act. Default true. */
  readonly acts?: boolean;
}

/**
 * The filters of a plan as they are without drawing, for the kernel's many rows (`filterTokens`).
 * @throws InputError for a plan that {@link checkSamplingPlan} refuses
 */
export function planFilters(plan: SamplingPlan, { muBits, acts = true }: PipelineState = {}): FilterStep[] {
  checkSamplingPlan(plan);
  return filtersOf(plan, (step) => ({
    acts,
    muBits: muBits ?? 2 * (samplerOf(step.kind).target?.(step).tauBits ?? Number.NaN),
  }));
}
