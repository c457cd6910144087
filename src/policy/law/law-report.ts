import type { Cell } from '../../report/csv.js';
import { type BothIntervals, extrapolation, type LawAnalysis, type RunLaw } from './law-analysis.js';
import type { LawInterval, LawIntervals } from './law-bootstrap.js';
import { type LawFit, predictLaw } from './law-fit.js';

/** Schema of the report. */
export const LAW_SCHEMA = 'policy-law';

/** Columns of the table of points. */
export const LAW_COLUMNS = [
  'run',
  'step',
  'entropy_nats',
  'performance',
  'fit',
  'residual',
  'part',
  'early_fit',
  'early_low',
  'early_high',
] as const;

/** What not to read into a fitted law. */
export const CAUTIONS = [
  'The ceiling is a property of the stretch that was fitted, not of the task: in the laboratory, the law of the first steps of runs under KL-Cov or Clip-Cov says the plateau of the plain run, which they leave behind.',
  'The law describes one recipe. Another algorithm, other data or another intervention has another a and b; a ceiling is no bound on what they reach.',
  'The ceiling is the value at H = 0, where no point lies: the less of the entropy is spent, the further it is extrapolated.',
  'A good fit does not say that entropy causes performance: both change with the steps, and any two such curves fit a line well.',
  'Points of neighbouring steps depend on each other, so that intervals from points drawn alone are too narrow; those from blocks are less so.',
] as const;

const fitBody = (fit: LawFit) => ({
  points: fit.points,
  a: fit.a,
  a_se: fit.aError,
  b: fit.b,
  b_se: fit.bError,
  ceiling: fit.ceiling,
  ceiling_se: fit.ceilingError,
  rmse: fit.rmse,
  r2: fit.r2,
});

const intervalBody = ({ low, high, standardError }: LawInterval) => ({ low, high, se: standardError });

const intervalsBody = (found: LawIntervals | undefined) =>
  found === undefined
    ? null
    : {
        block: found.block,
        draws: found.draws,
        redrawn: found.redrawn,
        a: intervalBody(found.a),
        b: intervalBody(found.b),
        ceiling: intervalBody(found.ceiling),
      };

const bothBody = ({ points, blocks }: BothIntervals) => ({
  points: intervalsBody(points),
  blocks: intervalsBody(blocks),
});

function runBody({ joined, fit, intervals, autocorrelation, early }: RunLaw) {
  const { entropy, step } = joined;
  const { span, distance } = extrapolation(entropy);
  return {
    run: joined.run,
    params: joined.params ?? null,
    first_step: step[0],
    last_step: step[step.length - 1],
    entropy_low_nats: entropy.reduce((least, one) => Math.min(least, one), Number.POSITIVE_INFINITY),
    entropy_high_nats: entropy.reduce((most, one) => Math.max(most, one), Number.NEGATIVE_INFINITY),
    extrapolation: distance / span,
    entropy_only_steps: joined.entropyOnly.length,
    evaluation_only_steps: joined.evaluationOnly,
    applicable: fit.a > 0,
    fit: fitBody(fit),
    residual_autocorrelation: autocorrelation,
    intervals: bothBody(intervals),
    early:
      early === undefined
        ? null
        : {
            last_step: step[early.points - 1],
            fit: fitBody(early.fit),
            intervals: bothBody(early.intervals),
            predicted_points: early.predicted.length,
            prediction_rmse: early.rmse,
            prediction_bias: early.bias,
            final_absolute_error: early.finalAbsoluteError,
            interval_coverage: early.coverage,
          },
  };
}

/** Body of the report. `level` is the coverage of all intervals. */
export function lawBody({ runs, scaling, warnings }: LawAnalysis, level: number) {
  return {
    level,
    runs: runs.map(runBody),
    scaling:
      scaling === undefined
        ? null
        : {
            runs: scaling.runs,
            a: lineBody(scaling.a),
            b: lineBody(scaling.b),
            predicted: scaling.predicted,
          },
    cautions: [...CAUTIONS],
    warnings: [...warnings],
  };
}

const lineBody = (line: {
  slope: number;
  slopeError: number;
  intercept: number;
  interceptError: number;
  r2: number;
}) => ({
  slope: line.slope,
  slope_se: line.slopeError,
  intercept: line.intercept,
  intercept_se: line.interceptError,
  r2: line.r2,
});

/** Rows of the table: every point, the law, and what the early points said of it. */
export function* lawRows({ runs }: LawAnalysis): Generator<readonly Cell[]> {
  for (const { joined, fit, early } of runs) {
    const { step, entropy, performance, run } = joined;
    const fitted = predictLaw(fit, entropy);
    const earlyFitted = early && predictLaw(early.fit, entropy);
    for (let i = 0; i < step.length; i++) {
      const later = early === undefined ? -1 : i - early.points;
      const half = later < 0 ? undefined : early?.halfWidth[later];
      const said = earlyFitted?.[i];
      yield [
        ...[run, step[i], entropy[i], performance[i], fitted[i], performance[i] - fitted[i]],
        early === undefined ? '' : later < 0 ? 'early' : 'predicted',
        said,
        ...(said === undefined || half === undefined ? [undefined, undefined] : [said - half, said + half]),
      ];
    }
  }
}
