import type { Cell } from '../../report/csv.js';
import type { DumpReport } from '../rollouts/dump-report.js';
import type { ComparedStep, Comparison } from './comparison.js';
import type { StepMeasures } from './comparison-sums.js';
import { findIntervention } from './registry.js';
import type { Facts, InterventionSettings } from './types.js';

export const INTERVENTIONS_SCHEMA = 'policy-interventions';

/** What one method would have done, to one step or to all. Shares of tokens are of those that count. */
export interface MethodFigures {
  readonly tokens_touched: number;
  readonly touched_share: number;
  /** Of the sum of |A rho|: on the tokens that are touched. */
  readonly gradient_mass_touched_share: number;
  /** Of the sum of plain GRPO's |d L / d log pi|: how far the method moves it, token by token. */
  readonly gradient_mass_moved_share: number;
  /** First-order change of the mean entropy per unit of step size, by STEER's metric and by the exact form. */
  readonly predicted_entropy_change_nats: number | null;
  readonly predicted_entropy_change_exact_nats: number | null;
  /** Less plain GRPO's. */
  readonly entropy_change_against_plain_nats: number | null;
  readonly entropy_change_against_plain_exact_nats: number | null;
  /** The predicted change at as large a sum of |d L / d log pi| as plain GRPO's. */
  readonly entropy_change_at_equal_gradient_nats: number | null;
  /** Agreement of the touched tokens with those of the highest entropies. */
  readonly top_entropy_jaccard: number | null;
  readonly top_entropy_share_of_touched: number | null;
  readonly top_entropy_share_covered: number | null;
  readonly loss: number;
  readonly clip_fraction: number;
  readonly dual_clip_fraction: number;
}

export interface MethodReport extends MethodFigures {
  readonly method: string;
  readonly name: string;
  readonly title: string;
  readonly reference: string;
  readonly settings: InterventionSettings;
  /** Standard errors over steps; null for a single step. */
  readonly predicted_entropy_change_nats_se: number | null;
  readonly predicted_entropy_change_exact_nats_se: number | null;
  readonly entropy_change_against_plain_nats_se: number | null;
  /** Means over the steps that have them. */
  readonly facts: Facts;
  readonly warnings: readonly string[];
}

export interface InterventionsBody {
  readonly dump: DumpReport;
  readonly steps: number;
  readonly tokens: number;
  readonly top_entropy_fraction: number;
  /** Where the exact predictions come from. */
  readonly exact_predictions: 'top-k log-probabilities' | 'not possible';
  readonly predictions: 'entropies' | 'not possible';
  readonly methods: readonly MethodReport[];
  readonly unavailable: readonly { readonly method: string; readonly reason: string }[];
  /** [methods, methods] without plain GRPO: overlap of touched tokens, and of the gradients moved, token by token. */
  readonly overlap: {
    readonly methods: readonly string[];
    readonly jaccard: readonly (readonly (number | null)[])[];
    readonly weighted_jaccard: readonly (readonly (number | null)[])[];
  };
  readonly by_step: readonly {
    readonly step: number;
    readonly tokens: number;
    readonly entropy_mean_nats: number | null;
    /** Mean entropy of the next step less that of this one. */
    readonly measured_entropy_change_nats: number | null;
    readonly methods: readonly (MethodFigures & { readonly method: string; readonly facts: Facts })[];
  }[];
  readonly warnings: readonly string[];
}

const known = (value: number): number | null => (Number.isNaN(value) ? null : value);
const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
const ratioOrNull = (part: number, whole: number): number | null => (whole > 0 ? part / whole : null);

/** Sums over steps, so that one step and all are described by the same function. */
function figuresOf(steps: readonly ComparedStep[], m: number): MethodFigures {
  const sum = (value: (step: ComparedStep) => number): number => steps.reduce((total, step) => total + value(step), 0);
  const mean = (value: (step: ComparedStep) => number): number => sum(value) / steps.length;
  const own = (key: keyof StepMeasures) => sum((step) => step.methods[m][key]);
  const tokens = sum((step) => step.counted);
  const touched = own('touched');
  const top = sum((step) => step.topEntropyTokens);
  const shared = own('touchedTop');
  const ranked = top > 0;
  const atEqual = (step: ComparedStep): number => {
    const { steerChange, gradient } = step.methods[m];
    return gradient === 0 ? Number.NaN : (steerChange * step.methods[0].gradient) / gradient;
  };
  return {
    tokens_touched: touched,
    touched_share: ratio(touched, tokens),
    gradient_mass_touched_share: ratio(
      own('touchedMass'),
      sum((step) => step.mass),
    ),
    gradient_mass_moved_share: ratio(
      own('moved'),
      sum((step) => step.methods[0].gradient),
    ),
    predicted_entropy_change_nats: known(mean((step) => step.methods[m].steerChange)),
    predicted_entropy_change_exact_nats: known(mean((step) => step.methods[m].exactChange)),
    entropy_change_against_plain_nats: known(mean((step) => againstPlain(step, m, 'steerChange'))),
    entropy_change_against_plain_exact_nats: known(mean((step) => againstPlain(step, m, 'exactChange'))),
    entropy_change_at_equal_gradient_nats: known(mean(atEqual)),
    top_entropy_jaccard: ranked ? ratioOrNull(shared, touched + top - shared) : null,
    top_entropy_share_of_touched: ranked ? ratioOrNull(shared, touched) : null,
    top_entropy_share_covered: ranked ? ratioOrNull(shared, top) : null,
    loss: mean((step) => step.methods[m].loss),
    clip_fraction: mean((step) => step.methods[m].clipFraction),
    dual_clip_fraction: mean((step) => step.methods[m].dualClipFraction),
  };
}

