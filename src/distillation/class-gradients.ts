import { type GradCheck, gradCheck, openForGradCheck } from '../training/grad-check.js';
import { type GradientGraph, onnxGradientGraph } from '../training/gradient-graph.js';
import { parseLosses } from '../training/losses/loss-text.js';
import type { OnnxStudent } from '../training/onnx-student.js';
import type { FeatureBatch } from '../training/types.js';
import type { ClassData } from './class-data.js';
import type { ClassModelPlan } from './class-models.js';
import { allRows } from './class-splits.js';
import { type ClassOutputs, classObjective, featureBatch } from './classifier-training.js';

/** Rows of the batch on which gradients are checked. */
const CHECKED_ROWS = 32;

/** A check, and the operator that kept it from double precision. */
export interface ClassGradCheck extends GradCheck {
  readonly missing: string | undefined;
}

/**
 * Compares the gradients of the whole loss with finite differences on the first rows.
 * @param teacher of the same rows as `data`
 */
export async function checkClassGradients(
  plan: ClassModelPlan,
  loss: string,
  data: ClassData,
  teacher: ClassOutputs | undefined,
): Promise<ClassGradCheck> {
  const { student, missing } = await openForGradCheck<FeatureBatch>(plan.source, plan.settings);
  try {
    const items = allRows(Math.min(CHECKED_ROWS, data.rows));
    const batch = featureBatch(data, items, student.parameters.precision);
    return { ...(await gradCheck(student, batch, classObjective(loss, student.classes, teacher))), missing };
  } finally {
    await student.close();
  }
}

/**
 * Forward and backward pass of a classifier as it is, as one ONNX model: with the loss inside where its terms have a form
 * in a graph, else from the gradient of the loss by the logits on.
 */
export function classGradientGraph(
  student: OnnxStudent<FeatureBatch>,
  { settings }: ClassModelPlan,
  loss: string,
): Promise<GradientGraph> {
  return onnxGradientGraph(student, { terms: parseLosses(loss), ...(settings.dims && { dims: settings.dims }) });
}
