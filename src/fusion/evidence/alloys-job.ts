import { InputError } from '../../errors.js';
import type { ComputeReference } from '../../kernels/compute-thread.js';
import { agglomerate, leafOrder, type Merge, mergedLabels } from '../../linalg/agglomerative.js';
import { directSquaredDistances } from '../../linalg/point-distances.js';
import { type AlloyTable, allRows, type ElementSets } from './alloy-table.js';
import { type EvaluationResult, type EvaluationSettings, evaluate } from './evaluate.js';
import { combinationName, combinationsOf } from './exchanges.js';
import type { Expert } from './experts.js';
import { contains, setSize } from './focal-sets.js';
import { type FusionSetup, fuseSources, type SourceScore } from './fuse-sources.js';
import { type Predictions, predictSets } from './predict.js';
import type { SubstitutionSettings } from './substitution.js';
import type { SourceSettings, SubstitutionModel } from './substitution-model.js';

export interface AlloysArguments {
  readonly table: AlloyTable;
  readonly candidates?: ElementSets;
  readonly experts: readonly Expert[];
  readonly maxSubstitution: number;
  readonly settings: SubstitutionSettings;
  readonly discount: SourceSettings['discount'];
  readonly scores?: ReadonlyMap<string, number>;
  readonly folds: number;
  readonly seed: number;
  readonly prior: Float64Array;
  readonly evaluation?: EvaluationSettings;
  /** Clusters of elements to name. */
  readonly clusters?: number;
  readonly maxMemoryBytes: number;
}

/** About the most that the index of the alloys and the table of substitutions take, in bytes. */
export function neededBytes({ table, maxSubstitution, discount, experts }: AlloysArguments): number {
  const e = table.elements.length;
  const combinations = 1 + e + (maxSubstitution > 1 ? (e * (e - 1)) / 2 : 0);
  let entries = 0;
  for (let i = 0; i < table.low.length; i++) {
    const size = setSize(table.low[i], table.high[i]);
    entries += 1 + size + (maxSubstitution > 1 ? (size * (size - 1)) / 2 : 0);
  }
  // Pieces are kept one by one only where their order matters.
  const ordered = discount.mode === 'each' && experts.length > 0 ? (table.low.length ** 2 / 2) * 64 : 0;
  return 48 * entries + 4 * combinations ** 2 + 96 * Math.min(combinations ** 2 / 2, entries ** 2) + ordered;
}

/** Evidence on one substitution, as tables show it. */
export interface SubstitutionRow {
  readonly t: string;
  readonly v: string;
  readonly similarPieces: number;
  readonly dissimilarPieces: number;
  readonly similar: number;
  readonly dissimilar: number;
  readonly conflict: number;
}

export interface ElementMatrices {
  /** Masses of similar, dissimilar and both [E, E]; the diagonal is similar. */
  readonly similar: Float64Array;
  readonly dissimilar: Float64Array;
  readonly unknown: Float64Array;
  /** Elements in the order of the tree, and its merges (Ward's linkage on the rows of `similar`). */
  readonly order: Int32Array;
  readonly merges: readonly Merge[];
  readonly clusters?: Int32Array;
}

export interface AlloysResult {
  readonly elements: readonly string[];
  readonly labelNames: readonly string[];
  readonly labelCounts: Int32Array;
  readonly weighted: boolean;
  readonly pieces: number;
  readonly substitutions: readonly SubstitutionRow[];
  readonly matrices: ElementMatrices;
  readonly sources: readonly SourceScore[];
  readonly duplicates: { readonly sets: number; readonly disagreeing: number };
  readonly candidates?: {
    readonly sets: ElementSets;
    readonly predictions: Predictions;
    /** Names of the analogies, [n, 3]; empty where there are fewer. */
    readonly analogies: readonly string[];
    readonly known: Uint8Array;
  };
  readonly evaluation?: EvaluationResult;
  readonly warnings: readonly string[];
}

/** Collects evidence, fuses sources, predicts and evaluates. Runs in a thread of its own. */
export function fuseAlloys(
  args: AlloysArguments,
  progress: (value: { done: number; what: string }) => void,
): AlloysResult {
  const { table, experts, settings, discount, scores, folds, seed, prior } = args;
  const bytes = neededBytes(args);
  if (bytes > args.maxMemoryBytes) {
    throw new InputError(
      `${table.low.length} alloys of ${table.elements.length} elements may need ${Math.ceil(bytes / 2 ** 20)} MB; ` +
        'raise --max-memory, or use --max-substitution 1 or --discount once',
    );
  }
  const combinations = combinationsOf(table.elements, args.maxSubstitution);
  const setup: FusionSetup = {
    ...{ table, combinations, experts, settings, discount, folds, seed, prior },
    ...(scores !== undefined && { scores }),
  };
  progress({ done: 0, what: 'evidence on substitutions' });
  const { model, scores: sources } = fuseSources(setup, allRows(table));
  progress({ done: 1, what: 'candidates' });
  const candidates = args.candidates && predictCandidates(model, args.candidates, prior);
  const evaluation =
    args.evaluation &&
    evaluate(setup, args.evaluation, (done, of) => progress({ done: 2, what: `split ${done + 1} of ${of}` }));
  const labelCounts = new Int32Array(table.labelNames.length);
  for (const label of table.labels) labelCounts[label]++;
  return {
    elements: table.elements,
    labelNames: table.labelNames,
    labelCounts,
    weighted: table.weights !== undefined,
    pieces: model.evidence.pieces,
    substitutions: substitutionRows(model),
    matrices: elementMatrices(model, args.clusters),
    sources,
    duplicates: countDuplicates(table),
    ...(candidates && { candidates }),
    ...(evaluation && { evaluation }),
    warnings: warningsOf(args, model, candidates?.predictions),
  };
}

