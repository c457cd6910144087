import { InputError } from '../errors.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { Floats, TapEvent } from '../models/layer-runner.js';
import { engineOf, type LayerStreamOptions, openLayerStreams } from '../models/layer-streams.js';
import { floatsLike } from './expert-function.js';
import { openExpertModel } from './expert-layout.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import { inPrecision } from './expert-precision.js';
import { readExpert, readRouter } from './expert-reader.js';
import { type ExpertLayerFunction, type ExpertSource, type LayerOutput, runLayer } from './layer-function.js';
import type { LayerLabels } from './merged-labels.js';
import { addOutputErrors, type OutputErrorSums, outputErrorSums } from './output-error.js';
import type { ExpertMatrices } from './types.js';

/** A merged model that is measured against the original. */
export interface HeldOutSubject {
  readonly path: string;
  /**
   * What became of the original experts, see `readMergedLabels`. Without it the error of a layer whose router was reduced is
   * not split.
   */
  readonly labels: readonly LayerLabels[];
}

export interface HeldOutArguments extends LayerStreamOptions {
  /** Token ids of a text that neither calibration nor any fit has seen. */
  readonly windows: readonly Int32Array[];
  /** Directory of the original model, the one the engine runs. */
  readonly original: string;
  readonly subjects: readonly HeldOutSubject[];
  /** Experts of a layer are kept between batches of tokens while they fit; else each batch reads them. */
  readonly cacheBytes: number;
}

/** Errors of one layer of one subject. */
export interface HeldOutErrors {
  readonly sums: OutputErrorSums;
  /** Whether errors of experts and of routing are told apart; else `experts` is `total`, and `routing` zero. */
  readonly split: boolean;
}

export interface HeldOutLayer {
  /** 0-based decoder layer. */
  readonly layer: number;
  /** In the order of the subjects. */
  readonly subjects: readonly HeldOutErrors[];
}

/** A layer of a model, ready to run. */
interface OpenedLayer {
  readonly layer: ExpertLayer;
  readonly run: ExpertLayerFunction;
}

/** Bytes for experts that stay in memory, shared by the models of a layer. */
interface Budget {
  left: number;
}

interface Reading {
  readonly threads: number;
  readonly precision: 'f32' | 'f64';
}

function expertSource(model: ExpertModel, index: number, reading: Reading, budget: Budget): ExpertSource {
  const { experts, shape } = model.layers[index];
  const { threads, precision } = reading;
  const read = (place: number): ExpertMatrices => inPrecision(readExpert(model, index, place, threads), precision);
  const bytes = experts * (shape.gated ? 3 : 2) * shape.hidden * shape.width * (precision === 'f32' ? 4 : 8);
  if (bytes > budget.left) return read;
  budget.left -= bytes;
  const kept = new Map<number, ExpertMatrices>();
  return (place) => {
    const expert = kept.get(place) ?? read(place);
    kept.set(place, expert);
    return expert;
  };
}

function openLayer(model: ExpertModel, index: number, reading: Reading, budget: Budget): OpenedLayer {
  const layer = model.layers[index];
  const { shape, experts, routerRows, map } = layer;
  const router = readRouter(model, index, reading.threads);
  const correctionBias = router.correctionBias && { correctionBias: router.correctionBias };
  return {
    layer,
    run: {
      shape,
      rule: { ...layer.rule, ...correctionBias },
      router: reading.precision === 'f32' ? router.rows : Float64Array.from(router.rows),
      routerRows,
      experts,
      expert: expertSource(model, index, reading, budget),
      ...(map && { map }),
    },
  };
}

/** Where every original expert runs in a merged layer: as recorded, as the layer itself maps them, or where it was. */
function labelsOf(original: ExpertLayer, merged: ExpertLayer, recorded?: Int32Array): Int32Array | undefined {
  if (merged.map !== undefined) return merged.map;
  if (merged.routerRows === original.routerRows && merged.experts === original.experts) {
    return Int32Array.from({ length: original.experts }, (_, expert) => expert);
  }
  return recorded;
}

