import type { NodeWeights } from '../linalg/quadrature-nodes.js';
import type { Branch } from './activation-bases.js';
import type { JetFunction } from './activation-expression.js';
import type { InputDensity } from './input-density.js';
import { inverseJet, type Jet } from './jets.js';

/** The input that an increasing branch sends to an output: bisection to the last bit. */
export function inverseAt(activation: JetFunction, { low, high }: Branch, output: number): number {
  let [below, above] = [low, high];
  for (;;) {
    const middle = below + (above - below) / 2;
    if (middle <= below || middle >= above) break;
    if (activation(middle)[0] < output) below = middle;
    else above = middle;
  }
  return Math.abs(activation(below)[0] - output) < Math.abs(activation(above)[0] - output) ? below : above;
}

/** What the functional needs at one output x: the inverse activation y(x), the direction η and its slope. */
export interface FunctionalPoint {
  readonly inverse: Jet;
  /** η = -(p'(y) y' + p(y) y''/y'): dH = -ε ∫ η² for y + ε η. */
  readonly eta: number;
  readonly etaSlope: number;
}

/** y, η and η' at the output of an input u (Sun et al. 2024; η' from three derivatives of the activation). */
export function functionalPoint(activation: JetFunction, density: InputDensity, u: number): FunctionalPoint {
  const inverse = inverseJet(activation(u), u);
  const [, y1, y2, y3] = inverse;
  const [p, p1, p2] = density.at(u);
  const bend = y2 / y1;
  return {
    inverse,
    eta: -(p1 * y1 + p * bend),
    etaSlope: -(p2 * y1 * y1 + 2 * p1 * y2 + p * (y3 / y1 - bend * bend)),
  };
}

/** The functional on a quadrature of the output interval. */
export interface FunctionalGrid {
  readonly nodes: NodeWeights;
  readonly points: readonly FunctionalPoint[];
  readonly density: InputDensity;
}

/** Evaluates y, η and η' at the nodes. */
export function functionalGrid(
  activation: JetFunction,
  branch: Branch,
  density: InputDensity,
  nodes: NodeWeights,
): FunctionalGrid {
  const points = Array.from(nodes.values, (output) =>
    functionalPoint(activation, density, inverseAt(activation, branch, output)),
  );
  return { nodes, points, density };
}

/** Entropy of the outputs, nats, when the inverse activation is y + ε η: H = -∫ q ln q, q = p(y + ε η)(y' + ε η'). */
export interface PerturbedEntropy {
  readonly eps: number;
  /** NaN where the perturbed inverse does not increase at every node. */
  readonly nats: number;
  readonly increasing: boolean;
}

/** Output entropy H(eps) of the activation moved by eps along the direction, in nats, by the nodes of the grid. */
export function perturbedEntropy({ nodes, points, density }: FunctionalGrid, eps: number): PerturbedEntropy {
  let nats = 0;
  let increasing = true;
  points.forEach(({ inverse, eta, etaSlope }, i) => {
    const slope = inverse[1] + eps * etaSlope;
    if (!(slope > 0)) increasing = false;
    const q = density.at(inverse[0] + eps * eta)[0] * slope;
    // q ln q vanishes with q.
    if (q > 0) nats -= nodes.weights[i] * q * Math.log(q);
  });
  return { eps, nats: increasing ? nats : Number.NaN, increasing };
}

/** -∫ η² dx, the derivative of H by ε without its boundary term. */
export function firstVariation({ nodes, points }: FunctionalGrid): number {
  return -points.reduce((sum, { eta }, i) => sum + nodes.weights[i] * eta * eta, 0);
}

/** What the ends of the interval add to dH/dε: -p(y) (ln(p(y) y') + 1) η, upper end less lower end. */
export function boundaryTerm(density: InputDensity, low: FunctionalPoint, high: FunctionalPoint): number {
  const at = ({ inverse, eta }: FunctionalPoint): number => {
    const p = density.at(inverse[0])[0];
    const q = p * inverse[1];
    return q > 0 ? -p * (Math.log(q) + 1) * eta : 0;
  };
  return at(high) - at(low);
}

/** Step of {@link numericDerivative}: H is smooth in ε, and 1e-4 keeps both errors near 1e-9. */
const STEP = 1e-4;

/** dH/dε at 0 by central differences of fourth order. */
export function numericDerivative(grid: FunctionalGrid): number {
  const at = (eps: number): number => perturbedEntropy(grid, eps).nats;
  return (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP);
}

/** The ε between which y + ε η increases at every node; infinite where η bends nowhere that way. */
export function admissibleEps({ points }: FunctionalGrid): { readonly low: number; readonly high: number } {
  let low = Number.NEGATIVE_INFINITY;
  let high = Number.POSITIVE_INFINITY;
  for (const { inverse, etaSlope } of points) {
    const bound = -inverse[1] / etaSlope;
    if (etaSlope < 0) high = Math.min(high, bound);
    if (etaSlope > 0) low = Math.max(low, bound);
  }
  return { low, high };
}
