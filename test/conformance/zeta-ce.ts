import { boxLaw, crossEntropyMethod } from '../../src/optimization/cross-entropy-method.js';
import { startRareEvent } from '../../src/optimization/rare-event.js';
import { exponentialLaw } from '../../src/optimization/sampling-law.js';
import { exactLineProbability, exactStripProbability, firstOrderProbability } from '../../src/zeta/rare-zeros.js';
import { hardyZ, theta } from '../../src/zeta/riemann-siegel.js';
import { countZeros, slopesAtZeros, zerosByNumber, zerosOnLine } from '../../src/zeta/zeros.js';
import { absoluteZeta, polishZero, zeta, zetaWithDerivative } from '../../src/zeta/zeta-function.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, numbers, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

/** Draws from lists that the case gives, one after the other. */
function listed(values: Float64Array): { normal(): number; uniform(): number } {
  let next = 0;
  return { normal: () => values[next++], uniform: () => values[next++] };
}

const rowsOf = (value: Json, name: string): Json[] => {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value;
};

function fieldOf(value: Json, name: string): Json {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`no ${name}`);
  return value[name];
}

const only = (wanted: Json, named: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));

export function run(inputs: Inputs, wanted: Json): unknown {
  if ('normals' in inputs) return only(wanted, trace(inputs, wanted));
  if ('paths_0based' in inputs) return only(wanted, network(inputs));
  if ('eps' in inputs) return only(wanted, rareEvent(inputs, wanted));
  return only(wanted, values(inputs, wanted));
}

const COUNT_OF_ZEROS = 12;

function values(inputs: Inputs, wanted: Json): Record<string, unknown> {
  const points = rowsOf(inputs.points, 'points').map((point) => numbers(point, 'point'));
  const t = numbers(inputs.t, 't');
  const at = points.map(([sigma, height]) => zeta(sigma, height));
  const listedZeros = fieldOf(wanted, 'zeros');
  const count = Array.isArray(listedZeros) ? listedZeros.length : COUNT_OF_ZEROS;
  const zeros = zerosByNumber(number(inputs.zero_from, 'zero_from'), count);
  const slopes = Array.from(zeros, (height) => zetaWithDerivative(0.5, height).derivative);
  return {
    zeta_re: at.map(({ re }) => re),
    zeta_im: at.map(({ im }) => im),
    Z: t.map(hardyZ),
    theta: t.map(theta),
    zeros: [...zeros],
    zeta_prime_re: slopes.map(({ re }) => re),
    zeta_prime_im: slopes.map(({ im }) => im),
    Z_prime_abs: [...slopesAtZeros(zeros)],
    N_of_T: numbers(inputs.T, 'T').map(countZeros),
  };
}

function trace(inputs: Inputs, wanted: Json): Record<string, unknown> {
  const sigma = numbers(fieldOf(inputs.box, 'sigma'), 'sigma');
  const t = numbers(fieldOf(inputs.box, 't'), 't');
  const box = { low: [sigma[0], t[0]], high: [sigma[1], t[1]] };
  const { rounds, point, score } = crossEntropyMethod(
    (x) => -Math.log(absoluteZeta(x[0], x[1])),
    listed(float64(inputs.normals, 'normals')),
    {
      law: boxLaw(box),
      box,
      samples: number(inputs.N, 'N'),
      eliteShare: number(inputs.rho, 'rho'),
      smoothing: number(inputs.alpha, 'alpha'),
      maxRounds: rowsOf(fieldOf(wanted, 'trace'), 'trace').length,
      deviationTolerance: 0,
    },
  );
  const polished = polishZero(point[0], point[1]);
  return {
    trace: rounds.map(({ threshold, roundBest, elite, law }) => ({
      gamma: threshold,
      best_score: roundBest,
      n_elite: elite,
      ...(law.kind === 'gaussian' && { mu: tensor([2], law.mean), sd: tensor([2], law.deviation) }),
    })),
    best_point: tensor([2], point),
    best_score: score,
    polished: [polished.sigma, polished.t],
  };
}

function network(inputs: Inputs): Record<string, unknown> {
  const mean = float64(inputs.mean, 'mean');
  const levels = float64(inputs.uniforms_levels, 'uniforms_levels');
  const last = float64(inputs.uniforms_final, 'uniforms_final');
  const paths = rowsOf(inputs.paths_0based, 'paths_0based').map((path) => numbers(path, 'path'));
  const search = startRareEvent({
    nominal: exponentialLaw(mean),
    level: number(inputs.gamma, 'gamma'),
    samples: number(inputs.N, 'N'),
    finalSamples: last.length / mean.length,
    eliteShare: number(inputs.rho, 'rho'),
  });
  const [forLevels, forEstimate] = [listed(levels), listed(last)];
  while (search.phase !== 'done') {
    const points = search.ask(search.phase === 'levels' ? forLevels : forEstimate);
    const rows = Array.from({ length: points.length / mean.length }, (_, i) => i * mean.length);
    search.tell(
      rows.map((row) => Math.min(...paths.map((path) => path.reduce((sum, edge) => sum + points[row + edge], 0)))),
    );
  }
  const found = search.result();
  return {
    trace: found.levels.map(({ level, law }) => ({
      gamma: level,
      ...(law.kind === 'exponential' && { v: tensor([mean.length], law.mean) }),
    })),
    estimate: found.estimate,
    std_error: found.standardError,
    relative_error: found.relativeError,
  };
}

function rareEvent(inputs: Inputs, wanted: Json): Record<string, unknown> {
  const t = [number(inputs.a, 'a'), number(inputs.b, 'b')] as const;
  const line = { kind: 'line', t } as const;
  const strip = { kind: 'strip', sigma: [0, 1], t } as const;
  const { ordinates } = zerosOnLine(t[0], t[1]);
  const slopes = slopesAtZeros(ordinates);
  const basins = Array.from(ordinates, (height, i) => ({ sigma: 0.5, t: height, slope: slopes[i] }));
  const keys = rowsOf(fieldOf(wanted, 'rows'), 'rows');
  return {
    n_zeros: ordinates.length,
    rows: numbers(inputs.eps, 'eps').map((eps, i) =>
      only(keys[i], {
        eps,
        p_line: exactLineProbability(t, eps),
        p_line_first_order: firstOrderProbability(line, basins, eps),
        p_strip: exactStripProbability(strip, basins, eps).value,
        p_strip_first_order: firstOrderProbability(strip, basins, eps),
      }),
    ),
  };
}
