import { InputError } from '../errors.js';
import type { Floats } from '../models/layer-runner.js';
import { floatsLike, runExpert, runInner } from './expert-function.js';
import { addWeightedRows, type Dispatch, gatherRows } from './layer-function.js';
import { createDownRefit } from './refit.js';
import type { StreamCursor } from './stream-cursor.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** A layer of merged or pruned experts, as it will be stored. */
export interface LayerRefitTask {
  readonly layer: number;
  readonly shape: ExpertShape;
  /** Stored experts in order, in the arithmetic of the engine. */
  readonly experts: readonly ExpertMatrices[];
  /** Which stored experts run on the rows of a batch, from inputs [rows, H] and the original router's logits [rows, E]. */
  readonly dispatch: (x: Floats, logits: Floats, rows: number) => Dispatch;
  /** Rows of the original router. */
  readonly routerRows: number;
}

export interface LayerRefitOptions {
  /** Weight of ||D - D_before||^2, summed over the experts; needed where the tokens do not determine them. */
  readonly lambda?: number;
  /** Bytes that a matrix of normal equations may take. */
  readonly maxBytes: number;
  readonly threads?: number;
}

export interface LayerRefit {
  /** Down projections of all experts, [H, I] each. */
  readonly downs: readonly Float64Array[];
  readonly tokens: number;
  readonly lambda: number;
  /** Experts that are solved for together; all in one where memory holds them. */
  readonly blocks: number;
}

/** Times that every block is solved for, the others held, where there are several. */
const SWEEPS = 3;

/**
 * Down projections of all experts of a layer, fitted together to the output of the original layer on the text, under the
 * routing that the stored layer has: min sum_x ||y(x) - sum_g w_g(x) D_g h_g(x)||^2 + lambda sum_g ||D_g - D_g,before||^2,
 * with w the new weights and h the inner activations. Linear in D: one system of G I unknowns a row. Where that does not
 * fit in memory, blocks of experts are solved in turn (block Gauss-Seidel). Unlike a fit of each group to what its members
 * gave, it also makes good what the change of the router costs, and it serves pruned layers. No published method has it.
 * @throws InputError where the tokens do not determine the fit, or one expert's system does not fit in memory
 */
export async function refitLayer(
  cursor: StreamCursor,
  task: LayerRefitTask,
  options: LayerRefitOptions,
): Promise<LayerRefit> {
  const { shape, experts, layer } = task;
  const { maxBytes, lambda } = options;
  const together = Math.floor(Math.sqrt(maxBytes / 8) / shape.width);
  if (together < 1) {
    throw new InputError(
      `layer ${layer}: a refit of experts with ${shape.width} neurons takes ${8 * shape.width ** 2} bytes, more than ` +
        `the ${maxBytes} at hand; raise --max-memory, or choose --refit group`,
    );
  }
  const blocks: number[][] = [];
  for (let g = 0; g < experts.length; g += together) {
    blocks.push(Array.from({ length: Math.min(together, experts.length - g) }, (_, i) => g + i));
  }
  const current = experts.map(({ down }) => down);
  let tokens = 0;
  for (let sweep = 0; sweep < (blocks.length === 1 ? 1 : SWEEPS); sweep++) {
    for (const block of blocks) {
      const fit = await refitBlock(cursor, task, current, block, options);
      fit.downs.forEach((down, i) => {
        const like = floatsLike(current[block[i]], down.length);
        like.set(down);
        current[block[i]] = like;
      });
      tokens = Math.max(tokens, fit.tokens);
    }
  }
  return {
    downs: current.map((down) => Float64Array.from(down)),
    tokens,
    lambda: lambda ?? 0,
    blocks: blocks.length,
  };
}

