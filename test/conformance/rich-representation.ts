import { fitStandardisation, standardise } from '../../src/linalg/linear-probe.js';
import { fitMultinomial, multinomialLogits } from '../../src/linalg/multinomial-newton.js';
import type { RankMeasures } from '../../src/linalg/rank-measures.js';
import { averagedHeads, thetaOfHead } from '../../src/probes/cat-heads.js';
import { classMetrics, softmaxRows } from '../../src/probes/class-metrics.js';
import { distilHeads } from '../../src/probes/distillation.js';
import { designOf, type MemberRows } from '../../src/probes/member-rows.js';
import { ckaOfMembers, rankOfMembers } from '../../src/probes/redundancy.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, shapeOf, tensor } from './tensors.js';

function list(value: Json, name: string): Json[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value;
}

/** A matrix of the case as the rows of a member. */
function held(data: Float64Array, rows: number, columns: number): MemberRows {
  return { rows, columns, read: (start, count) => data.subarray(start * columns, (start + count) * columns) };
}

/** `[columns, rows]` of `[rows, columns]`. */
function transposed(data: Float64Array, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: data.length }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);
}

function rankKeys(measures: RankMeasures): Record<string, number> {
  return {
    'rankme_eps1e-7': measures.rankMe,
    effective_rank_singular_values: measures.effectiveRank,
    effective_rank_squared: measures.effectiveRankSquared,
    participation_ratio: measures.participationRatio,
    stable_rank: measures.stableRank,
  };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const read = (name: string) =>
    list(inputs[name], name).map((value) => ({ data: float64(value, name), shape: shapeOf(value, name) }));
  const train = read('features_train');
  const test = read('features_test');
  const yTrain = int32(inputs.y_train, 'y_train');
  const yTest = int32(inputs.y_test, 'y_test');
  const classes = number(inputs.n_classes, 'n_classes');
  const decay = number(inputs.weight_decay, 'weight_decay');
  const rows = yTrain.length;
  const scales = train.map(({ data, shape }) => fitStandardisation(data, rows, shape[1]));
  const standard = (from: typeof train) =>
    from.map(({ data, shape }, m) => held(standardise(data, shape[0], shape[1], scales[m]), shape[0], shape[1]));
  const trainMembers = standard(train);
  const testMembers = standard(test);
  const probe = (chosen: readonly number[]) => {
    const design = designOf(chosen.map((m) => trainMembers[m]));
    const fit = fitMultinomial(design, yTrain, classes, decay);
    const measured = (members: readonly MemberRows[], labels: Int32Array) => {
      const own = designOf(chosen.map((m) => members[m]));
      const logits = new Float64Array(labels.length * classes);
      multinomialLogits(own, fit.theta, classes, 0, labels.length, logits);
      const probabilities = softmaxRows(logits, labels.length, classes);
      return { probabilities, ...classMetrics(probabilities, labels, classes) };
    };
    const onTest = measured(testMembers, yTest);
    return {
      objective: fit.objective,
      train_accuracy: measured(trainMembers, yTrain).accuracy,
      test_accuracy: onTest.accuracy,
      test_nll: onTest.nllNats,
      test_prob_first3: tensor([3, classes], onTest.probabilities.slice(0, 3 * classes)),
    };
  };
  const all = train.map((_, m) => m);
  const weights = read('heads_W');
  const biases = read('heads_b');
  const heads = weights.map(({ data, shape }, m) => ({
    weights: transposed(data, shape[0], shape[1]),
    bias: biases[m].data,
    features: shape[0],
    classes: shape[1],
  }));
  const cat = averagedHeads(heads);
  const rawTest = designOf(test.map(({ data, shape }) => held(data, shape[0], shape[1])));
  const initial = new Float64Array(3 * classes);
  const theta = thetaOfHead(cat, rawTest.widths);
  multinomialLogits(rawTest, theta, classes, 0, 3, initial);
  const students = read('student_logits');
  const samples = students[0].shape[0];
  const teachers = heads.map((head, m) => {
    const logits = new Float64Array(samples * classes);
    multinomialLogits(
      designOf([held(test[m].data, samples, head.features)]),
      thetaOfHead(head, [head.features]),
      classes,
      0,
      samples,
      logits,
    );
    return logits;
  });
  const tau = number(inputs.tau, 'tau');
  const distilled = distilHeads(
    teachers,
    students.map(({ data }) => data),
    samples,
    classes,
    tau,
  );
  const members = (from: typeof train) => from.map(({ data, shape }) => ({ data, columns: shape[1] }));
  const means = Float64Array.from(scales.flatMap(({ mean }) => [...mean]));
  const variances = Float64Array.from(scales.flatMap(({ variance }) => [...variance]));
  const result: Record<string, unknown> = {
    single: all.map((m) => probe([m])),
    cat: probe(all),
    cat_head_init_logits_first3: tensor([3, classes], initial),
    multihead_distill_loss_per_head: distilled.heads.map(({ lossNats }) => lossNats),
    multihead_distill_loss_mean: distilled.meanNats,
    rank_single: members(train).map((member) => rankKeys(rankOfMembers([member], rows))),
    rank_cat: rankKeys(rankOfMembers(members(train), rows)),
    linear_cka: tensor([all.length, all.length], ckaOfMembers(members(train), rows)),
    bn_mean_first5: tensor([5], means.slice(0, 5)),
    bn_var_first5: tensor([5], variances.slice(0, 5)),
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, result[key]]));
}
