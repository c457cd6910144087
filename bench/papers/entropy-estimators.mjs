/**
 * How estimators of entropy err, and what bootstrap intervals cover (specification of information measures, F and G).
 * Claims: the plug-in entropy is low by about (K-1)/(2N); Grassberger's correction of 2003 is closer than that of 1988,
 * Miller and Madow's and the jackknife; where samples are few for the symbols, NSB with the support, Chao-Shen and
 * Chao-Wang-Jost are closer still; a resampled plug-in entropy falls again, so that its percentile interval sits too low,
 * and BCa mends it.
 */
import { writeFileSync } from 'node:fs';
import { profileOf } from '../../dist/src/dependence/count-profile.js';
import { drawMultinomial } from '../../dist/src/dependence/draws.js';
import {
  ENTROPY_ESTIMATORS,
  entropyEstimator,
  estimateWithError,
  leaveOneOut,
} from '../../dist/src/dependence/entropy-estimators.js';
import { bootstrapIntervals } from '../../dist/src/dependence/intervals.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const DATA_SETS = 100;
const SIZES = [10, 22, 46, 100, 220, 460, 1000, 2200, 4600, 10000];
const rows = [];
const out = (name) => new URL(`../../docs/papers/${name}`, import.meta.url);

function judge(claim, holds, figures) {
  console.log(`${holds ? 'reproduced' : 'not reproduced'}: ${claim} (${figures})`);
}

function normalised(weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

const LAWS = [
  { name: 'uniform, K = 100', p: new Float64Array(100).fill(0.01) },
  { name: 'Zipf, K = 20', p: normalised(Float64Array.from({ length: 20 }, (_, i) => 1 / (i + 1))) },
  { name: 'Zipf, K = 1000', p: normalised(Float64Array.from({ length: 1000 }, (_, i) => 1 / (i + 1))) },
];
const entropyOf = (p) => -p.reduce((sum, value) => sum + value * Math.log(value), 0);
const shown = ENTROPY_ESTIMATORS.filter(({ name }) => name !== 'ansb');

/** Mean error and root mean square error of every estimator at every size. */
function errorsOf({ name, p }, place) {
  const exact = entropyOf(p);
  const random = createRandom(1).fork(place);
  const counts = new Float64Array(p.length);
  return SIZES.map((size, s) => {
    const errors = shown.map(() => []);
    for (let set = 0; set < DATA_SETS; set++) {
      drawMultinomial(random.fork(s * 100_000 + set), size, p, counts);
      const profile = profileOf(counts);
      for (const [e, estimator] of shown.entries()) errors[e].push(estimator.value(profile, p.length) - exact);
    }
    return errors.map((values, e) => {
      const bias = values.reduce((a, b) => a + b, 0) / DATA_SETS;
      const rmse = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / DATA_SETS);
      rows.push([name, size, shown[e].name, bias, rmse]);
      return { bias, rmse };
    });
  });
}

const results = LAWS.map((law, place) => ({ law, exact: entropyOf(law.p), errors: errorsOf(law, place) }));
const figureOf = (law, size, name) =>
  results[law].errors[SIZES.indexOf(size)][shown.findIndex((estimator) => estimator.name === name)];

{
  const { bias } = figureOf(0, 1000, 'plugin');
  judge(
    'the plug-in entropy is low by (K-1)/(2N)',
    Math.abs(bias / (-99 / 2000) - 1) < 0.1,
    `uniform, N = 1000: ${bias.toFixed(4)} against ${(-99 / 2000).toFixed(4)}`,
  );
}
const worst = (name, sizes) =>
  Math.max(...LAWS.flatMap((_, law) => sizes.map((size) => Math.abs(figureOf(law, size, name).bias))));
const listed = (names, sizes) => names.map((name) => `${name} ${worst(name, sizes).toFixed(3)}`).join(', ');
{
  const sizes = [100, 220, 460, 1000];
  const simple = ['grassberger', 'grassberger-1988', 'jackknife', 'miller-madow', 'plugin'];
  judge(
    "Grassberger's correction of 2003 is closer than the simpler ones: largest bias over the laws, N of 100 to 1,000",
    simple.every((name) => worst('grassberger', sizes) <= worst(name, sizes)),
    listed(simple, sizes),
  );
}
{
  const sizes = [22, 46, 100];
  const few = ['nsb', 'chao-shen', 'chao-wang-jost', 'grassberger'];
  judge(
    'NSB with the support, Chao-Shen and Chao-Wang-Jost are closer still for few samples: largest bias, N of 22 to 100',
    few.every((name) => worst(name, sizes) <= worst('grassberger', sizes)),
    listed(few, sizes),
  );
}

