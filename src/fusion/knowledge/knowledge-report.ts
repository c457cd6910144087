import type { SummaryCell } from '../../report/summary-table.js';
import type { LanguageEvaluation } from '../../training/language/language-evaluation.js';
import type { LanguageResult } from '../../training/language/train-language-job.js';
import type { CurvePoint } from '../../training/training-curve.js';
import { isNearTie, minCeChoice } from './fusion-functions.js';
import type { MoveResult } from './move-sequences.js';
import { feedbackLoss, importanceOf, selectionEntropy } from './selector.js';
import type { SequenceFigures } from './sequence-figures.js';
import type { GateMode, Strategy } from './strategies.js';
import type { DomainResult, FusedResult } from './train-fused.js';
import { ROW_KINDS, type TokenMap } from './types.js';

export const KNOWLEDGE_SCHEMA = 'fuse-knowledge';

/** Shares of positions by how their rows came about. */
export interface AlignmentShares {
  readonly exact: number;
  readonly mapped: number;
  readonly one_to_many: number;
  readonly many_to_one: number;
  readonly fallback: number;
  readonly empty: number;
}

export interface SourceBody {
  readonly name: string;
  readonly vocabulary: number;
  readonly map: {
    readonly kind: string;
    readonly tokens: number;
    readonly equal_tokens: number;
    readonly mapped_tokens: number;
    readonly mean_distance: number;
  };
  readonly alignment: AlignmentShares;
  readonly mean_alignment_cost: number;
  /** Share of the probability of its lists that arrived at the pivot's vocabulary. */
  readonly kept_mass: number;
  /** Share of labels outside the lists, where cross-entropies had to be taken from these. */
  readonly unlisted_labels: number | null;
}

/** One round of training: a target, and what it learnt from. */
export interface TargetBody {
  readonly name: string;
  readonly models: readonly string[];
  readonly strategy: Strategy;
  /** Mean cross-entropy of the sequences under each model. */
  readonly mean_ce_nats: readonly number[];
  /** Share of sequences of which each model has the least cross-entropy; and the share that is nearly tied. */
  readonly least_ce_shares: readonly number[];
  readonly near_ties: number;
  /** Mean weights of the models, effective number of sources and H(w), over sequences; null without fusion. */
  readonly weights: {
    readonly mean: readonly number[];
    readonly selection_shares: readonly number[];
    readonly effective_sources: number;
    readonly entropy_nats: number;
    readonly importance_cv2: number;
  } | null;
  readonly fused: {
    readonly entropy_nats: number;
    readonly kl_from_pivot_nats: number;
    readonly labels_covered: number;
    readonly covered_label_ce_nats: number;
    readonly accuracy: number;
    readonly interference: number;
    readonly missed: number;
  } | null;
  readonly models_entropy_nats: readonly number[];
  readonly models_accuracy: readonly number[];
  readonly choice_by_domain: readonly {
    readonly domain: string;
    readonly sequences: number;
    readonly shares: readonly number[];
  }[];
  readonly gate: {
    readonly mode: GateMode;
    readonly feedback_cv2_first: number;
    readonly feedback_cv2_last: number;
    readonly importance_by_step: readonly {
      readonly step: number;
      readonly shares: readonly number[];
      readonly cv2: number;
    }[];
  } | null;
  readonly run: LanguageResult['run'];
  readonly first_loss_nats: number;
  readonly last_loss_nats: number;
  readonly evaluation: LanguageResult['evaluation'];
  readonly domains: readonly DomainResult[];
  readonly grad_check: LanguageResult['grad_check'];
  readonly curve: readonly CurvePoint[];
}

export interface KnowledgeBody {
  readonly pivot: {
    readonly name: string;
    readonly model_type: string;
    readonly vocabulary: number;
    readonly parameters: number;
  };
  readonly sources: readonly SourceBody[];
  readonly texts: {
    readonly texts: number;
    readonly sequences: number;
    readonly positions: number;
    readonly tokens_learnt: number;
    readonly dropped_nan: number;
    readonly dropped_long: number;
    readonly domains: readonly string[];
  };
  readonly targets: readonly TargetBody[];
  readonly merge: {
    readonly method: string;
    readonly domains: readonly { readonly name: string; readonly after: LanguageEvaluation }[];
  } | null;
  readonly warnings: readonly string[];
}

const meanOf = (values: ArrayLike<number>): number => {
  let sum = 0;
  let count = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue;
    sum += values[i];
    count++;
  }
  return sum / count;
};

/** What is said of a source's map and alignment. */
export function sourceBody(
  name: string,
  vocabulary: number,
  { map, kinds, keptMass, costs }: MoveResult,
  unlisted: number | null,
): SourceBody {
  const totals = new Float64Array(ROW_KINDS.length);
  kinds.forEach((count, i) => {
    totals[i % ROW_KINDS.length] += count;
  });
  const all = totals.reduce((a, b) => a + b, 0);
  const [exact, mapped, one_to_many, many_to_one, fallback, empty] = totals.map((count) => count / all);
  return {
    name,
    vocabulary,
    map: mapFigures(map),
    alignment: { exact, mapped, one_to_many, many_to_one, fallback, empty },
    mean_alignment_cost: meanOf(costs),
    kept_mass: meanOf(keptMass),
    unlisted_labels: unlisted,
  };
}