/** Down projections of some experts, those of the others held. */
async function refitBlock(
  cursor: StreamCursor,
  task: LayerRefitTask,
  current: readonly Floats[],
  block: readonly number[],
  { lambda, threads }: LayerRefitOptions,
): Promise<{ downs: Float64Array[]; tokens: number }> {
  const { layer, shape, routerRows } = task;
  const { hidden, width } = shape;
  const wide = block.length * width;
  const fit = createDownRefit(
    { ...shape, width: wide },
    { maxBytes: 8 * wide * wide, ...(lambda !== undefined && { lambda }), ...(threads !== undefined && { threads }) },
  );
  await cursor.visit(layer, ['mlp_input', 'router_logits', 'expert_output'], ({ taps, experts }) => {
    if (!experts) return;
    const x = taps.get('mlp_input') as Floats;
    const logits = taps.get('router_logits') as Floats;
    const rows = logits.length / routerRows;
    const target = new Float64Array(rows * hidden);
    addWeightedRows(target, hidden, experts.rows, experts.weights, taps.get('expert_output') as Floats);
    const batch = featuresOf(task, current, block, { x, rows, target, plan: task.dispatch(x, logits, rows), threads });
    if (batch.rows > 0) fit.add(batch.features, batch.targets, batch.ones, batch.rows);
  });
  if (fit.tokens < wide && !((lambda ?? 0) > 0)) {
    throw new InputError(
      `layer ${layer}: ${fit.tokens} calibration tokens for ${block.length} experts of ${width} neurons; give more text, ` +
        'or --refit-lambda, which holds the down projections near what they were',
    );
  }
  const average = new Float64Array(hidden * wide);
  block.forEach((g, i) => {
    for (let h = 0; h < hidden; h++) {
      average.set(task.experts[g].down.subarray(h * width, (h + 1) * width), h * wide + i * width);
    }
  });
  const { down, tokens } = fit.solve(average);
  const downs = block.map((_, i) => {
    const own = new Float64Array(hidden * width);
    for (let h = 0; h < hidden; h++)
      own.set(down.subarray(h * wide + i * width, h * wide + (i + 1) * width), h * width);
    return own;
  });
  return { downs, tokens };
}

interface Batch {
  readonly x: Floats;
  readonly rows: number;
  /** Output of the original layer, [rows, H]; what other experts give is taken off. */
  readonly target: Float64Array;
  readonly plan: Dispatch;
  readonly threads: number | undefined;
}

/** Weighted inner activations of the block's experts side by side, for the rows that reach one of them. */
function featuresOf(
  { shape, experts }: LayerRefitTask,
  current: readonly Floats[],
  block: readonly number[],
  { x, rows, target, plan, threads }: Batch,
): { features: Floats; targets: Float64Array; ones: Float64Array; rows: number } {
  const { hidden, width } = shape;
  const options = threads === undefined ? {} : { threads };
  const rowsOf = (g: number): Int32Array => plan.rows.subarray(plan.starts[g], plan.starts[g + 1]);
  const weightsOf = (g: number): Float64Array => plan.weights.subarray(plan.starts[g], plan.starts[g + 1]);
  const inBlock = new Set(block);
  const reached = new Int32Array(rows).fill(-1);
  for (const g of block) for (const row of rowsOf(g)) reached[row] = 0;
  const kept = Int32Array.from(reached.keys()).filter((row) => reached[row] === 0);
  kept.forEach((row, i) => {
    reached[row] = i;
  });
  experts.forEach((expert, g) => {
    if (inBlock.has(g) || rowsOf(g).length === 0) return;
    const own = rowsOf(g);
    const y = runExpert({ ...expert, down: current[g] }, shape, gatherRows(x, hidden, own), own.length, options);
    addWeightedRows(
      target,
      hidden,
      own,
      weightsOf(g).map((weight) => -weight),
      y,
    );
  });
  const features = floatsLike(x, kept.length * block.length * width);
  block.forEach((g, place) => {
    const own = rowsOf(g);
    if (own.length === 0) return;
    const inner = floatsLike(x, own.length * width);
    runInner(experts[g], shape, gatherRows(x, hidden, own), own.length, inner, options);
    const weights = weightsOf(g);
    own.forEach((row, i) => {
      const at = (reached[row] * block.length + place) * width;
      for (let n = 0; n < width; n++) features[at + n] = weights[i] * inner[i * width + n];
    });
  });
  return {
    features,
    targets: gatherRows(target, hidden, kept) as Float64Array,
    ones: new Float64Array(kept.length).fill(1),
    rows: kept.length,
  };
}
