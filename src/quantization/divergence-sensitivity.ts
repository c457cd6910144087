import type { EngineHost } from '../models/engine-host.js';
import type { ModelFiles } from '../models/model-files.js';
import { MEASURE_GROUPS, type NoisyWeight } from './divergence-job.js';
import type { SelectedTensor } from './tensor-selection.js';

/** Tokens that predictions are compared on where `--sensitivity-tokens` does not say. */
export const SENSITIVITY_TOKENS = 1024;

/**
 * Energy of the noise for a rate: the error of white Gaussian rows at the Shannon bound. Results hardly depend on it; below
 * the floor, rounding of f32 would be heard.
 */
export function noiseEnergy(bitsPerWeight: number): number {
  return Math.max(4 ** -bitsPerWeight, 1e-3);
}

export interface DivergenceRequest {
  /** Windows of calibration; about `tokens` of them are taken, spread over all. */
  readonly windows: readonly Int32Array[];
  readonly tokens: number;
  /** Energy of the noise relative to that of each row, see {@link noiseEnergy}. */
  readonly relativeEnergy: number;
  /** Decimal. */
  readonly seed: string;
  /** Called with the passes that are done and all of them. */
  readonly progress?: (done: number, all: number) => void;
}

/** How the predictions answer to errors of the weights. Plain data. */
export interface DivergenceSensitivity {
  /** Tokens that were run, and the relative energy of the noise. */
  readonly tokens: number;
  readonly relativeEnergy: number;
  /** KL in nats per unit of relative squared error, by tensor; embedding and head are missing. */
  readonly tensors: Readonly<Record<string, number>>;
}

/**
 * Windows for about `tokens` tokens, evenly spread over those given, so that more than the first documents are heard;
 * the last one is cut.
 */
export function sensitivityWindows(windows: readonly Int32Array[], tokens: number): Int32Array[] {
  const longest = Math.max(...windows.map((window) => window.length));
  const count = Math.min(windows.length, Math.ceil(tokens / longest));
  const chosen: Int32Array[] = [];
  let left = tokens;
  for (let i = 0; i < count && left > 0; i++) {
    const window = windows[Math.floor((i * windows.length) / count)];
    chosen.push(window.slice(0, left));
    left -= Math.min(left, window.length);
  }
  return chosen;
}

/** Bytes beside the engine: the noisy weights of a layer and three residual streams. */
export function divergenceReserve(
  { description }: ModelFiles,
  selected: readonly SelectedTensor[],
  run: { readonly tokens: number; readonly precision: 'f32' | 'f64' },
): number {
  const byLayer = new Map<number, number>();
  for (const { layer, rows, columns } of selected) {
    if (layer >= 0) byLayer.set(layer, (byLayer.get(layer) ?? 0) + rows * columns);
  }
  const weights = Math.max(0, ...byLayer.values());
  return (weights + 3 * run.tokens * description.hiddenSize) * (run.precision === 'f32' ? 4 : 8);
}

/** Weights of the engine that the selected tensors hold, by tensor. */
function engineWeights(files: ModelFiles, selected: readonly SelectedTensor[]): Map<string, NoisyWeight[]> {
  const found = new Map<string, NoisyWeight[]>(selected.map(({ name }) => [name, []]));
  const turned = files.description.linearLayout === 'in-out';
  let stream = 0;
  files.weights.layers.forEach((weights, layer) => {
    for (const [role, { tensor, shape }] of weights) {
      if (shape.length !== 2) continue;
      const [rows, columns] = turned ? [shape[1], shape[0]] : shape;
      found.get(tensor.name)?.push({ layer, role, stream, rows, columns });
      stream++;
    }
  });
  return found;
}

/** A cell of the table of layers and roles. */
export interface SeparableCell {
  readonly layer: number;
  readonly role: string;
}

/**
 * The table c[layer, role] = a[layer] b[role] over the given cells whose sums over layers are `roleSums` and whose sums
 * over roles are `layerSums`, both scaled to their mean total first. In a full table that is
 * roleSums[role] layerSums[layer] / total; where cells are missing, rows and columns are scaled in turn (iterative
 * proportional fitting, Deming and Stephan 1940).
 */
