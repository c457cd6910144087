/** A linear classifier over the raw features of one member. */
export interface Head {
  /** `[classes, features]` */
  readonly weights: Float64Array;
  readonly bias: Float64Array;
  readonly features: number;
  readonly classes: number;
}

/**
 * The head of a concatenation from the heads of its members, `W = [W_1; ...; W_M] / M` and `b = mean b_i`: its logits are
 * the mean of the members' logits (Zhang & Bottou 2023). Columns are in the order of the members.
 * @throws RangeError when the heads differ in their classes
 */
export function averagedHeads(heads: readonly Head[]): Head {
  const { classes } = heads[0];
  if (heads.some((head) => head.classes !== classes)) throw new RangeError('heads differ in their number of classes');
  const features = heads.reduce((sum, head) => sum + head.features, 0);
  const weights = new Float64Array(classes * features);
  const bias = new Float64Array(classes);
  let column = 0;
  for (const head of heads) {
    for (let k = 0; k < classes; k++) {
      for (let j = 0; j < head.features; j++) {
        weights[k * features + column + j] = head.weights[k * head.features + j] / heads.length;
      }
      bias[k] += head.bias[k] / heads.length;
    }
    column += head.features;
  }
  return { weights, bias, features, classes };
}

/**
 * The head in the layout of `multinomialLogits` over members of the given widths: for every member its weights
 * `[classes, width]`, then the biases.
 */
export function thetaOfHead(head: Head, widths: readonly number[]): Float64Array {
  const { classes, features } = head;
  const theta = new Float64Array(classes * (features + 1));
  let column = 0;
  for (const width of widths) {
    for (let k = 0; k < classes; k++) {
      const from = k * features + column;
      theta.set(head.weights.subarray(from, from + width), classes * column + k * width);
    }
    column += width;
  }
  if (column !== features) throw new RangeError(`a head over ${features} features for members of ${column}`);
  theta.set(head.bias, classes * features);
  return theta;
}
