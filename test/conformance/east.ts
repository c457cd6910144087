import { countEntropy } from '../../src/steering/action-entropy.js';
import { permutedVector } from '../../src/steering/controls.js';
import {
  addStep,
  CENTRINGS,
  type Centring,
  createRunSums,
  eastVector,
  type RunSums,
} from '../../src/steering/east-sums.js';
import { addToRows, norm } from '../../src/steering/vector-measures.js';
import { wordRatios } from '../../src/steering/word-ratio.js';
import { isTensor, type Json } from './harness.js';
import { float64, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

/** What was planted stands in no input. */
export const undetermined = ['planted_direction', 'cos_with_planted'];

interface Run {
  readonly sums: RunSums;
  readonly entropies: readonly number[];
}

function readRun(value: Json, index: number): Run {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || isTensor(value)) {
    throw new TypeError('a run is an object');
  }
  const [steps, width] = shapeOf(value.z, 'z');
  const z = float64(value.z, 'z');
  if (!Array.isArray(value.counts)) throw new TypeError('counts is not a list');
  const counts = value.counts.map((row) => numbers(row, 'counts'));
  const sums = createRunSums(String(index), width);
  const entropies: number[] = [];
  for (let t = 0; t < steps; t++) {
    if (counts[t].every((count) => count === 0)) continue;
    const entropy = countEntropy(counts[t]).pluginNats;
    entropies.push(entropy);
    addStep(sums, z.subarray(t * width, (t + 1) * width), entropy);
  }
  return { sums, entropies };
}

const texts = (value: Json): string[] => (Array.isArray(value) ? value.map(String) : []);

function wordCase(inputs: { [key: string]: Json }): unknown {
  const found = wordRatios(texts(inputs.default), texts(inputs.steered), {
    stopwords: texts(inputs.stopwords),
    smoothing: number(inputs.smoothing, 'smoothing'),
    ...(typeof inputs.min_count === 'number' && { minimumCount: inputs.min_count }),
  });
  return {
    n_words_default: found.defaultWords,
    n_words_steered: found.steeredWords,
    ratio_steered_over_default: Object.fromEntries(found.words.map(({ word, ratio }) => [word, ratio])),
  };
}

/** `wrong_uncentred` and `wrong_globally_centred` are what the other centrings give. */
const CENTRING_OF: Readonly<Record<string, Centring>> = {
  u: CENTRINGS[0],
  wrong_globally_centred: CENTRINGS[1],
  wrong_uncentred: CENTRINGS[2],
};

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (!Array.isArray(inputs.runs)) return wordCase(inputs);
  const runs = inputs.runs.map(readRun);
  const sums = runs.map((one) => one.sums);
  const east = eastVector(sums);
  const { vector } = east;
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const centring = CENTRING_OF[key];
    if (centring) result[key] = tensor([vector.length], eastVector(sums, centring).vector);
  }
  const steered = shapeOf(inputs.z_to_steer, 'z_to_steer');
  return {
    ...result,
    entropies_nats: runs.map(({ entropies }) => entropies),
    Z: east.totalEntropyNats,
    u_norm: norm(vector),
    u_shuffled: tensor([vector.length], permutedVector(vector, float64orList(inputs.permutation))),
    z_steered: tensor(
      steered,
      addToRows(float64(inputs.z_to_steer, 'z_to_steer'), vector, number(inputs.beta, 'beta')),
    ),
  };
}

function float64orList(value: Json): ArrayLike<number> {
  return isTensor(value) ? float64(value, 'permutation') : numbers(value, 'permutation');
}
