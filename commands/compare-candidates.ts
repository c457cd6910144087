import { rmSync } from 'node:fs';
import { type CompareBody, type CompareRow, meanOfLayers } from '../src/moe/compare-report.js';
import { parameterTotals } from '../src/moe/merge-report.js';
import { expertMethod } from '../src/moe/methods/registry.js';
import { toolVersion } from './edge-version.js';
import type { PlannedRow } from './merge-moe-compare.js';
import { settingsRecord } from './merge-moe-options.js';
import { type Calibrated, layerErrors, type MergeContext, runMerge } from './merge-moe-subject.js';
import { evaluateBesideOriginal } from './model-evaluation.js';

/** Makes the model of one row, judges it by the unseen text, and removes it. */
export async function compareOne(
  context: MergeContext,
  calibrated: Calibrated,
  { spec, settings }: PlannedRow,
  run: { readonly out: string; readonly command: string },
): Promise<CompareRow> {
  const { subject, options, own, ledger, progress } = context;
  const { session, unseen } = calibrated;
  if (!session || !unseen) throw new RangeError('a comparison without unseen text');
  const method = expertMethod(settings.method);
  const tool = { name: 'surprisal', version: toolVersion() };
  const result = await runMerge(
    context,
    calibrated,
    {
      out: run.out,
      settings,
      head: { tool, command: run.command, parameters: settingsRecord(settings), inputs: [] },
      write: { force: true },
    },
    `${spec.name}, ${settings.experts}`,
  );
  const [layers] = await layerErrors(context, session, unseen.windows, [run.out]);
  const record = await evaluateBesideOriginal({
    spec: subject.spec,
    path: run.out,
    options,
    text: own,
    data: subject.evalData,
    ...(subject.evalTokens !== undefined && { tokens: subject.evalTokens }),
    choices: [],
    precision: subject.precision,
    ledger,
    onTokens: (tokens) => progress.update(tokens, `${spec.name}, ${settings.experts}`),
  });
  if (!record.predictions) throw new RangeError('a comparison without predictions');
  rmSync(run.out, { recursive: true, force: true });
  const all = result.layers.length === 0;
  return {
    name: spec.name,
    method: method.name,
    kind: method.kind,
    experts: settings.experts,
    config_form: result.config_form,
    bytes: result.bytes_after,
    saved_share: 1 - result.bytes_after / result.bytes_before,
    expert_parameters: all ? expertParameters(context) : parameterTotals(result.layers).after,
    mean_relative_error: meanOfLayers(layers, 'relative_error') ?? 0,
    mean_expert_error: meanOfLayers(layers, 'expert_error'),
    mean_routing_error: meanOfLayers(layers, 'routing_error'),
    layers,
    predictions: { documents: record.documents, ...record.predictions },
    warnings: result.warnings,
  };
}

function expertParameters({ subject }: MergeContext): number {
  return subject.model.layers.reduce((sum, { experts, shape }) => {
    return sum + experts * (shape.gated ? 3 : 2) * shape.hidden * shape.width;
  }, 0);
}

/** What the report says of the original model; its perplexity stands beside that of every candidate. */
export function originalRecord(context: MergeContext, first: CompareRow): Pick<CompareBody, 'model' | 'original'> {
  const { model } = context.subject;
  const bytes = [...model.store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  return {
    model: {
      family: model.family,
      layout: model.layout,
      layers_with_experts: model.layers.length,
      experts: Math.max(...model.layers.map(({ experts }) => experts)),
      experts_per_token: model.layers[0].rule.topK,
      runs_here: model.runs,
    },
    original: {
      bytes,
      expert_parameters: expertParameters(context),
      perplexity: first.predictions.base_perplexity,
      perplexity_se: first.predictions.base_perplexity_se,
    },
  };
}