// Coverage of intervals of nominal 95 %.
const SETS = 300;
const REPLICATES = 299;
const coverage = [];
for (const [place, { law, exact }] of results.entries()) {
  for (const name of ['plugin', 'miller-madow', 'grassberger']) {
    const estimator = entropyEstimator(name);
    const size = 1000;
    const hits = { percentile: 0, basic: 0, normal: 0, bca: 0, 'estimate ± 1.96 se': 0 };
    const counts = new Float64Array(law.p.length);
    const drawn = new Float64Array(law.p.length);
    for (let set = 0; set < SETS; set++) {
      const random = createRandom(2).fork(place * 1000 + set);
      drawMultinomial(random, size, law.p, counts);
      const profile = profileOf(counts);
      const estimate = estimateWithError(profile, law.p.length, estimator);
      const replicates = Float64Array.from({ length: REPLICATES }, (_, b) => {
        drawMultinomial(random.fork(b), size, counts, drawn);
        return estimator.value(profileOf(drawn), law.p.length);
      });
      const jackknife = {
        values: leaveOneOut(profile, law.p.length, estimator),
        weights: profile.values.map((count, g) => count * profile.multiplicities[g]),
      };
      const found = bootstrapIntervals(estimate.valueNats, replicates, jackknife);
      for (const method of ['percentile', 'basic', 'normal', 'bca']) {
        if (found[method].low <= exact && exact <= found[method].high) hits[method]++;
      }
      if (Math.abs(exact - estimate.valueNats) <= 1.96 * estimate.seNats) hits['estimate ± 1.96 se']++;
    }
    for (const [method, count] of Object.entries(hits)) {
      coverage.push({ law: law.name, estimator: name, method, share: count / SETS });
      rows.push([law.name, size, `${name}, ${method}`, 'coverage', count / SETS]);
    }
  }
}
console.log('\ncoverage of nominal 95 %, N = 1000');
const methods = ['percentile', 'basic', 'normal', 'bca', 'estimate ± 1.96 se'];
console.log(['law', 'estimator', ...methods].join(' | '));
for (const { law } of results) {
  for (const name of ['plugin', 'miller-madow', 'grassberger']) {
    const shares = methods.map(
      (method) => coverage.find((c) => c.law === law.name && c.estimator === name && c.method === method).share,
    );
    console.log([law.name, name, ...shares.map((share) => share.toFixed(3))].join(' | '));
  }
}

const header = 'law,samples,estimator,bias_nats,rmse_nats';
writeFileSync(
  out('entropy-estimators.csv'),
  `${[header, ...rows.map((row) => row.map((cell) => (String(cell).includes(',') ? `"${cell}"` : cell)).join(','))].join('\n')}\n`,
);
const figure = await chartFigure({
  title: 'Bias of estimators of entropy',
  subtitle: `Means over ${DATA_SETS} samples; supports known to james-stein, dirichlet and nsb`,
  charts: results.map(({ law, exact, errors }) => ({
    kind: 'lines',
    chart: {
      title: `${law.name}: ${exact.toFixed(3)} nats`,
      xLabel: 'samples',
      xScale: 'log',
      yLabel: 'mean error, nats',
      height: 320,
      references: [{ value: 0, label: 'unbiased' }],
      series: shown.map(({ name }, e) => ({ name, x: SIZES, y: errors.map((of) => of[e].bias) })),
    },
  })),
});
writeFileSync(out('entropy-estimators.svg'), await plotBytes(figure, '.svg'));

const share = (law, estimator, method) =>
  coverage.find((c) => c.law === law && c.estimator === estimator && c.method === method).share;
const few = ['percentile', 'bca'].map((method) => share('Zipf, K = 20', 'plugin', method));
judge(
  'the percentile interval of the plug-in entropy sits too low, and BCa mends it: coverage, well sampled',
  few[0] < 0.92 && few[1] > few[0],
  `Zipf, K = 20: ${few.map((value) => value.toFixed(3)).join(' and ')}`,
);
const better = ['bca', 'estimate ± 1.96 se'].map((method) => share('Zipf, K = 20', 'grassberger', method));
judge(
  "BCa of Grassberger's estimate covers as well as the estimate ± 1.96 se, well sampled",
  better[0] >= better[1] - 0.02,
  `Zipf, K = 20: ${better.map((value) => value.toFixed(3)).join(' and ')}`,
);
judge(
  'BCa covers where the bias is larger than the spread',
  share('Zipf, K = 1000', 'grassberger', 'bca') > 0.9,
  `Zipf, K = 1000: ${share('Zipf, K = 1000', 'grassberger', 'bca')}; of the estimate ± 1.96 se ${share('Zipf, K = 1000', 'grassberger', 'estimate ± 1.96 se')}`,
);
