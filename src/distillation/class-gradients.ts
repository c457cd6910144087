import { encodeOnnxModel, readOnnxModel } from '../formats/onnx.js';
import { loadExternalData } from '../formats/onnx-external.js';
import { composeJointGraph } from '../training/autodiff/joint-graph.js';
import { type GradCheck, gradCheck, openForGradCheck } from '../training/grad-check.js';
import { planBatchFeeds } from '../training/onnx-inputs.js';
import { logitsTensor } from '../training/onnx-student.js';
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
 * Forward and backward pass of a classifier as one ONNX model: inputs `features` and the gradient of a loss by the logits,
 * outputs the logits, `grad.<parameter>` of each trained tensor, and `grad_norm`.
 */
export async function classGradientGraph(
  { source, settings }: ClassModelPlan,
  trained: readonly string[],
): Promise<Uint8Array> {
  const model = typeof source === 'string' ? readOnnxModel(source) : source;
  if (typeof source === 'string') loadExternalData(model, source);
  const { precision } = settings;
  const logits = logitsTensor(model, settings.logits);
  const { example } = planBatchFeeds(model, precision, settings.dims);
  const joint = await composeJointGraph(
    { model, wanted: trained, precision, from: { seeds: [logits] }, norm: true },
    example,
  );
  return encodeOnnxModel(joint);
}