export function separableTable(
  cells: readonly SeparableCell[],
  roleSums: ReadonlyMap<string, number>,
  layerSums: ReadonlyMap<number, number>,
): Float64Array {
  const totalOf = (sums: ReadonlyMap<unknown, number>): number => [...sums.values()].reduce((a, b) => a + b, 0);
  const [byRole, byLayer] = [totalOf(roleSums), totalOf(layerSums)];
  const total = (byRole + byLayer) / 2;
  const table = new Float64Array(cells.length).fill(1);
  if (!(byRole > 0 && byLayer > 0)) return table.fill(0);
  const scaleTo = <K>(keyOf: (cell: SeparableCell) => K, wanted: ReadonlyMap<K, number>, scale: number): number => {
    const sums = new Map<K, number>();
    cells.forEach((cell, i) => {
      sums.set(keyOf(cell), (sums.get(keyOf(cell)) ?? 0) + table[i]);
    });
    let change = 0;
    cells.forEach((cell, i) => {
      const key = keyOf(cell);
      const sum = sums.get(key) ?? 0;
      const factor = sum > 0 ? ((wanted.get(key) ?? 0) * scale) / sum : 0;
      table[i] *= factor;
      change = Math.max(change, Math.abs(factor - 1));
    });
    return change;
  };
  for (let round = 0; round < 200; round++) {
    scaleTo(({ role }) => role, roleSums, total / byRole);
    if (scaleTo(({ layer }) => layer, layerSums, total / byLayer) < 1e-9 && round > 0) break;
  }
  return table;
}

/**
 * Measures what errors of each tensor cost in the predictions, an extension of this tool: noise on all selected tensors of one role, then on all of
 * one layer, and the mean KL to the original. The two margins give every tensor its part by {@link separableTable};
 * tensors of one layer and role (experts) share theirs by weights.
 */
export async function measureDivergence(
  host: EngineHost,
  files: ModelFiles,
  selected: readonly SelectedTensor[],
  request: DivergenceRequest,
): Promise<DivergenceSensitivity> {
  const { relativeEnergy, seed } = request;
  const windows = sensitivityWindows(request.windows, request.tokens);
  const weights = engineWeights(files, selected);
  const inside = selected.filter(({ layer }) => layer >= 0);
  const roles = [...new Set(inside.map(({ role }) => role))];
  const layers = [...new Set(inside.map(({ layer }) => layer))];
  const groupOf = (take: (item: SelectedTensor) => boolean): NoisyWeight[] =>
    inside.filter(take).flatMap(({ name }) => weights.get(name) ?? []);
  const groups = [
    ...roles.map((role) => groupOf((item) => item.role === role)),
    ...layers.map((layer) => groupOf((item) => item.layer === layer)),
  ];
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  if (groups.length === 0) return { tokens, relativeEnergy, tensors: {} };
  let done = 0;
  const { meanKlNats } = await host.run(MEASURE_GROUPS, { windows, groups, relativeEnergy, seed }, () => {
    request.progress?.(++done, groups.length + 1);
  });
  const cells = new Map<string, SeparableCell & { weights: number }>();
  const keyOf = ({ layer, role }: SelectedTensor): string => `${layer} ${role}`;
  for (const item of inside) {
    const cell = cells.get(keyOf(item)) ?? { layer: item.layer, role: item.role, weights: 0 };
    cell.weights += item.rows * item.columns;
    cells.set(keyOf(item), cell);
  }
  const table = separableTable(
    [...cells.values()],
    new Map(roles.map((role, r) => [role, meanKlNats[r]])),
    new Map(layers.map((layer, l) => [layer, meanKlNats[roles.length + l]])),
  );
  const parts = new Map([...cells.entries()].map(([key, { weights: all }], i) => [key, table[i] / all]));
  const tensors = Object.fromEntries(
    inside.map((item) => [item.name, ((parts.get(keyOf(item)) ?? 0) * item.rows * item.columns) / relativeEnergy]),
  );
  return { tokens, relativeEnergy, tensors };
}
