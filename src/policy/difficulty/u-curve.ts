import { InputError } from '../../errors.js';
import { quantileOfSorted } from '../../linalg/quantile-sketch.js';
import { createRandom } from '../../random.js';

/** Mean entropy by difficulty, and the parabola through it (DiffAdapt, section 2; spec 8.4). */
export interface UCurve {
  /** Levels in ascending order, and questions of each. */
  readonly levels: Float64Array;
  readonly counts: Int32Array;
  /** Mean entropy of the questions of each level and its standard error, nats. */
  readonly meanNats: Float64Array;
  readonly standardErrorNats: Float64Array;
  /** Least squares on the level means: c[0] x^2 + c[1] x + c[2]. */
  readonly quadratic: readonly [number, number, number];
  /** Level with the least mean entropy. */
  readonly argminLevel: number;
  /** Where the parabola is least; NaN without curvature. */
  readonly vertex: number;
  /** (first - least) / first and (last - least) / least. */
  readonly dropFromFirst: number;
  readonly riseToLast: number;
  /** Whether the parabola opens upwards and neither end is the least: the point estimate alone. */
  readonly looksUShaped: boolean;
}

/** Least squares of y on 1, x, x^2. Centred and scaled, so that levels far from 0 keep their digits. */
function fitParabola(x: Float64Array, y: Float64Array): [number, number, number] {
  const n = x.length;
  const centre = x.reduce((sum, one) => sum + one, 0) / n;
  const scale = Math.max(...x.map((one) => Math.abs(one - centre)));
  const z = x.map((one) => (one - centre) / scale);
  // Orthogonal polynomials on the levels: 1, z, z^2 - p z - q.
  const sum = (f: (i: number) => number): number => z.reduce((total, _, i) => total + f(i), 0);
  const s2 = sum((i) => z[i] ** 2);
  const p = sum((i) => z[i] ** 3) / s2;
  const q = s2 / n;
  const third = z.map((one) => one ** 2 - p * one - q);
  const a = sum((i) => y[i]) / n;
  const b = sum((i) => y[i] * z[i]) / s2;
  const c = sum((i) => y[i] * third[i]) / sum((i) => third[i] ** 2);
  const quadratic = c / scale ** 2;
  const linear = (b - c * p) / scale - 2 * quadratic * centre;
  return [quadratic, linear, a - c * q - ((b - c * p) / scale) * centre + quadratic * centre ** 2];
}

/** Questions by level, as places. */
function byLevel(level: ArrayLike<number>): { levels: Float64Array; members: number[][] } {
  const found = new Map<number, number[]>();
  for (let i = 0; i < level.length; i++) {
    const members = found.get(level[i]);
    if (members) members.push(i);
    else found.set(level[i], [i]);
  }
  const levels = Float64Array.from(found.keys()).sort();
  return { levels, members: Array.from(levels, (one) => found.get(one) as number[]) };
}

function curveOf(levels: Float64Array, means: Float64Array): Omit<UCurve, 'levels' | 'counts' | 'standardErrorNats'> {
  const quadratic = fitParabola(levels, means);
  let least = 0;
  for (let l = 1; l < means.length; l++) if (means[l] < means[least]) least = l;
  const [first, last] = [means[0], means[means.length - 1]];
  return {
    meanNats: means,
    quadratic,
    argminLevel: levels[least],
    vertex: quadratic[0] === 0 ? Number.NaN : -quadratic[1] / (2 * quadratic[0]),
    dropFromFirst: (first - means[least]) / first,
    riseToLast: (last - means[least]) / means[least],
    looksUShaped: quadratic[0] > 0 && least > 0 && least < means.length - 1,
  };
}

/**
 * The curve of mean entropy over levels.
 * @param level [questions]
 * @param entropyNats [questions]
 * @throws InputError for fewer than three levels
 */
export function uCurve(level: ArrayLike<number>, entropyNats: ArrayLike<number>): UCurve {
  const { levels, members } = byLevel(level);
  if (levels.length < 3) {
    throw new InputError(
      `a curve over difficulty needs at least 3 levels, got ${levels.length}: name their column with --map difficulty=COLUMN`,
    );
  }
  const means = Float64Array.from(members, (own) => own.reduce((sum, i) => sum + entropyNats[i], 0) / own.length);
  const standardErrorNats = Float64Array.from(members, (own, l) => {
    if (own.length < 2) return Number.NaN;
    const squares = own.reduce((sum, i) => sum + (entropyNats[i] - means[l]) ** 2, 0);
    return Math.sqrt(squares / (own.length - 1) / own.length);
  });
  return {
    levels,
    counts: Int32Array.from(members, (own) => own.length),
    standardErrorNats,
    ...curveOf(levels, means),
  };
}

/** Intervals of a curve by resampling questions within their levels. */
export interface UCurveIntervals {
  readonly coverage: number;
  readonly resamples: number;
  readonly quadratic: readonly [low: number, high: number];
  readonly vertex: readonly [low: number, high: number];
  readonly dropFromFirst: readonly [low: number, high: number];
  readonly riseToLast: readonly [low: number, high: number];
  /** U-shaped (spec 8.4): the interval of the quadratic coefficient lies above 0 and the least level is no end. */
  readonly uShaped: boolean;
}

export const U_CURVE_COVERAGE = 0.9;

/**
 * Bootstrap over questions, each level on its own, so that every level stays as large as it is.
 * @throws InputError as `uCurve`
 */
export function uCurveIntervals(
  level: ArrayLike<number>,
  entropyNats: ArrayLike<number>,
  { seed, resamples = 1000, coverage = U_CURVE_COVERAGE }: { seed: number; resamples?: number; coverage?: number },
): UCurveIntervals {
  const curve = uCurve(level, entropyNats);
  const { levels, members } = byLevel(level);
  const random = createRandom(seed).fork(0x75637276);
  const drawn = { quadratic: [] as number[], vertex: [] as number[], drop: [] as number[], rise: [] as number[] };
  for (let draw = 0; draw < resamples; draw++) {
    const means = Float64Array.from(members, (own) => {
      let sum = 0;
      for (let i = 0; i < own.length; i++) sum += entropyNats[own[Math.floor(random.uniform() * own.length)]];
      return sum / own.length;
    });
    const one = curveOf(levels, means);
    drawn.quadratic.push(one.quadratic[0]);
    drawn.vertex.push(one.vertex);
    drawn.drop.push(one.dropFromFirst);
    drawn.rise.push(one.riseToLast);
  }
  const interval = (values: readonly number[]): [number, number] => {
    const sorted = Float64Array.from(values).sort();
    return [quantileOfSorted(sorted, (1 - coverage) / 2), quantileOfSorted(sorted, (1 + coverage) / 2)];
  };
  const quadratic = interval(drawn.quadratic);
  return {
    coverage,
    resamples,
    quadratic,
    vertex: interval(drawn.vertex),
    dropFromFirst: interval(drawn.drop),
    riseToLast: interval(drawn.rise),
    uShaped: quadratic[0] > 0 && curve.looksUShaped,
  };
}
