import type { RuleContext, RuleTable, VjpRule } from '../types.js';
import { floatType, meanOver, ones, positive, range, refused, sumOver } from './shape-arithmetic.js';

const softmax: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [y] = g.outputs;
  const weighted = g.emit('Mul', [y, cotangent]);
  const mean = sumOver(g, weighted, [g.intAttribute('axis', -1)]);
  return [g.emit('Mul', [y, g.emit('Sub', [cotangent, mean])])];
};

const logSoftmax: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const total = sumOver(g, cotangent, [g.intAttribute('axis', -1)]);
  return [g.emit('Sub', [cotangent, g.emit('Mul', [g.emit('Exp', [g.outputs[0]]), total])])];
};

/** x - mean over axes, and the reciprocal root of its mean square plus epsilon. */
function standardised(
  g: RuleContext,
  x: string,
  axes: readonly number[],
  epsilon: number,
  centre: boolean,
): { normal: string; scale: string } {
  const centred = centre ? g.emit('Sub', [x, meanOver(g, x, axes)]) : x;
  const variance = meanOver(g, g.emit('Mul', [centred, centred]), axes);
  const scale = g.emit('Reciprocal', [g.emit('Sqrt', [g.emit('Add', [variance, g.scalar(epsilon)])])]);
  return { normal: g.emit('Mul', [centred, scale]), scale };
}

/** dx of a standardisation over axes: r (gg - mean gg - xh mean(gg xh)), without the mean of gg where nothing is centred. */
function throughStandardised(
  g: RuleContext,
  gradient: string,
  { normal, scale }: { normal: string; scale: string },
  axes: readonly number[],
  centre: boolean,
): string {
  const along = meanOver(g, g.emit('Mul', [gradient, normal]), axes);
  const free = centre ? g.emit('Sub', [gradient, meanOver(g, gradient, axes)]) : gradient;
  return g.emit('Mul', [g.emit('Sub', [free, g.emit('Mul', [normal, along])]), scale]);
}

function refuseStatistics(g: RuleContext): void {
  if (g.cotangents.slice(1).some((cotangent) => cotangent !== undefined)) {
    throw refused(g, 'the loss reads its statistics');
  }
}

/** LayerNormalization over the axes from `axis` on. In f64 its own statistics would be single precision. */
const layerNormalization: VjpRule = (g) => {
  refuseStatistics(g);
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, gamma, beta] = g.inputs;
  const rank = g.dims(x).length;
  const axis = positive(g.intAttribute('axis', -1), rank);
  const axes = range(axis, rank);
  const epsilon = g.floatAttribute('epsilon', 1e-5);
  const fused = (): { normal: string; scale: string } => {
    const attributes = { axis: { int: axis }, epsilon };
    const [normal, , scale] = g.emitMany('LayerNormalization', [x, ones(g, g.shapeOf(gamma))], 3, attributes);
    return { normal, scale };
  };
  const standard = g.precision === 'f32' ? fused() : standardised(g, x, axes, epsilon, true);
  const scaled = () => g.emit('Mul', [cotangent, gamma]);
  return [
    g.needs(0) ? throughStandardised(g, scaled(), standard, axes, true) : undefined,
    g.needs(1) ? g.unbroadcast(g.emit('Mul', [cotangent, standard.normal]), gamma) : undefined,
    beta !== undefined && g.needs(2) ? g.unbroadcast(cotangent, beta) : undefined,
  ];
};

/** RMSNormalization, of which SimplifiedLayerNormalization is the older name. */
const rmsNormalization: VjpRule = (g) => {
  refuseStatistics(g);
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, gamma] = g.inputs;
  const rank = g.dims(x).length;
  const axes = range(positive(g.intAttribute('axis', -1), rank), rank);
  const standard = standardised(g, x, axes, g.floatAttribute('epsilon', 1e-5), false);
  return [
    g.needs(0) ? throughStandardised(g, g.emit('Mul', [cotangent, gamma]), standard, axes, false) : undefined,
    g.needs(1) ? g.unbroadcast(g.emit('Mul', [cotangent, standard.normal]), gamma) : undefined,
  ];
};

/** Channels lie on axis 1. In training the statistics are those of the batch, and gradients go through them. */
const batchNormalization: VjpRule = (g) => {
  refuseStatistics(g);
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, gamma, , mean, variance] = g.inputs;
  const rank = g.dims(x).length;
  const others = range(0, rank).filter((axis) => axis !== 1);
  const spread = g.integers(range(0, rank).map((axis) => (axis === 1 ? -1 : 1)));
  const channel = (vector: string): string => g.emit('Reshape', [vector, spread]);
  const epsilon = g.floatAttribute('epsilon', 1e-5);
  const sums = (tensor: string): string => sumOver(g, tensor, others, false);
  if (g.intAttribute('training_mode', 0) !== 0) {
    const standard = standardised(g, x, others, epsilon, true);
    const scaled = () => g.emit('Mul', [cotangent, channel(gamma)]);
    return [
      g.needs(0) ? throughStandardised(g, scaled(), standard, others, true) : undefined,
      g.needs(1) ? sums(g.emit('Mul', [cotangent, standard.normal])) : undefined,
      g.needs(2) ? sums(cotangent) : undefined,
    ];
  }
  const root = g.emit('Reciprocal', [g.emit('Sqrt', [g.emit('Add', [variance, g.scalar(epsilon)])])]);
  const gain = g.emit('Mul', [gamma, root]);
  const alongInput = () => sums(g.emit('Mul', [cotangent, g.emit('Sub', [x, channel(mean)])]));
  const half = () => g.emit('Mul', [g.emit('Mul', [root, root]), g.scalar(-0.5)]);
  return [
    g.needs(0) ? g.emit('Mul', [cotangent, channel(gain)]) : undefined,
    g.needs(1) ? g.emit('Mul', [alongInput(), root]) : undefined,
    g.needs(2) ? sums(cotangent) : undefined,
    g.needs(3) ? g.emit('Neg', [g.emit('Mul', [sums(cotangent), gain])]) : undefined,
    g.needs(4) ? g.emit('Mul', [g.emit('Mul', [alongInput(), gain]), half()]) : undefined,
  ];
};

/**
 * Dropout passes in inference. In training the mask that the operator drew is reused; who wants a mask of his own makes it
 * an input (`dropoutInputs`).
 */
const dropout: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [, ratioInput, trainingInput] = g.inputs;
  const given = (input: string | undefined, fallback: number): number | undefined =>
    input === undefined || input === '' ? fallback : g.constantFloats(input)?.[0];
  const training = given(trainingInput, 0);
  const ratio = given(ratioInput, 0.5);
  if (training === undefined || ratio === undefined) throw refused(g, 'its ratio or its mode is fed');
  if (training === 0 || ratio === 0) return [cotangent];
  const mask = g.outputs[1] ?? '';
  if (mask === '') throw refused(g, 'it draws a mask and does not show it');
  const kept = g.emit('Cast', [mask], { to: floatType(g) });
  return [g.emit('Mul', [g.emit('Mul', [cotangent, kept]), g.scalar(1 / (1 - ratio))])];
};

/** Softmax, norms and dropout. */
export const NORMALISATION_RULES: RuleTable = {
  Softmax: softmax,
  LogSoftmax: logSoftmax,
  LayerNormalization: layerNormalization,
  RMSNormalization: rmsNormalization,
  SimplifiedLayerNormalization: rmsNormalization,
  BatchNormalization: batchNormalization,
  Dropout: dropout,
};
