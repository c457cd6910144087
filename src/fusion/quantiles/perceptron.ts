import { multiply } from '../../kernels/gemm.js';
import type { Random } from '../../random.js';

/** Linear(d, h) - ELU, then (layers - 1) times [Dropout, Linear(h, h), ELU], then Linear(h, out). */
export interface PerceptronShape {
  readonly inputs: number;
  readonly hidden: number;
  readonly layers: number;
  readonly outputs: number;
  readonly dropout: number;
}

/** A perceptron with gradients by hand, f64. Parameters are one flat vector: weights [out, in] and bias of each layer. */
export interface Perceptron {
  readonly parameterCount: number;
  /** Uniform on +-1/sqrt(fan in), weights and biases, layer by layer. */
  initial(random: Random): Float64Array;
  /** Outputs `[rows, outputs]` of inputs `[rows, inputs]`. */
  forward(parameters: Float64Array, inputs: Float64Array, rows: number, dropout?: Random): Float64Array;
  /** Adds the gradient of the last forward pass, given dL/doutputs. */
  backward(parameters: Float64Array, slopes: Float64Array, gradient: Float64Array): void;
}

interface Layer {
  readonly fanIn: number;
  readonly fanOut: number;
  readonly weights: number;
  readonly bias: number;
}

function layersOf({ inputs, hidden, layers, outputs }: PerceptronShape): { list: Layer[]; parameters: number } {
  const widths = [inputs, ...new Array<number>(layers).fill(hidden), outputs];
  const list: Layer[] = [];
  let at = 0;
  for (let l = 0; l + 1 < widths.length; l++) {
    const [fanIn, fanOut] = [widths[l], widths[l + 1]];
    list.push({ fanIn, fanOut, weights: at, bias: at + fanIn * fanOut });
    at += (fanIn + 1) * fanOut;
  }
  return { list, parameters: at };
}

/** ELU in place; its derivative is 1 above 0 and value + 1 below. */
function elu(values: Float64Array): void {
  for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] = Math.expm1(values[i]);
}

export function perceptron(shape: PerceptronShape, threads = 1): Perceptron {
  const { list, parameters: parameterCount } = layersOf(shape);
  const { dropout: rate } = shape;
  // Of the last forward pass: input of every layer (behind dropout) and the masks that made it.
  let entering: Float64Array[] = [];
  let activated: Float64Array[] = [];
  let masks: (Float64Array | undefined)[] = [];
  let batch = 0;
  return {
    parameterCount,
    initial(random) {
      const values = new Float64Array(parameterCount);
      for (const { fanIn, fanOut, weights } of list) {
        const bound = 1 / Math.sqrt(fanIn);
        for (let i = 0; i < (fanIn + 1) * fanOut; i++) values[weights + i] = bound * (2 * random.uniform() - 1);
      }
      return values;
    },
    forward(parameters, inputs, rows, dropout) {
      batch = rows;
      entering = [];
      activated = [];
      masks = [];
      let current = inputs;
      list.forEach(({ fanIn, fanOut, weights, bias }, l) => {
        let mask: Float64Array | undefined;
        if (dropout && rate > 0 && l > 0 && l + 1 < list.length) {
          mask = Float64Array.from({ length: rows * fanIn }, () => (dropout.uniform() < rate ? 0 : 1 / (1 - rate)));
          const drops = mask;
          current = current.map((value, i) => value * drops[i]);
        }
        masks.push(mask);
        entering.push(current);
        const output = new Float64Array(rows * fanOut);
        for (let i = 0; i < rows; i++) output.set(parameters.subarray(bias, bias + fanOut), i * fanOut);
        const matrix = parameters.subarray(weights, bias);
        multiply(current, matrix, output, { m: rows, n: fanOut, k: fanIn }, { transposeB: true, beta: 1, threads });
        if (l + 1 < list.length) elu(output);
        activated.push(output);
        current = output;
      });
      return current;
    },
    backward(parameters, slopes, gradient) {
      let current = slopes;
      for (let l = list.length - 1; l >= 0; l--) {
        const { fanIn, fanOut, weights, bias } = list[l];
        if (l + 1 < list.length) {
          const output = activated[l];
          current = current.map((slope, i) => (output[i] < 0 ? slope * (output[i] + 1) : slope));
        }
        for (let i = 0; i < batch; i++) for (let o = 0; o < fanOut; o++) gradient[bias + o] += current[i * fanOut + o];
        const into = gradient.subarray(weights, bias);
        const sizes = { m: fanOut, n: fanIn, k: batch };
        multiply(current, entering[l], into, sizes, { transposeA: true, beta: 1, threads });
        if (l === 0) break;
        const back = new Float64Array(batch * fanIn);
        const matrix = parameters.subarray(weights, bias);
        multiply(current, matrix, back, { m: batch, n: fanIn, k: fanOut }, { threads });
        const mask = masks[l];
        current = mask === undefined ? back : back.map((value, i) => value * mask[i]);
      }
    },
  };
}
