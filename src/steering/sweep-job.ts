import type { SteeringPlan, SteeringPositions } from '../decoding/steering-plan.js';
import type { InterventionKind } from '../models/interventions.js';
import type { LanguageModel } from '../models/language-model.js';
import { openModelTokenizer } from '../models/model-tokenizer.js';
import { randomVector, shuffledVector } from './controls.js';
import { type EvaluationCell, type EvaluationRequest, evaluateCells } from './evaluate-prompts.js';
import { meanResidualNorms } from './residual-norms.js';
import type { SweepCell } from './sweep-cells.js';
import { type CellMeasures, emptyMeasures } from './sweep-report.js';

/** What is steered with, apart from cells. Structured-cloneable. */
export interface SweepSteering {
  readonly directions: ReadonlyMap<number, Float32Array>;
  readonly operator: InterventionKind;
  readonly positions: SteeringPositions;
  /** Seed of the controls. */
  readonly seed: number;
}

export interface SweepArguments {
  readonly request: EvaluationRequest;
  readonly steering: SweepSteering;
  readonly cells: readonly SweepCell[];
}

/** Controls of different layers and copies come from seeds of their own. */
const CONTROL_STRIDE = 1000;

/** The vector of a cell: the layer's own, or its control. */
export function cellVector(cell: SweepCell, steering: SweepSteering): Float32Array {
  const own = cell.layer === null ? undefined : steering.directions.get(cell.layer);
  if (!own || cell.layer === null) throw new RangeError(`no vector for layer ${cell.layer}`);
  const seed = steering.seed + CONTROL_STRIDE * cell.layer + (cell.control ?? 0);
  if (cell.kind === 'shuffled') return shuffledVector(own, seed);
  return cell.kind === 'random' ? randomVector(own, seed) : own;
}

function evaluationCell(cell: SweepCell, steering: SweepSteering): EvaluationCell {
  if (cell.layer === null) return { temperature: cell.temperature };
  const { operator, positions } = steering;
  const plan: SteeringPlan = {
    terms: [{ layer: cell.layer, operator, vector: cellVector(cell, steering), scale: cell.strength }],
    positions,
  };
  return { steering: plan, temperature: cell.temperature };
}

/** Evaluates cells on prompts, beside the engine. @returns one set of measures a cell, in their order */
export async function evaluateSweep(
  model: LanguageModel,
  { request, steering, cells }: SweepArguments,
  progress: (value: unknown) => void,
): Promise<CellMeasures[]> {
  const tokenizer = openModelTokenizer(model.info.path);
  const evaluated = await evaluateCells(
    model,
    tokenizer,
    request,
    cells.map((cell) => evaluationCell(cell, steering)),
    progress,
  );
  return evaluated.map((prompts) => {
    const measures = emptyMeasures(prompts.length);
    prompts.forEach(({ exact, sampled, guards }, p) => {
      if (exact) {
        measures.entropyNats[p] = exact.entropyNats;
        measures.actionMass[p] = exact.mass;
      }
      if (sampled) {
        measures.sampledEntropyNats[p] = sampled.pluginNats;
        measures.sampledMillerMadowNats[p] = sampled.millerMadowNats;
        measures.validShare[p] = sampled.validShare;
      }
      measures.thoughtNats[p] = guards.thoughtNats;
      measures.firstTokenKlNats[p] = guards.firstTokenKlNats;
      measures.replyNats[p] = guards.replyNats;
      measures.distinct2[p] = guards.distinct2;
    });
    return measures;
  });
}

/** Mean residual norms of every block over prompts, beside the engine. */
export function residualNorms(model: LanguageModel, { prompts }: { readonly prompts: readonly Int32Array[] }) {
  return meanResidualNorms(model, prompts);
}

export const EVALUATE_SWEEP = { module: import.meta.url, job: evaluateSweep };
export const RESIDUAL_NORMS = { module: import.meta.url, job: residualNorms };
