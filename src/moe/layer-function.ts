import { multiply } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { floatsLike, runExpert } from './expert-function.js';
import { createRouter } from './routing-statistics.js';
import type { ExpertMatrices, ExpertShape, RouterRule } from './types.js';

/** What the router of a layer decided for a block of rows. */
export interface Routing {
  readonly rows: number;
  readonly experts: number;
  /** Experts a row; fewer than the rule says where the layer has fewer. */
  readonly topK: number;
  /** Chosen experts, the most probable first, [rows, topK]. */
  readonly chosen: Int32Array;
  /** Their weights in the output, [rows, topK]. */
  readonly weights: Float64Array;
  /** p of all experts: softmax or sigmoid of the logits, [rows, E]. */
  readonly probabilities: Float64Array;
}

/** p of all experts of one row: softmax of its scores, or, for a sigmoid router, their exponentials. */
function probabilitiesOf(logScores: Float64Array, softmax: boolean, p: Float64Array): void {
  let most = softmax ? Number.NEGATIVE_INFINITY : 0;
  if (softmax) for (const score of logScores) most = Math.max(most, score);
  let sum = 0;
  for (let e = 0; e < p.length; e++) sum += p[e] = Math.exp(logScores[e] - most);
  if (softmax) for (let e = 0; e < p.length; e++) p[e] /= sum;
}

/**
 * Chosen experts of each row and their weights.
 *
 * @param logits [rows, E], finite
 * @throws InputError when the rule's correction bias is not [E]
 */
export function route(logits: Floats, rows: number, experts: number, rule: RouterRule): Routing {
  // A reduced layer may have fewer experts than the original chose.
  const topK = Math.min(rule.topK, experts);
  const choose = createRouter(experts, { ...rule, topK });
  const chosen = new Int32Array(rows * topK);
  const weights = new Float64Array(rows * topK);
  const probabilities = new Float64Array(rows * experts);
  for (let row = 0; row < rows; row++) {
    const token = choose(logits, row * experts);
    const p = probabilities.subarray(row * experts, (row + 1) * experts);
    probabilitiesOf(token.logScores, rule.score === 'softmax', p);
    chosen.set(token.chosen, row * topK);
    let sum = rule.normalizeTopK ? 0 : 1;
    if (rule.normalizeTopK) for (const expert of token.chosen) sum += p[expert];
    for (let j = 0; j < topK; j++) weights[row * topK + j] = p[token.chosen[j]] / sum;
  }
  return { rows, experts, topK, chosen, weights, probabilities };
}

/** Router logits z = x W^T, [rows, E]. */
export function routerLogits(
  router: Floats,
  experts: number,
  x: Floats,
  rows: number,
  options: { readonly threads?: number } = {},
): Floats {
  const hidden = router.length / experts;
  const sizes = { m: rows, n: experts, k: hidden };
  return multiply(x, router, floatsLike(x, rows * experts), sizes, { transposeB: true, ...options });
}

/**
 * Which rows each expert runs on, by expert. A row whose chosen experts share a merged one is there once, with the
 * summed weight.
 */
export interface Dispatch {
  readonly experts: number;
  /** Place of the first row of each expert, and the number of all, [experts + 1]. */
  readonly starts: Int32Array;
  /** Ascending in an expert. */
  readonly rows: Int32Array;
  readonly weights: Float64Array;
}

/**
 * Sorts the chosen experts of all rows by the expert that runs.
 *
 * @param map the stored expert that each of the router's experts runs as, [E]; -1 for one that is dropped, whose weight
 *   is lost. Default: itself
 * @param experts how many experts are stored
 */
export function dispatch(routing: Routing, map?: Int32Array, experts = routing.experts): Dispatch {
  const { rows: count, topK, chosen, weights } = routing;
  const mass = new Float64Array(topK);
  const targets = new Int32Array(topK);
  /** Distinct experts of a row with their summed weights, in the order of the choice. */
  const gather = (row: number): number => {
    let distinct = 0;
    for (let j = row * topK; j < (row + 1) * topK; j++) {
      const target = map === undefined ? chosen[j] : map[chosen[j]];
      if (target < 0) continue;
      let place = 0;
      while (place < distinct && targets[place] !== target) place++;
      if (place === distinct) {
        targets[distinct] = target;
        mass[distinct++] = weights[j];
      } else {
        mass[place] += weights[j];
      }
    }
    return distinct;
  };
  const starts = new Int32Array(experts + 1);
  for (let row = 0; row < count; row++) {
    const distinct = gather(row);
    for (let j = 0; j < distinct; j++) starts[targets[j] + 1]++;
  }
  for (let e = 0; e < experts; e++) starts[e + 1] += starts[e];
  const next = starts.slice(0, experts);
  const rows = new Int32Array(starts[experts]);
  const summed = new Float64Array(starts[experts]);
  for (let row = 0; row < count; row++) {
    const distinct = gather(row);
    for (let j = 0; j < distinct; j++) {
      const place = next[targets[j]]++;
      rows[place] = row;
      summed[place] = mass[j];
    }
  }
  return { experts, starts, rows, weights: summed };
}

