import { didYouMean, InputError } from '../errors.js';
import type { GraphComposer } from '../models/graph.js';

/** An activation of a network. */
export interface Activation {
  readonly name: string;
  /** Learnable scalars, one set a layer, with their start. */
  readonly parameters: Readonly<Record<string, number>>;
  /** Adds the activation of `x` to the graph; `parameters` gives the value name of each learnable scalar [1]. */
  compose(g: GraphComposer, x: string, parameters: Readonly<Record<string, string>>): string;
}

const plain = (name: string, compose: (g: GraphComposer, x: string) => string): Activation => ({
  name,
  parameters: {},
  compose,
});

/** x exp(-x^2 / 2), the correction of CRReLU. */
function correction(g: GraphComposer, x: string): string {
  const square = g.node('Mul', [x, x]);
  return g.node('Mul', [x, g.node('Exp', [g.node('Mul', [square, g.scalar(-0.5)])])]);
}

/**
 * Activations by name. `crrelu` is max(0, x) + epsilon x exp(-x^2 / 2) with one learnable epsilon a layer, 0.01 at the
 * start (Sun et al. 2024, arXiv 2405.12954); `gelu` is the exact one.
 */
export const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  relu: plain('relu', (g, x) => g.node('Relu', [x])),
  gelu: plain('gelu', (g, x) => g.node('Gelu', [x])),
  silu: plain('silu', (g, x) => g.node('Mul', [x, g.node('Sigmoid', [x])])),
  tanh: plain('tanh', (g, x) => g.node('Tanh', [x])),
  crrelu: {
    name: 'crrelu',
    parameters: { epsilon: 0.01 },
    compose: (g, x, { epsilon }) => g.node('Add', [g.node('Relu', [x]), g.node('Mul', [epsilon, correction(g, x)])]),
  },
};

const POOLS = ['max', 'average', 'none'] as const;
const HEADS = ['mean', 'flatten'] as const;
const INITIALISATIONS = ['pytorch', 'kaiming'] as const;

/** A network as a short text describes it. */
export interface NetworkDesign {
  readonly kind: 'mlp' | 'cnn';
  /** Channels of the convolutional stages; none for an mlp. */
  readonly channels: readonly number[];
  /** Widths of the hidden linear layers. */
  readonly hidden: readonly number[];
  readonly activation: Activation;
  /** Share of what each hidden linear layer gives that is set to zero in training. */
  readonly dropout: number;
  /** Side of the convolutions' kernels; padded so that they keep height and width. */
  readonly kernel: number;
  /** Pooling by 2 x 2 after every stage. */
  readonly pool: (typeof POOLS)[number];
  /** What follows the last stage: the mean of each channel, or all its values. */
  readonly head: (typeof HEADS)[number];
  /**
   * `pytorch`: weights and biases uniform within 1 / sqrt(fan-in), the default of PyTorch's Linear and Conv2d; `kaiming`:
   * normal weights of variance 2 / fan-in, biases 0 (He et al. 2015).
   */
  readonly initialisation: (typeof INITIALISATIONS)[number];
}

/** How network texts are written, for help and messages. */
export const NETWORK_GRAMMAR =
  'mlp:400-200,relu,dropout=0.3 or cnn:16-32,relu,kernel=3,pool=max,head=mean,hidden=64 or linear';

const refuse = (text: string, what: string): never => {
  throw new InputError(`network "${text}": ${what}; write it as ${NETWORK_GRAMMAR}`);
};

function widths(text: string, part: string): number[] {
  return part.split('-').map((word) => {
    const width = /^\d+$/.test(word) ? Number(word) : 0;
    if (width < 1 || width > 65536) refuse(text, `"${word}" is no width of 1 to 65536`);
    return width;
  });
}

function oneOf<T extends string>(text: string, key: string, value: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  return found ?? refuse(text, `${key}=${value} is unknown${didYouMean(value, choices)}`);
}

/** Settings that follow the widths, by key; a word without `=` names the activation. */
const SETTINGS: Readonly<Record<string, (text: string, value: string) => Partial<NetworkDesign>>> = {
  activation: (text, value) => {
    const activation = ACTIVATIONS[value];
    if (!Object.hasOwn(ACTIVATIONS, value)) {
      refuse(text, `the activation "${value}" is unknown${didYouMean(value, Object.keys(ACTIVATIONS))}`);
    }
    return { activation };
  },
  dropout: (text, value) => {
    const dropout = Number(value);
    if (value === '' || !(dropout >= 0 && dropout < 1)) refuse(text, `dropout=${value} is not within [0, 1)`);
    return { dropout };
  },
  kernel: (text, value) => {
    const kernel = Number(value);
    if (!(Number.isInteger(kernel) && kernel >= 1 && kernel % 2 === 1)) refuse(text, `kernel=${value} is not odd`);
    return { kernel };
  },
  pool: (text, value) => ({ pool: oneOf(text, 'pool', value, POOLS) }),
  head: (text, value) => ({ head: oneOf(text, 'head', value, HEADS) }),
  hidden: (text, value) => ({ hidden: widths(text, value) }),
  init: (text, value) => ({ initialisation: oneOf(text, 'init', value, INITIALISATIONS) }),
};

/** Settings that only a convolutional network has. */
const IMAGE_ONLY = new Set(['kernel', 'pool', 'head', 'hidden']);

/** Whether a text means a network and not a file. */
export const isNetworkText = (text: string): boolean => /^(mlp|cnn):|^linear(,|$)/.test(text);

/**
 * Reads `mlp:<widths>`, `cnn:<channels>` or `linear`, followed by settings separated by commas (`NETWORK_GRAMMAR`).
 * @throws InputError naming the part that is wrong
 */
export function parseNetwork(text: string): NetworkDesign {
  const [head, ...rest] = text.split(',').map((part) => part.trim());
  const [kind, sizes] = head.split(':');
  const layers = kind === 'linear' && sizes === undefined ? [] : widths(text, sizes ?? '');
  if (kind !== 'mlp' && kind !== 'cnn' && kind !== 'linear') {
    refuse(text, `"${kind}" is unknown${didYouMean(kind, ['mlp', 'cnn', 'linear'])}`);
  }
  let design: NetworkDesign = {
    kind: kind === 'cnn' ? 'cnn' : 'mlp',
    channels: kind === 'cnn' ? layers : [],
    hidden: kind === 'cnn' ? [] : layers,
    activation: ACTIVATIONS.relu,
    dropout: 0,
    kernel: 3,
    pool: 'max',
    head: 'mean',
    initialisation: 'pytorch',
  };
  const seen = new Set<string>();
  for (const part of rest) {
    const at = part.indexOf('=');
    const key = at < 0 ? 'activation' : part.slice(0, at);
    const known = Object.keys(SETTINGS).filter((name) => kind === 'cnn' || !IMAGE_ONLY.has(name));
    if (!known.includes(key)) refuse(text, `"${key}" is no setting of ${kind}${didYouMean(key, known)}`);
    if (seen.has(key)) refuse(text, `${key} is given twice`);
    seen.add(key);
    design = { ...design, ...SETTINGS[key](text, part.slice(at + 1)) };
  }
  return design;
}