export const FUSE_ALLOYS: ComputeReference<AlloysArguments, AlloysResult> = {
  module: import.meta.url,
  job: fuseAlloys as ComputeReference<AlloysArguments, AlloysResult>['job'],
};

function substitutionRows({ evidence, masses, logAgreement, combinations }: SubstitutionModel): SubstitutionRow[] {
  const order = Int32Array.from({ length: evidence.slots }, (_, slot) => slot).sort(
    (a, b) => evidence.first[a] - evidence.first[b] || evidence.second[a] - evidence.second[b],
  );
  return Array.from(order, (slot) => ({
    t: combinationName(combinations, evidence.first[slot]),
    v: combinationName(combinations, evidence.second[slot]),
    similarPieces: evidence.similar[slot],
    dissimilarPieces: evidence.dissimilar[slot],
    similar: masses[2 * slot],
    dissimilar: masses[2 * slot + 1],
    conflict: 0 - Math.expm1(logAgreement[slot]),
  }));
}

function elementMatrices(model: SubstitutionModel, clusters: number | undefined): ElementMatrices {
  const { evidence, masses } = model;
  const n = model.combinations.elements.length;
  const similar = new Float64Array(n * n);
  const dissimilar = new Float64Array(n * n);
  const unknown = new Float64Array(n * n).fill(1);
  for (let e = 0; e < n; e++) {
    similar[e * n + e] = 1;
    unknown[e * n + e] = 0;
  }
  for (let slot = 0; slot < evidence.slots; slot++) {
    const [a, b] = [evidence.first[slot] - 1, evidence.second[slot] - 1];
    if (a < 0 || b >= n) continue;
    for (const at of [a * n + b, b * n + a]) {
      similar[at] = masses[2 * slot];
      dissimilar[at] = masses[2 * slot + 1];
      unknown[at] = Math.max(0, 1 - similar[at] - dissimilar[at]);
    }
  }
  const merges = agglomerate(directSquaredDistances(similar, n, n), n, 'ward');
  return {
    ...{ similar, dissimilar, unknown, merges },
    order: leafOrder(merges, n),
    ...(clusters !== undefined && { clusters: mergedLabels(merges.slice(0, n - clusters), n) }),
  };
}

function predictCandidates(
  model: SubstitutionModel,
  sets: ElementSets,
  prior: Float64Array,
): NonNullable<AlloysResult['candidates']> {
  const predictions = predictSets(model, sets, { prior });
  const { table, combinations } = model;
  const name = (number: number): string => combinationName(combinations, number) || 'nothing';
  const analogies = Array.from(predictions.strongest, (row, at) => {
    if (row < 0) return '';
    const alloy = table.elements.filter((_, e) => contains(table.low[row], table.high[row], e)).join('|');
    const swap = `${name(predictions.removed[at])}->${name(predictions.added[at])}`;
    return `${alloy} (${table.labelNames[table.labels[row]]}) ${swap} ${predictions.strength[at].toPrecision(4)}`;
  });
  const present = setKeys(table);
  const known = Uint8Array.from(sets.low, (low, i) => Number(present.has(`${low} ${sets.high[i]}`)));
  return { sets, predictions, analogies, known };
}

const setKeys = ({ low, high }: ElementSets): Set<string> => new Set(Array.from(low, (l, i) => `${l} ${high[i]}`));

function countDuplicates({ low, high, labels }: AlloyTable): { sets: number; disagreeing: number } {
  const seen = new Map<string, Set<number>>();
  const repeated = new Set<string>();
  labels.forEach((label, i) => {
    const key = `${low[i]} ${high[i]}`;
    const found = seen.get(key);
    if (found === undefined) seen.set(key, new Set([label]));
    else {
      repeated.add(key);
      found.add(label);
    }
  });
  return { sets: repeated.size, disagreeing: [...repeated].filter((key) => (seen.get(key)?.size ?? 0) > 1).length };
}

function warningsOf(args: AlloysArguments, model: SubstitutionModel, predictions?: Predictions): string[] {
  const { table, candidates, experts } = args;
  const found: string[] = [];
  const duplicates = countDuplicates(table);
  if (duplicates.disagreeing > 0) {
    found.push(
      `${duplicates.disagreeing} sets stand several times with different labels; every row counts as evidence`,
    );
  } else if (duplicates.sets > 0)
    found.push(`${duplicates.sets} sets stand several times; every row counts as evidence`);
  const inData = (e: number, sets: ElementSets): boolean => sets.low.some((low, i) => contains(low, sets.high[i], e));
  if (candidates !== undefined) {
    const unseen = table.elements.filter((_, e) => inData(e, candidates) && !inData(e, table));
    if (unseen.length > 0) {
      const help = experts.length > 0 ? 'only experts speak of them' : 'nothing is known of them; --experts could help';
      found.push(
        `${unseen.join(', ')} of the candidates ${unseen.length > 1 ? 'are' : 'is'} in no known alloy: ${help}`,
      );
    }
  }
  const ignorant = predictions?.unknown.filter((unknown) => unknown === 1).length ?? 0;
  if (ignorant > 0) found.push(`${ignorant} candidates have no evidence at all`);
  if (model.evidence.pieces === 0) {
    found.push(
      `no two alloys differ by at most ${args.maxSubstitution} elements: the data say nothing on substitutions`,
    );
  }
  return found;
}