function mapFigures({ kind, pivotIds, distances }: TokenMap): SourceBody['map'] {
  const mapped = distances.filter((distance) => distance >= 0);
  return {
    kind,
    tokens: pivotIds.length,
    equal_tokens: mapped.filter((distance) => distance === 0).length,
    mapped_tokens: mapped.length,
    mean_distance: meanOf(mapped),
  };
}

/** What a round of training is described by. */
export interface TargetParts {
  readonly name: string;
  readonly models: readonly string[];
  readonly strategy: Strategy;
  readonly gateMode: GateMode;
  /** Of each model, [sequences]. */
  readonly ces: readonly Float64Array[];
  /** Sequences that were learnt. */
  readonly kept: Int32Array;
  readonly domainOf: readonly string[];
  readonly figures: readonly SequenceFigures[];
  readonly result: FusedResult;
  readonly nearTie: number;
}

/** Rows of importance in a report at most. */
const MOST_STEPS = 200;

export function targetBody(parts: TargetParts): TargetBody {
  const { ces, kept, figures, result, models, strategy } = parts;
  const chosen = Array.from(kept, (s) => minCeChoice(ces.map((of) => of[s])));
  const share = (of: (place: number) => boolean): number => {
    let count = 0;
    for (let i = 0; i < kept.length; i++) if (of(i)) count++;
    return count / kept.length;
  };
  const fuses = strategy !== 'clm';
  const weights = Array.from(kept, (s) => result.weights[s]);
  const own = Array.from(kept, (s) => figures[s]);
  const over = (of: (figure: SequenceFigures) => number): number => {
    let sum = 0;
    let positions = 0;
    for (const figure of own) {
      const value = of(figure);
      if (Number.isNaN(value)) continue;
      sum += value * figure.positions;
      positions += figure.positions;
    }
    return sum / positions;
  };
  const { language } = result;
  return {
    name: parts.name,
    models,
    strategy,
    mean_ce_nats: ces.map((of) => meanOf(kept.length === of.length ? of : Float64Array.from(kept, (s) => of[s]))),
    least_ce_shares: models.map((_, m) => share((i) => chosen[i] === m)),
    near_ties: share((i) =>
      isNearTie(
        ces.map((of) => of[kept[i]]),
        parts.nearTie,
      ),
    ),
    weights: fuses ? weightFigures(weights, models.length) : null,
    fused: fuses
      ? {
          entropy_nats: over((f) => f.fusedEntropy),
          kl_from_pivot_nats: over((f) => f.divergenceFromPivot),
          labels_covered: over((f) => f.labelsCovered),
          covered_label_ce_nats: over((f) => f.coveredCe),
          accuracy: over((f) => f.fusedAccuracy),
          interference: over((f) => f.interference),
          missed: over((f) => f.missed),
        }
      : null,
    models_entropy_nats: models.map((_, m) => over((f) => f.entropies[m])),
    models_accuracy: models.map((_, m) => over((f) => f.accuracies[m])),
    choice_by_domain: choiceByDomain(parts, weights, chosen),
    gate: gateBody(parts),
    run: language.run,
    first_loss_nats: language.first_loss_nats,
    last_loss_nats: language.last_loss_nats,
    evaluation: language.evaluation,
    domains: result.domains,
    grad_check: language.grad_check,
    curve: language.curve,
  };
}

function weightFigures(weights: readonly Float64Array[], models: number): NonNullable<TargetBody['weights']> {
  const importance = importanceOf(weights, models);
  const entropies = weights.map(selectionEntropy);
  return {
    mean: [...importance].map((value) => value / weights.length),
    selection_shares: Array.from(
      { length: models },
      (_, m) => weights.filter((of) => of[m] > 0).length / weights.length,
    ),
    effective_sources: meanOf(entropies.map(Math.exp)),
    entropy_nats: meanOf(entropies),
    importance_cv2: feedbackLoss(importance).value,
  };
}

/** Mean weights of the models by domain; without fusion the shares of the least cross-entropy. */
function choiceByDomain(
  { kept, domainOf, models, strategy }: TargetParts,
  weights: readonly Float64Array[],
  chosen: readonly number[],
): TargetBody['choice_by_domain'] {
  const names = [...new Set(Array.from(kept, (s) => domainOf[s]))];
  return names.map((domain) => {
    const shares = models.map(() => 0);
    let sequences = 0;
    kept.forEach((s, i) => {
      if (domainOf[s] !== domain) return;
      sequences++;
      if (strategy === 'clm') shares[chosen[i]]++;
      else
        weights[i].forEach((weight, m) => {
          shares[m] += weight;
        });
    });
    return { domain, sequences, shares: shares.map((value) => value / sequences) };
  });
}

