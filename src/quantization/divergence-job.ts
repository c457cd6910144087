import { InputError } from '../errors.js';
import { accumulateRows, createRowAccumulator, finalizeRows } from '../kernels/row-statistics.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats } from '../models/layer-runner.js';
import { createRandom } from '../random.js';
import { addWeightNoise } from './weight-noise.js';

/** A weight of a layer that noise is added to. */
export interface NoisyWeight {
  readonly layer: number;
  /** Role in the engine, `expert.3.gate` for one expert. */
  readonly role: string;
  /** The stream of its noise: the same weight has the same noise in every group. */
  readonly stream: number;
  /** W [rows = out, columns = in]. */
  readonly rows: number;
  readonly columns: number;
}

export interface DivergenceArguments {
  readonly windows: readonly Int32Array[];
  /** Weights that are noisy together. */
  readonly groups: readonly (readonly NoisyWeight[])[];
  /** Energy of the noise relative to that of each row. */
  readonly relativeEnergy: number;
  /** Decimal. */
  readonly seed: string;
}

export interface DivergenceResult {
  /** Mean of KL(original || noisy) over all positions, nats, by group. */
  readonly meanKlNats: Float64Array;
}

const STATISTICS = { topK: 1, renyiOrders: [] } as const;

/**
 * What the noise of each group of weights does to the next-token predictions. Groups are taken by their first layer,
 * so that layers before it run once for all.
 * @throws InputError for an ONNX export, for tokens outside of the vocabulary, and when a divergence is not finite
 */
export async function measureGroups(
  { engine, info }: LanguageModel,
  args: DivergenceArguments,
  progress: (done: unknown) => void,
): Promise<DivergenceResult> {
  if (!engine) throw new InputError(`${info.path}: weights are not reachable in an ONNX export; pass the model itself`);
  const { windows, groups } = args;
  const layers = engine.model.layers.length;
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const make = (): Floats => {
    const length = tokens * engine.model.hiddenSize;
    return engine.precision === 'f32' ? new Float32Array(length) : new Float64Array(length);
  };
  // Streams before layer `reached`; the same pass goes on to the final rows once, in `rows`, and stays here.
  const base = make();
  await engine.forward({ windows, streams: base, layers: [0, 0] });
  const rows = make();
  rows.set(base);
  await engine.forward({ windows, streams: rows, continues: true, layers: [0, layers] });
  await engine.normalize(rows);
  const { logSumExp } = await engine.statistics(rows, new Int32Array(tokens), STATISTICS);
  progress(1);

  const noisy = make();
  const add = createNoise(engine, args);
  const meanKlNats = new Float64Array(groups.length);
  const firstLayer = (group: readonly NoisyWeight[]): number => Math.min(...group.map(({ layer }) => layer));
  const order = groups.map((group, g) => ({ g, from: firstLayer(group) })).sort((a, b) => a.from - b.from || a.g - b.g);
  let reached = 0;
  for (const { g, from } of order) {
    if (from > reached) {
      await engine.forward({ windows, streams: base, continues: true, layers: [reached, from] });
      reached = from;
    }
    noisy.set(base);
    const adjustWeights = add(groups[g]);
    await engine.forward({ windows, streams: noisy, continues: true, layers: [from, layers], adjustWeights });
    await engine.normalize(noisy);
    meanKlNats[g] = await meanDivergence(engine, rows, logSumExp, noisy);
    if (!Number.isFinite(meanKlNats[g])) {
      const [{ layer, role }] = groups[g];
      throw new InputError(
        `${info.path}: the predictions are not finite with noise on ${role} of layer ${layer}; look at the weights, or ` +
          'try --precision f64',
      );
    }
    progress(1);
  }
  return { meanKlNats };
}

/** Weights of a group with their noise; the copies lie in buffers that the next layer uses again. */
function createNoise(engine: Engine, { relativeEnergy, seed }: DivergenceArguments) {
  const random = createRandom(BigInt(seed));
  const transposed = engine.model.linearLayout === 'in-out';
  const buffers = new Map<string, Floats>();
  const bufferFor = (role: string, length: number): Floats => {
    const found = buffers.get(role);
    if (found?.length === length) return found;
    const made = engine.precision === 'f32' ? new Float32Array(length) : new Float64Array(length);
    buffers.set(role, made);
    return made;
  };
  return (group: readonly NoisyWeight[]) => {
    const members = new Map(group.map((weight) => [`${weight.layer} ${weight.role}`, weight]));
    return (layer: number, role: string, data: Floats): Floats => {
      const weight = members.get(`${layer} ${role}`);
      if (!weight) return data;
      const target = bufferFor(role, data.length);
      const { rows, columns, stream } = weight;
      addWeightNoise(data, { rows, columns, transposed }, relativeEnergy, random.fork(stream), target);
      return target;
    };
  };
}

/**
 * Mean over rows of KL(p || q) = sum p (l - z) - log Z_p + log Z_q with the logits l of the original and z of the other,
 * folded block by block of the vocabulary: no row of logits exists as a whole.
 * @param rows and other: normed rows [n, hidden]
 * @param logSumExp log Z_p by row
 */
async function meanDivergence(engine: Engine, rows: Floats, logSumExp: Float64Array, other: Floats): Promise<number> {
  const n = logSumExp.length;
  const accumulator = createRowAccumulator(n, STATISTICS);
  const mass = new Float64Array(n);
  const gap = new Float64Array(n);
  const dtype = engine.precision === 'f32' ? 'F32' : 'F64';
  await engine.visitLogits([rows, other], ({ columnOffset, columns, rowOffset, rows: count, logits }) => {
    const [original, changed] = logits;
    accumulateRows(
      accumulator,
      { data: changed, dtype, rows: count, columns },
      { columnOffset, rowOffset, threads: engine.threads },
    );
    for (let r = 0; r < count; r++) {
      const shift = logSumExp[rowOffset + r];
      let sum = 0;
      let weighted = 0;
      for (let i = r * columns; i < (r + 1) * columns; i++) {
        const p = Math.exp(original[i] - shift);
        if (p === 0) continue;
        sum += p;
        weighted += p * (original[i] - changed[i]);
      }
      mass[rowOffset + r] += sum;
      gap[rowOffset + r] += weighted;
    }
  });
  const changed = finalizeRows(accumulator, engine.model.vocabularySize).logSumExp;
  let total = 0;
  for (let r = 0; r < n; r++) total += Math.max(0, gap[r] / mass[r] - logSumExp[r] + changed[r]);
  return total / n;
}

const module = import.meta.url;
export const MEASURE_GROUPS: JobReference<DivergenceArguments, DivergenceResult> = { module, job: measureGroups };
