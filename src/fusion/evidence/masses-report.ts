import type { Cell } from '../../report/csv.js';
import { finiteOrName } from '../../report/values.js';
import { setName } from './focal-sets.js';
import type { CaseResult, MassesResult, RuleResult } from './masses-job.js';
import type { Uncertainty } from './measures.js';

/** Name of the report's schema. */
export const EVIDENCE_SCHEMA = 'fuse-evidence';

export const MASS_COLUMNS = ['case', 'rule', 'set', 'mass', 'belief', 'plausibility', 'commonality', 'pignistic'];

/** Cases that the report lists one by one; the table has all. */
const MOST_LISTED_CASES = 200;

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

function uncertaintyBody(found: Uncertainty) {
  return {
    deng_entropy_nats: found.dengNats,
    deng_entropy_bits: found.dengBits,
    nonspecificity_nats: found.nonspecificityNats,
    nonspecificity_bits: found.nonspecificityBits,
    pignistic_entropy_nats: orNull(found.pignisticEntropyNats),
    pignistic_entropy_bits: orNull(found.pignisticEntropyBits),
  };
}

/** Element with the largest pignistic probability, the first of equal ones. */
export function mostProbable({ pignistic }: RuleResult, elements: readonly string[]) {
  let best = 0;
  for (let e = 1; e < pignistic.length; e++) if (pignistic[e] > pignistic[best]) best = e;
  const probability = pignistic[best];
  return probability === undefined || Number.isNaN(probability) ? undefined : { element: elements[best], probability };
}

function resultBody(result: RuleResult, elements: readonly string[]) {
  const best = mostProbable(result, elements);
  return {
    rule: result.rule,
    undefined: result.undefined ?? null,
    focal_sets: result.focalSets,
    mass_of_empty_set: result.empty,
    most_probable: best?.element ?? null,
    most_probable_pignistic: best?.probability ?? null,
    uncertainty: result.uncertainty === undefined ? null : uncertaintyBody(result.uncertainty),
  };
}

function caseBody({ name, sources, conflict, results }: CaseResult, elements: readonly string[]) {
  return {
    case: name,
    sources: sources.map((source) => ({
      name: source.name,
      reliability: source.reliability,
      focal_sets: source.focalSets,
      credibility: orNull(source.credibility),
      uncertainty: uncertaintyBody(source.uncertainty),
    })),
    conflict_per_step: conflict.perStep,
    total_conflict: conflict.total,
    weight_of_conflict_nats: finiteOrName(conflict.weightNats),
    results: results.map((result) => resultBody(result, elements)),
  };
}

/** Mean total conflict over the cases, and its standard error where there are two. */
export function meanConflict({ cases }: MassesResult): { mean: number; se: number | null } {
  const n = cases.length;
  const mean = cases.reduce((sum, { conflict }) => sum + conflict.total, 0) / n;
  const squares = cases.reduce((sum, { conflict }) => sum + (conflict.total - mean) ** 2, 0);
  return { mean, se: n > 1 ? Math.sqrt(squares / (n - 1) / n) : null };
}

/** Body of the report. */
export function massesBody(result: MassesResult) {
  const { elements, rules, cases } = result;
  const conflict = meanConflict(result);
  return {
    frame: [...elements],
    case_count: cases.length,
    listed_cases: Math.min(cases.length, MOST_LISTED_CASES),
    rules: rules.map(({ name, title, source, ordered }) => ({ name, title, source, depends_on_order: ordered })),
    mean_total_conflict: conflict.mean,
    mean_total_conflict_se: conflict.se,
    undefined_results: cases.reduce(
      (count, { results }) => count + results.filter((found) => found.undefined !== undefined).length,
      0,
    ),
    cases: cases.slice(0, MOST_LISTED_CASES).map((found) => caseBody(found, elements)),
    warnings: [...result.warnings],
  };
}

/** Rows of `--out`: focal sets and single elements of every case and rule. */
export function* massRows({ elements, cases }: MassesResult): Generator<readonly Cell[], void, undefined> {
  const cell = (value: number): Cell => (Number.isNaN(value) ? null : value);
  for (const { name, results } of cases) {
    for (const { rule, low, high, measures } of results) {
      if (measures === undefined) continue;
      const { mass, belief, plausibility, commonality, pignistic } = measures;
      for (let i = 0; i < low.length; i++) {
        const values = [mass[i], belief[i], plausibility[i], commonality[i], pignistic[i]];
        yield [name, rule, setName(elements, low[i], high[i]), ...values.map(cell)];
      }
    }
  }
}