/** @throws InputError when a layer cannot be the merged form of another */
function checkPair(original: ExpertModel, subject: HeldOutSubject, merged: ExpertModel): void {
  const fail = (what: string): never => {
    throw new InputError(`${subject.path}: cannot come from ${original.path} by merging its experts: ${what}`);
  };
  if (original.layers.length !== merged.layers.length) {
    fail(`${merged.layers.length} layers with experts, not ${original.layers.length}`);
  }
  original.layers.forEach((layer, index) => {
    const own = merged.layers[index];
    if (own.layer !== layer.layer) fail(`${own.name} has experts where ${layer.name} has`);
    if (own.shape.hidden !== layer.shape.hidden) {
      fail(`${own.name} has hidden size ${own.shape.hidden}, not ${layer.shape.hidden}`);
    }
    const labels = subject.labels.find((entry) => entry.layer === layer.layer)?.labels;
    if (labels?.some((label) => label >= own.experts) || (labels && labels.length !== layer.experts)) {
      fail(`the groups recorded for ${own.name} do not fit its ${own.experts} experts`);
    }
  });
}

function sameValues(a: Floats, b: Floats): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** Errors of one batch of rows of a merged layer. */
function batchErrors(
  original: OpenedLayer,
  merged: OpenedLayer,
  labels: Int32Array | undefined,
  before: LayerOutput,
  { x, rows, threads }: { readonly x: Floats; readonly rows: number; readonly threads: number },
): OutputErrorSums {
  const { hidden } = original.layer.shape;
  const weightSums = new Float64Array(rows);
  const { topK, weights } = before.routing;
  for (let i = 0; i < weights.length; i++) weightSums[Math.floor(i / topK)] += weights[i];
  const { logits } = before;
  const keepsRouter = sameValues(merged.run.router, original.run.router);
  const stored = runLayer(merged.run, x, rows, { threads, ...(keepsRouter && { logits }) });
  const sameChoice = keepsRouter && merged.run.rule.topK === original.run.rule.topK;
  // The merged experts under the router of before.
  const { rule, router, routerRows } = original.run;
  const remap = { ...merged.run, rule, router, routerRows, ...(labels && { map: labels }) };
  const remapped = labels === undefined || sameChoice ? stored : runLayer(remap, x, rows, { threads, logits });
  return outputErrorSums(
    { rows, hidden, original: before.output, remapped: remapped.output, merged: stored.output },
    { rows, remapped: remapped.dispatch, merged: stored.dispatch, weightSums },
  );
}

/**
 * Errors of the outputs of merged layers on the inputs that they have in the original model, layer by layer: each layer is
 * judged on its own, errors of earlier ones do not add up. Memory holds one layer's streams of a batch, and its experts one at
 * a time or all that `cacheBytes` holds.
 *
 * @throws InputError for models that do not belong together, an ONNX export, and an empty text
 */
export async function heldOutErrors(
  model: LanguageModel,
  args: HeldOutArguments,
  progress: (tokens: unknown) => void,
): Promise<HeldOutLayer[]> {
  const engine = engineOf(model);
  if (args.windows.every((window) => window.length === 0))
    throw new InputError('held-out errors: the text has no token');
  const opened: ExpertModel[] = [];
  try {
    const original = openExpertModel(args.original);
    opened.push(original);
    const merged = args.subjects.map((subject) => {
      const own = openExpertModel(subject.path, { merged: 'read' });
      opened.push(own);
      checkPair(original, subject, own);
      return own;
    });
    const streams = await openLayerStreams(engine, args.windows, args);
    try {
      const result: HeldOutLayer[] = [];
      const reading = { threads: engine.threads, precision: engine.precision };
      const places = new Map(original.layers.map(({ layer }, index) => [layer, index]));
      const last = Math.max(...places.keys());
      for (let layer = 0; layer <= last; layer++) {
        const index = places.get(layer);
        const sums = index === undefined ? undefined : layerSums(args, original, merged, index, reading);
        await streams.pass({
          layer,
          taps: sums ? ['mlp_input', 'router_logits'] : [],
          last: true,
          onTap: (event) => sums?.watch(event),
          progress: (tokens) => {
            sums?.finishBatch();
            progress(tokens);
          },
        });
        if (sums) result.push({ layer, subjects: sums.finish() });
      }
      return result;
    } finally {
      streams.close();
    }
  } finally {
    for (const each of opened) each.close();
  }
}