/** Weight of each stored expert for each row, [rows, experts]; 0 where it does not run. */
export function gateMass({ experts, starts, rows, weights }: Dispatch, count: number): Float64Array {
  const mass = new Float64Array(count * experts);
  for (let e = 0; e < experts; e++) {
    for (let i = starts[e]; i < starts[e + 1]; i++) mass[rows[i] * experts + e] = weights[i];
  }
  return mass;
}

/** Rows of x [*, size] that an index list names, one after the other. */
export function gatherRows(x: Floats, size: number, rows: Int32Array): Floats {
  const gathered = floatsLike(x, rows.length * size);
  for (let i = 0; i < rows.length; i++) gathered.set(x.subarray(rows[i] * size, (rows[i] + 1) * size), i * size);
  return gathered;
}

/** Stored experts by place; asked once for each expert that runs, so that one at a time need be in memory. */
export type ExpertSource = (place: number) => ExpertMatrices;

/**
 * Output of the routed experts: y = sum over experts of weight * E(x), experts in ascending order, added in f64.
 *
 * @param x [rows, H], of the precision of the experts
 * @returns [rows, H]
 */
export function runDispatched(
  plan: Dispatch,
  expert: ExpertSource,
  shape: ExpertShape,
  x: Floats,
  rows: number,
  options: { readonly threads?: number } = {},
): Float64Array {
  const { hidden } = shape;
  const out = new Float64Array(rows * hidden);
  for (let e = 0; e < plan.experts; e++) {
    const own = plan.rows.subarray(plan.starts[e], plan.starts[e + 1]);
    if (own.length === 0) continue;
    const y = runExpert(expert(e), shape, gatherRows(x, hidden, own), own.length, options);
    addWeightedRows(out, hidden, own, plan.weights.subarray(plan.starts[e]), y);
  }
  return out;
}

/** out[rows[i]] += weights[i] * y[i] for rows of `size` entries. */
export function addWeightedRows(out: Float64Array, size: number, rows: Int32Array, weights: Floats, y: Floats): void {
  for (let i = 0; i < rows.length; i++) {
    const to = rows[i] * size;
    const from = i * size;
    const weight = weights[i];
    for (let d = 0; d < size; d++) out[to + d] += weight * y[from + d];
  }
}

/** A layer of routed experts: router and stored experts, with the map between them where there is one. */
export interface ExpertLayerFunction {
  readonly shape: ExpertShape;
  readonly rule: RouterRule;
  /** [E, H], of the precision of the rows that the layer runs on. */
  readonly router: Floats;
  readonly routerRows: number;
  /** Experts that are stored; without a map as many as the router has rows. */
  readonly experts: number;
  readonly expert: ExpertSource;
  /** See {@link dispatch}: the "remap" form of a merged layer. */
  readonly map?: Int32Array;
}

/** What a layer decided and gave. */
export interface LayerOutput {
  /** [rows, routerRows]. */
  readonly logits: Floats;
  readonly routing: Routing;
  readonly dispatch: Dispatch;
  /** [rows, H]. */
  readonly output: Float64Array;
}

/**
 * A layer's routed experts on rows of its input. Without a map: the original layer, or a merged or pruned one with
 * fewer router rows ("reduced"). With one: a merged layer that keeps the original router,
 * y = sum_g (sum over chosen i with map(i) = g of p_i) M_g(x), p normalised over the original choice (MC-SMoE, 2023).
 * Shared experts are no part of it.
 *
 * @param x [rows, H]
 * @param logits the router's logits where they are known already, [rows, E]
 */
export function runLayer(
  layer: ExpertLayerFunction,
  x: Floats,
  rows: number,
  options: { readonly threads?: number; readonly logits?: Floats } = {},
): LayerOutput {
  const { threads } = options;
  const { routerRows } = layer;
  const logits = options.logits ?? routerLogits(layer.router, routerRows, x, rows, { threads });
  const routing = route(logits, rows, routerRows, layer.rule);
  const plan = dispatch(routing, layer.map, layer.experts);
  const output = runDispatched(plan, layer.expert, layer.shape, x, rows, { threads });
  return { logits, routing, dispatch: plan, output };
}