function gateBody({ strategy, gateMode, result }: TargetParts): TargetBody['gate'] {
  const { selections } = result;
  if (strategy !== 'fusion-x' || selections.length === 0) return null;
  const stretch = Math.ceil(selections.length / MOST_STEPS);
  const shown = selections.filter((_, i) => i % stretch === 0 || i === selections.length - 1);
  return {
    mode: gateMode,
    feedback_cv2_first: selections[0].feedback,
    feedback_cv2_last: selections[selections.length - 1].feedback,
    importance_by_step: shown.map(({ step, importance, feedback }) => {
      const sum = importance.reduce((a, b) => a + b, 0);
      return { step, shares: importance.map((value) => value / sum), cv2: feedback };
    }),
  };
}

/** Columns of the table of sequences, for so many models. */
export function sequenceColumns(count: number): string[] {
  const models = Array.from({ length: count }, (_, m) => m);
  return [
    ...['target', 'sequence', 'domain', 'positions'],
    ...models.map((m) => `ce_nats_${m}`),
    ...['chosen', 'near_tie'],
    ...models.map((m) => `weight_${m}`),
    ...['effective_sources', 'weights_entropy_nats'],
    ...models.map((m) => `entropy_nats_${m}`),
    ...['fused_entropy_nats', 'kl_from_pivot_nats', 'labels_covered', 'covered_label_ce_nats'],
    ...['fused_accuracy', 'interference', 'missed'],
    ...models
      .slice(1)
      .flatMap((m) => [...ROW_KINDS.map((kind) => `${kind.replaceAll('-', '_')}_${m}`), `kept_mass_${m}`]),
  ];
}

/**
 * Rows of the table: one a sequence and target. Models are numbered, 0 the pivot; where a target learns from some of them,
 * the columns of the others are empty.
 * @param all names of the models in the order of their numbers
 * @param moves of the sources, in their order
 */
export function* sequenceRows(
  targets: readonly TargetParts[],
  all: readonly string[],
  moves: readonly MoveResult[],
): Generator<(string | number | boolean | null)[]> {
  for (const target of targets) {
    const places = all.map((_, m) => target.models.indexOf(all[m]));
    const byModel = (of: (place: number) => number): (number | null)[] =>
      places.map((place) => (place < 0 ? null : of(place)));
    for (const s of target.kept) {
      const ces = target.ces.map((of) => of[s]);
      const figure = target.figures[s];
      const weights = target.result.weights[s];
      const entropy = target.strategy === 'clm' ? Number.NaN : selectionEntropy(weights);
      yield [
        ...[target.name, s, target.domainOf[s], figure.positions],
        ...byModel((m) => ces[m]),
        ...[target.models[minCeChoice(ces)], isNearTie(ces, target.nearTie)],
        ...byModel((m) => weights[m]),
        ...[Math.exp(entropy), entropy],
        ...byModel((m) => figure.entropies[m]),
        ...[figure.fusedEntropy, figure.divergenceFromPivot, figure.labelsCovered, figure.coveredCe],
        ...[figure.fusedAccuracy, figure.interference, figure.missed],
        ...moves.flatMap(({ kinds, keptMass }, i) => {
          const own = kinds.subarray(s * ROW_KINDS.length, (s + 1) * ROW_KINDS.length);
          const sum = own.reduce((a, b) => a + b, 0);
          return places[i + 1] < 0
            ? [...ROW_KINDS.map(() => null), null]
            : [...Array.from(own, (count) => count / sum), keptMass[s]];
        }),
      ];
    }
  }
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** Lines of standard output. */
export function knowledgeSummary(body: KnowledgeBody): SummaryCell[][] {
  const rows: SummaryCell[][] = [
    ['sequences', body.texts.sequences],
    ['tokens learnt in a pass', body.texts.tokens_learnt],
  ];
  for (const { name, alignment, kept_mass } of body.sources) {
    rows.push([`${name}: aligned exactly`, percent(alignment.exact)]);
    rows.push([`${name}: aligned in all`, percent(1 - alignment.fallback - alignment.empty)]);
    rows.push([`${name}: mass of the lists kept`, percent(kept_mass)]);
  }
  for (const target of body.targets) {
    const head = body.targets.length > 1 ? `${target.name}: ` : '';
    target.models.forEach((model, m) => {
      rows.push([`${head}cross-entropy of ${model}, nats`, target.mean_ce_nats[m]]);
    });
    target.models.forEach((model, m) => {
      const share = target.weights?.mean[m] ?? target.least_ce_shares[m];
      rows.push([`${head}${target.weights ? 'weight of' : 'best for'} ${model}`, percent(share)]);
    });
    if (target.weights) rows.push([`${head}effective number of sources`, target.weights.effective_sources]);
    if (target.fused) rows.push([`${head}interference`, percent(target.fused.interference)]);
    rows.push([`${head}steps`, target.run.steps]);
    for (const { name, before, after } of target.domains) {
      rows.push([`${head}perplexity on ${name} before`, before.perplexity.value]);
      rows.push([`${head}perplexity on ${name}`, after.perplexity.value]);
    }
  }
  for (const { name, after } of body.merge?.domains ?? []) {
    rows.push([`merged: perplexity on ${name}`, after.perplexity.value]);
  }
  return rows;
}
