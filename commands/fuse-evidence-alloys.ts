import { InputError } from '../src/errors.js';
import { readAlloys, readCandidates, readExperts } from '../src/fusion/evidence/alloy-files.js';
import { alloyTable, elementSets, elementUniverse, nameAt } from '../src/fusion/evidence/alloy-table.js';
import {
  type AlloysArguments,
  type AlloysResult,
  FUSE_ALLOYS,
  neededBytes,
} from '../src/fusion/evidence/alloys-job.js';
import {
  ALLOYS_SCHEMA,
  alloysBody,
  candidateColumns,
  candidateRows,
  HELD_OUT_COLUMNS,
  heldOutRows,
  SUBSTITUTION_COLUMNS,
  substitutionRows,
} from '../src/fusion/evidence/alloys-report.js';
import { EVALUATIONS } from '../src/fusion/evidence/evaluate.js';
import { MOST_SUBSTITUTED } from '../src/fusion/evidence/exchanges.js';
import { expertMasses } from '../src/fusion/evidence/experts.js';
import { DATA_RELIABILITY } from '../src/fusion/evidence/fuse-sources.js';
import { uniformPrior } from '../src/fusion/evidence/predict.js';
import { checkSettings, VERSIONS } from '../src/fusion/evidence/substitution.js';
import { tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOptions, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { parseShares } from './fuse-evidence-masses.js';

/** Options of the alloy method. */
export interface AlloyOptions {
  candidates?: string;
  evaluate?: string;
  experts?: string[];
  maxSubstitution?: string;
  alpha?: string;
  variant?: string;
  positive?: string;
  baselinePrior?: string;
  discount?: string;
  dataDiscount?: string;
  scores?: string[];
  folds?: string;
  splits?: string;
  testShare?: string;
  clusters?: string;
  substitution?: string;
  setColumn?: string;
  labelColumn?: string;
  weightColumn?: string;
}

const EXPERT_ONLY = ['discount', 'dataDiscount', 'scores', 'folds'] as const;
const EVALUATE_ONLY = ['splits', 'testShare'] as const;

/** `0.3`, the prior of the label of interest with the rest in equal parts, or `frequency`. */
function parsePrior(text: string | undefined, counts: Int32Array): Float64Array {
  const k = counts.length;
  if (text === undefined) return uniformPrior(k);
  if (text === 'frequency') {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return Float64Array.from(counts, (count) => count / total);
  }
  const first = parseNumber('--baseline-prior', text, 0, 1);
  return Float64Array.from({ length: k }, (_, l) => (l === 0 ? first : (1 - first) / (k - 1)));
}

function refuseStrays(own: AlloyOptions): void {
  const experts = EXPERT_ONLY.find((name) => own[name] !== undefined);
  if (own.experts === undefined && experts !== undefined) {
    throw new InputError(`${flagOf(experts)} has no meaning without --experts: data alone are not discounted`);
  }
  const evaluation = EVALUATE_ONLY.find((name) => own[name] !== undefined);
  if (evaluation !== undefined && own.evaluate !== 'random') {
    throw new InputError(`${flagOf(evaluation)} is for --evaluate random`);
  }
  if (own.scores !== undefined && own.folds !== undefined) {
    throw new InputError('--scores gives the scores that --folds would find; leave one out');
  }
}

async function argumentsOf(
  path: string,
  own: AlloyOptions,
  seed: number,
  maxMemoryBytes: number,
): Promise<AlloysArguments> {
  refuseStrays(own);
  const setColumn = own.setColumn;
  const rows = await readAlloys(path, {
    label: own.labelColumn ?? 'Label',
    ...(setColumn !== undefined && { set: setColumn }),
    ...(own.weightColumn !== undefined && { weight: own.weightColumn }),
  });
  const candidates = own.candidates === undefined ? undefined : await readCandidates(own.candidates, setColumn);
  const answers = await readExperts(own.experts ?? []);
  const elements = elementUniverse([
    ...rows.map(({ set }) => set),
    ...(candidates ?? []).map(({ set }) => set),
    ...answers.flatMap((expert) => expert.answers.map(({ first, second }) => [first, second])),
  ]);
  const table = alloyTable(elements, rows, own.positive);
  const counts = new Int32Array(table.labelNames.length);
  for (const label of table.labels) counts[label]++;
  const settings = {
    alpha: parseNumber('--alpha', own.alpha ?? '0.1', 0, 1),
    version: parseChoice('--variant', own.variant ?? 'v1', VERSIONS),
  };
  checkSettings(table, settings);
  const discount = {
    mode: parseChoice('--discount', own.discount ?? 'once', ['once', 'each'] as const),
    factor: parseNumber('--data-discount', own.dataDiscount ?? String(DATA_RELIABILITY), 0, 1),
  };
  return {
    ...{ table, settings, discount, seed, maxMemoryBytes },
    ...(candidates !== undefined && { candidates: elementSets(elements, candidates) }),
    experts: expertMasses(elements, answers),
    maxSubstitution: parseInteger('--max-substitution', own.maxSubstitution ?? '1', 1, MOST_SUBSTITUTED),
    ...(own.scores !== undefined && { scores: parseShares('--scores', own.scores) }),
    folds: parseInteger('--folds', own.folds ?? '10', 2),
    prior: parsePrior(own.baselinePrior, counts),
    ...(own.evaluate !== undefined && {
      evaluation: {
        kind: parseChoice('--evaluate', own.evaluate === 'loo' ? 'leave-one-out' : own.evaluate, EVALUATIONS),
        splits: parseInteger('--splits', own.splits ?? '10', 1),
        testShare: parseNumber('--test-share', own.testShare ?? '0.2', 0, 1),
      },
    }),
    ...(own.clusters !== undefined && { clusters: parseInteger('--clusters', own.clusters, 1, elements.length) }),
  };
}

function parametersOf(args: AlloysArguments, own: AlloyOptions): Record<string, ReportValue> {
  const { settings, evaluation, table } = args;
  const withExperts = args.experts.length > 0;
  return {
    max_substitution: args.maxSubstitution,
    alpha: settings.alpha,
    variant: settings.version,
    label_of_interest: table.labelNames[0],
    baseline_prior: args.prior,
    candidates: own.candidates ?? null,
    experts: own.experts ?? null,
    discount: withExperts ? args.discount.mode : null,
    data_discount: withExperts ? args.discount.factor : null,
    scores: args.scores === undefined ? null : Object.fromEntries(args.scores),
    folds: withExperts && args.scores === undefined ? args.folds : null,
    evaluate: evaluation?.kind ?? null,
    splits: evaluation?.kind === 'random' ? evaluation.splits : null,
    test_share: evaluation?.kind === 'random' ? evaluation.testShare : null,
    clusters: args.clusters ?? null,
    seed: args.seed,
  };
}

/** Learns substitutions from alloys, predicts candidates, evaluates. */
export async function runAlloys(
  options: AnalysisOptions & { readonly seed: number },
  path: string,
  own: AlloyOptions,
): Promise<number> {
  if (options.out !== undefined && own.candidates === undefined) {
    throw new InputError('--out holds predictions of candidates; name them with --candidates');
  }
  if (options.table !== undefined && own.evaluate === undefined) {
    throw new InputError('--table holds predictions of held-out alloys; say with --evaluate which are held out');
  }
  const args = await argumentsOf(path, own, options.seed, options.maxMemory);
  const inputs = [path, ...(own.candidates === undefined ? [] : [own.candidates]), ...(own.experts ?? [])];
  return runAnalysis(
    {
      name: ALLOYS_SCHEMA,
      command: 'fuse evidence',
      columns: candidateColumns(args.table.labelNames),
      tableColumns: HELD_OUT_COLUMNS,
      files: new Map(own.substitution === undefined ? [] : [['--substitution', own.substitution]]),
      unit: 'steps',
      inputs,
      parameters: parametersOf(args, own),
      subtitle: inputs.join(', '),
    },
    options,
    { measure: (context) => measure(args, own, inputs, context), plan: async () => planOf(args, path) },
  );
}

async function measure(
  args: AlloysArguments,
  own: AlloyOptions,
  inputs: readonly string[],
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  for (const input of inputs) context.ledger.note(input);
  const result = await context.run(FUSE_ALLOYS, args, (value) => {
    const { done, what } = value as { done: number; what: string };
    context.progress.update(done, what);
  });
  for (const warning of result.warnings) context.warn(warning);
  const { substitution } = own;
  return {
    body: alloysBody(result),
    rows: () => candidateRows(result),
    tableRows: () => heldOutRows(result, args.table),
    figure: async (subtitle) => (await import('../src/fusion/evidence/alloys-plot.js')).drawAlloys(result, subtitle),
    summary: summaryOf(result),
    files: () =>
      new Map(
        substitution === undefined
          ? []
          : [['--substitution', tableBytes(substitution, SUBSTITUTION_COLUMNS, substitutionRows(result))]],
      ),
  };
}

/** Candidates that standard output shows. */
const MOST_SHOWN = 15;

function summaryOf({
  evaluation,
  candidates,
  elements,
  labelNames,
  pieces,
  substitutions,
}: AlloysResult): AnalysisOutcome['summary'] {
  if (evaluation !== undefined) {
    const orNone = (value: number): SummaryCell => (Number.isNaN(value) ? '' : value);
    return {
      header: ['method', 'accuracy', '± se', 'with evidence', 'macro F1', 'AUC', '± se', 'Brier', 'calibration error'],
      rows: evaluation.methods.map((name, m): SummaryCell[] => {
        const found = evaluation.pooled[m];
        const first = [found.accuracy, found.accuracySe, found.decidedAccuracy, found.macroF1];
        return [name, ...[...first, found.auc, found.aucSe, found.brier, found.calibrationError].map(orNone)];
      }),
    };
  }
  if (candidates !== undefined) {
    const { predictions, sets, analogies } = candidates;
    const k = labelNames.length;
    const order = [...predictions.unknown.keys()]
      .sort((a, b) => predictions.probabilities[b * k] - predictions.probabilities[a * k])
      .slice(0, MOST_SHOWN);
    return {
      header: ['most probable', `P(${labelNames[0]})`, 'unknown', 'evidence', 'strongest analogy'],
      rows: order.map((i): SummaryCell[] => [
        nameAt(sets, i),
        ...[predictions.probabilities[i * k], predictions.unknown[i], predictions.evidence[i], analogies[3 * i]],
      ]),
    };
  }
  return {
    header: ['quantity', 'value'],
    rows: [
      ['elements', elements.length],
      ['pieces of evidence', pieces],
      ['substitutions', substitutions.length],
    ],
  };
}

function planOf(args: AlloysArguments, path: string): SummaryCell[][] {
  const { table, candidates, experts, maxSubstitution } = args;
  return [
    ['alloys', `${path}: ${table.labels.length} of ${table.elements.length} elements`],
    ['labels', table.labelNames.join(', ')],
    ['candidates', candidates?.low.length ?? 0],
    ['experts', experts.map(({ name }) => name).join(', ') || 'none'],
    ['largest substitution', maxSubstitution],
    ['peak memory, about', `${Math.ceil(neededBytes(args) / 2 ** 20)} MB`],
  ];
}