/** Rows of the taps of a layer, in the order of windows and positions however the engine cut them. */
interface LayerRows {
  readonly rows: number;
  readonly x: Floats;
  readonly logits: Floats;
}

/** Puts the taps of one batch of windows together, so that no figure depends on the memory that the engine has. */
function orderedRows(events: readonly TapEvent[], hidden: number, routerRows: number): LayerRows {
  const lengths = new Map(
    events.flatMap(({ group }) => group.windows.map((window) => [window, group.length] as const)),
  );
  const starts = new Map<number, number>();
  let rows = 0;
  for (const window of [...lengths.keys()].sort((a, b) => a - b)) {
    starts.set(window, rows);
    rows += lengths.get(window) ?? 0;
  }
  const put = (target: Floats, tap: LayerTap, columns: number): Floats => {
    for (const { group, from, count, taps } of events) {
      const data = taps.get(tap) as Floats;
      group.windows.forEach((window, i) => {
        const own = data.subarray(i * count * columns, (i + 1) * count * columns);
        target.set(own, ((starts.get(window) ?? 0) + from) * columns);
      });
    }
    return target;
  };
  const like = events[0].taps.get('mlp_input') as Floats;
  return {
    rows,
    x: put(floatsLike(like, rows * hidden), 'mlp_input', hidden),
    logits: put(floatsLike(like, rows * routerRows), 'router_logits', routerRows),
  };
}

/** Sums of all subjects over the batches of one layer. */
function layerSums(
  args: HeldOutArguments,
  original: ExpertModel,
  merged: readonly ExpertModel[],
  index: number,
  reading: Reading,
): { watch(event: TapEvent): void; finishBatch(): void; finish(): HeldOutErrors[] } {
  const budget = { left: args.cacheBytes };
  const { threads } = reading;
  const before = openLayer(original, index, reading, budget);
  const subjects = merged.map((model, s) => {
    const after = openLayer(model, index, reading, budget);
    const recorded = args.subjects[s].labels.find((entry) => entry.layer === before.layer.layer)?.labels;
    return { after, labels: labelsOf(before.layer, after.layer, recorded) };
  });
  const sums: (OutputErrorSums | undefined)[] = subjects.map(() => undefined);
  let events: TapEvent[] = [];
  return {
    watch(event) {
      // The engine uses the arrays of its taps again.
      events.push({ ...event, taps: new Map([...event.taps].map(([tap, data]) => [tap, data.slice()])) });
    },
    finishBatch() {
      const { rows, x, logits } = orderedRows(events, before.run.shape.hidden, before.run.routerRows);
      events = [];
      const output = runLayer(before.run, x, rows, { threads, logits });
      subjects.forEach(({ after, labels }, s) => {
        const batch = batchErrors(before, after, labels, output, { x, rows, threads });
        const sum = sums[s];
        sums[s] = sum === undefined ? batch : addOutputErrors(sum, batch);
      });
    },
    finish: () =>
      sums.map((sum, s) => {
        if (sum === undefined) throw new RangeError(`layer ${before.layer.layer} saw no token`);
        return { sums: sum, split: subjects[s].labels !== undefined };
      }),
  };
}

/** See {@link heldOutErrors}; progress is the number of tokens that went through a layer. */
export const HELD_OUT_ERRORS: JobReference<HeldOutArguments, HeldOutLayer[]> = {
  module: import.meta.url,
  job: heldOutErrors,
};
