/** Adam with amsgrad (Reddi, Kale & Kumar 2018) and an L2 penalty in the gradient. */
export interface AmsgradSettings {
  readonly learningRate: number;
  readonly penalty: number;
}

const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

/**
 * The update as PyTorch defines it: the largest second moment so far, bias-corrected behind the maximum.
 * @returns moves `parameters` in place
 */
export function amsgrad(
  count: number,
  { learningRate, penalty }: AmsgradSettings,
): (parameters: Float64Array, gradient: Float64Array) => void {
  const first = new Float64Array(count);
  const second = new Float64Array(count);
  const largest = new Float64Array(count);
  let steps = 0;
  return (parameters, gradient) => {
    steps++;
    const rate = learningRate / (1 - BETA1 ** steps);
    const root = Math.sqrt(1 - BETA2 ** steps);
    for (let i = 0; i < count; i++) {
      const slope = gradient[i] + penalty * parameters[i];
      first[i] = BETA1 * first[i] + (1 - BETA1) * slope;
      second[i] = BETA2 * second[i] + (1 - BETA2) * slope * slope;
      if (second[i] > largest[i]) largest[i] = second[i];
      parameters[i] -= (rate * first[i]) / (Math.sqrt(largest[i]) / root + EPSILON);
    }
  };
}