const againstPlain = (step: ComparedStep, m: number, key: 'steerChange' | 'exactChange'): number =>
  step.methods[m][key] - step.methods[0][key];

/** Standard error of a mean over steps. */
function standardError(steps: readonly ComparedStep[], value: (step: ComparedStep) => number): number | null {
  const n = steps.length;
  if (n < 2) return null;
  const mean = steps.reduce((sum, step) => sum + value(step), 0) / n;
  const squares = steps.reduce((sum, step) => sum + (value(step) - mean) ** 2, 0);
  return known(Math.sqrt(squares / (n - 1) / n));
}

function meanFacts(steps: readonly ComparedStep[], m: number): Facts {
  const sums = new Map<string, { total: number; count: number }>();
  for (const step of steps) {
    for (const [name, value] of Object.entries(step.facts[m])) {
      const sum = sums.get(name) ?? { total: 0, count: 0 };
      sum.total += value;
      sum.count++;
      sums.set(name, sum);
    }
  }
  return Object.fromEntries([...sums].map(([name, { total, count }]) => [name, total / count]));
}

/** Matrix of part / whole over all steps, without plain GRPO. */
function overlapOf(
  steps: readonly ComparedStep[],
  methods: number,
  [part, whole]: readonly ['both', 'either'] | readonly ['least', 'most'],
): (number | null)[][] {
  const places = Array.from({ length: methods - 1 }, (_, m) => m + 1);
  return places.map((a) =>
    places.map((b) => {
      const at = a * methods + b;
      const sum = (key: 'both' | 'either' | 'least' | 'most'): number =>
        steps.reduce((total, step) => total + step[key][at], 0);
      return ratioOrNull(sum(part), sum(whole));
    }),
  );
}

/** The body of the report. */
export function interventionsBody(comparison: Comparison, dump: DumpReport, topFraction: number): InterventionsBody {
  const { methods, steps, unavailable, methodWarnings, warnings } = comparison;
  const exact = steps.every((step) => !Number.isNaN(step.methods[0].exactChange));
  const predicted = steps.every((step) => !Number.isNaN(step.methods[0].steerChange));
  return {
    dump,
    steps: steps.length,
    tokens: steps.reduce((sum, step) => sum + step.counted, 0),
    top_entropy_fraction: topFraction,
    predictions: predicted ? 'entropies' : 'not possible',
    exact_predictions: exact ? 'top-k log-probabilities' : 'not possible',
    methods: methods.map(({ label, name, settings }, m): MethodReport => {
      const { title, reference } = findIntervention(name);
      return {
        method: label,
        name,
        title,
        reference,
        settings,
        ...figuresOf(steps, m),
        predicted_entropy_change_nats_se: standardError(steps, (step) => step.methods[m].steerChange),
        predicted_entropy_change_exact_nats_se: standardError(steps, (step) => step.methods[m].exactChange),
        entropy_change_against_plain_nats_se: standardError(steps, (step) => againstPlain(step, m, 'steerChange')),
        facts: meanFacts(steps, m),
        warnings: methodWarnings[m],
      };
    }),
    unavailable: unavailable.map(({ label, reason }) => ({ method: label, reason })),
    overlap: {
      methods: methods.slice(1).map(({ label }) => label),
      jaccard: overlapOf(steps, methods.length, ['both', 'either']),
      weighted_jaccard: overlapOf(steps, methods.length, ['least', 'most']),
    },
    by_step: steps.map((step, s) => ({
      step: step.step,
      tokens: step.counted,
      entropy_mean_nats: known(step.entropy),
      measured_entropy_change_nats: known(s + 1 < steps.length ? steps[s + 1].entropy - step.entropy : Number.NaN),
      methods: methods.map(({ label }, m) => ({ method: label, ...figuresOf([step], m), facts: step.facts[m] })),
    })),
    warnings,
  };
}

const FIGURES = [
  'tokens_touched',
  'touched_share',
  'gradient_mass_touched_share',
  'gradient_mass_moved_share',
  'predicted_entropy_change_nats',
  'predicted_entropy_change_exact_nats',
  'entropy_change_against_plain_nats',
  'entropy_change_against_plain_exact_nats',
  'entropy_change_at_equal_gradient_nats',
  'top_entropy_jaccard',
  'top_entropy_share_of_touched',
  'top_entropy_share_covered',
  'loss',
  'clip_fraction',
  'dual_clip_fraction',
] as const satisfies readonly (keyof MethodFigures)[];

/** Columns of `--out`: a row a step and method, then one a method over all steps. */
export const COMPARISON_COLUMNS = ['step', 'method', 'tokens', 'entropy_mean_nats', ...FIGURES] as const;

export function* comparisonRows(body: InterventionsBody): Iterable<readonly Cell[]> {
  for (const { step, tokens, entropy_mean_nats, methods } of body.by_step) {
    for (const method of methods) {
      yield [step, method.method, tokens, entropy_mean_nats, ...FIGURES.map((key) => method[key])];
    }
  }
  for (const method of body.methods) {
    yield ['all', method.method, body.tokens, null, ...FIGURES.map((key) => method[key])];
  }
}

/** Columns of `--table`: what every method says of every step beside its effect. */
export const FACT_COLUMNS = ['step', 'method', 'fact', 'value'] as const;

export function* factRows(body: InterventionsBody): Iterable<readonly Cell[]> {
  for (const { step, methods } of body.by_step) {
    for (const { method, facts } of methods) {
      for (const [fact, value] of Object.entries(facts)) yield [step, method, fact, value];
    }
  }
}
