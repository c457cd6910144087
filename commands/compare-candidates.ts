import { rmSync } from 'node:fs';
import { type CompareBody, type CompareRow, meanOfLayers } from '../src/moe/compare-report.js';
import { compressModel } from '../src/moe/compress-model.js';
import type { ExpertModel } from '../src/moe/expert-model.js';
import { parameterTotals } from '../src/moe/merge-report.js';
import { expertMethod } from '../src/moe/methods/registry.js';
import { MAGNITUDES } from '../src/moe/row-weights.js';
import { COMPRESS, type PlannedRow } from './compare-rows.js';
import { toolVersion } from './edge-version.js';
import { settingsRecord } from './merge-moe-options.js';
import { type Calibrated, layerErrors, type MergeContext, runMerge } from './merge-moe-subject.js';
import { evaluateBesideOriginal } from './model-evaluation.js';

/** What a row made. */
type Made = Pick<
  CompareRow,
  'method' | 'kind' | 'config_form' | 'bytes' | 'saved_share' | 'expert_parameters' | 'warnings'
>;

/** Makes the model of one row, judges it by the unseen text, and removes it. */
export async function compareOne(
  context: MergeContext,
  calibrated: Calibrated,
  row: PlannedRow,
  run: { readonly out: string; readonly command: string },
): Promise<CompareRow> {
  const { subject, options, own, ledger, progress } = context;
  const { session, unseen } = calibrated;
  if (!session || !unseen) throw new RangeError('a comparison without unseen text');
  const { spec, experts } = row;
  const made =
    row.kind === 'compress' ? await compress(context, row, run) : await reduce(context, calibrated, row, run);
  const [layers] = await layerErrors(context, session, unseen.windows, [run.out]);
  const record = await evaluateBesideOriginal({
    spec: subject.spec,
    session,
    path: run.out,
    options,
    text: own,
    data: subject.evalData,
    ...(subject.evalTokens !== undefined && { tokens: subject.evalTokens }),
    choices: [],
    precision: subject.precision,
    ledger,
    onTokens: (tokens) => progress.update(tokens, `${spec.name}, ${experts}`),
  });
  if (!record.predictions) throw new RangeError('a comparison without predictions');
  rmSync(run.out, { recursive: true, force: true });
  const { warnings, ...figures } = made;
  return {
    name: spec.name,
    experts,
    ...figures,
    mean_relative_error: meanOfLayers(layers, 'relative_error') ?? 0,
    mean_expert_error: meanOfLayers(layers, 'expert_error'),
    mean_routing_error: meanOfLayers(layers, 'routing_error'),
    layers,
    predictions: { documents: record.documents, ...record.predictions },
    warnings,
  };
}

/** Fewer experts. */
async function reduce(
  context: MergeContext,
  calibrated: Calibrated,
  { spec, settings }: Extract<PlannedRow, { kind: 'experts' }>,
  { out, command }: { readonly out: string; readonly command: string },
): Promise<Made> {
  const head = { tool: { name: 'surprisal', version: toolVersion() }, command, parameters: settingsRecord(settings) };
  const result = await runMerge(
    context,
    calibrated,
    { out, settings, head: { ...head, inputs: [] }, write: { force: true } },
    `${spec.name}, ${settings.experts}`,
  );
  const { name: method, kind } = expertMethod(settings.method);
  const unchanged = result.layers.length === 0;
  return {
    method,
    kind,
    config_form: result.config_form,
    bytes: result.bytes_after,
    saved_share: 1 - result.bytes_after / result.bytes_before,
    expert_parameters: unchanged ? expertParameters(context) : parameterTotals(result.layers).after,
    warnings: result.warnings,
  };
}

/** All experts, each as low rank plus rows that stay. */
async function compress(
  { subject: { model }, options, progress }: MergeContext,
  { spec, settings }: Extract<PlannedRow, { kind: 'compress' }>,
  { out, command }: { readonly out: string; readonly command: string },
): Promise<Made> {
  const { matrices } = await compressModel(model, {
    settings,
    weights: MAGNITUDES,
    out,
    head: { tool: { name: 'surprisal', version: toolVersion() }, command, parameters: {}, inputs: [] },
    force: true,
    threads: options.threads,
    progress: async (done, total) => {
      progress.setTotal(total);
      progress.update(done, spec.name);
    },
  });
  const all = bytesOf(model);
  const bytes = all + matrices.reduce((sum, matrix) => sum + matrix.bytes_after - matrix.bytes_before, 0);
  const parameters = matrices.reduce((sum, { compressed, rank, rows, columns, sparse_rows: kept }) => {
    return sum + (compressed ? rank * (rows + columns) + kept * columns : rows * columns);
  }, 0);
  return {
    method: COMPRESS,
    kind: 'compress',
    config_form: 'factorised',
    bytes,
    saved_share: 1 - bytes / all,
    expert_parameters: parameters,
    warnings: [],
  };
}

const bytesOf = ({ store }: ExpertModel): number =>
  [...store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);

function expertParameters({ subject }: MergeContext): number {
  return subject.model.layers.reduce((sum, { experts, shape }) => {
    return sum + experts * (shape.gated ? 3 : 2) * shape.hidden * shape.width;
  }, 0);
}

/** What the report says of the original model; its perplexity stands beside that of every candidate. */
export function originalRecord(context: MergeContext, first: CompareRow): Pick<CompareBody, 'model' | 'original'> {
  const { model } = context.subject;
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
      bytes: bytesOf(model),
      expert_parameters: expertParameters(context),
      perplexity: first.predictions.base_perplexity,
      perplexity_se: first.predictions.base_perplexity_se,
    },
  };
}
