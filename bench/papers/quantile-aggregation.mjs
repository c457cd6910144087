/**
 * Flexible aggregation of quantile forecasts (Fakoor et al. 2023; specification of fusion, section F). Claims of its
 * small experiment: where one model is right in the lower tail and another in the upper, weights a level (medium) beat
 * weights a model (coarse); where a feature says which model is right, local weights beat global ones; conformal
 * intervals restore coverage within 1/(n+1) and noise. And on real forecasts: aggregation against the best single model
 * and the equal average. Made data with four seeds; the diabetes table with out-of-fold forecasts and five splits; the
 * surprisals of a language model's tokens, forecast from what came before, split in order.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];
const NORMAL = [-1.644854, -1.281552, -0.67449, 0, 0.67449, 1.281552, 1.644854];
const SEEDS = 4;
const SPLITS = 5;
/** Rows of each made data set; 60 % fit, 20 % calibrate, 20 % test. */
const ROWS = 1500;
const TRIALS = 2;
const STEPS = 1500;
const METHODS = [
  ...['best-single', 'average', 'median', 'linear-pool', 'coarse', 'medium', 'fine'],
  ...['local-coarse', 'local-medium', 'local-fine'],
];
/** Surprisals of the bundled model on the documents of the bundled text; only the longest ones. */
const TOKENS = 6000;

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));

function surprisal(...words) {
  const { status } = spawnSync(process.execPath, ['bin/surprisal.js', ...words, '--quiet', '--force'], {
    stdio: ['ignore', 'inherit', 'ignore'],
  });
  if (status !== 0) throw new Error(`surprisal ${words.join(' ')} ended with ${status}`);
}

/** Runs fuse quantiles on rows {y, features, forecasts: {model: [m]}} and gives its report. */
function fuse(rows, seed, ...words) {
  const models = Object.keys(rows[0].forecasts);
  const features = rows[0].features.map((_, c) => `x${c}`);
  const header = ['y', ...features, ...models.flatMap((model) => LEVELS.map((level) => `${model}@${level}`))];
  const lines = rows.map(({ y, features: x, forecasts }) => [y, ...x, ...models.flatMap((model) => forecasts[model])]);
  const [data, report] = ['forecasts.csv', 'report.json'].map((name) => join(scratch, name));
  writeFileSync(data, `${[header, ...lines].map((cells) => cells.join(',')).join('\n')}\n`);
  surprisal(
    ...['fuse', 'quantiles', '--data', data, '--features', features.join(','), '--report', report],
    ...['--method', METHODS.join(','), '--trials', String(TRIALS), '--max-steps', String(STEPS)],
    ...['--seed', String(seed), ...words],
  );
  return JSON.parse(readFileSync(report, 'utf8'));
}

/** Normal outcomes of growing spread. `tails`: A doubles the upper half, B the lower. `switched`: x says who is right. */
function made(kind, seed) {
  const random = createRandom(seed);
  return Array.from({ length: ROWS }, () => {
    const x = 2 * random.uniform() - 1;
    const spread = 0.5 + Math.abs(x);
    const y = 2 * x + spread * random.normal();
    const noise = () => 0.15 * random.normal();
    const forecast = (shift, lower, upper) => {
      const error = noise();
      return NORMAL.map((z) => 2 * x + shift + spread * z * (z < 0 ? lower : upper) + error);
    };
    const forecasts =
      kind === 'tails'
        ? { A: forecast(0, 1, 2), B: forecast(0, 2, 1), C: forecast(0.5, 1.3, 1.3) }
        : {
            A: forecast(x > 0 ? 0 : 1.5, 1, 1),
            B: forecast(x > 0 ? -1.5 : 0, 1, 1),
            C: forecast(0.3, 1.6, 1.6),
          };
    return { y, features: [x], forecasts };
  });
}

const quantileOf = (sorted, level) => {
  const at = level * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};
const quantilesOf = (values) => {
  const sorted = Float64Array.from(values).sort();
  return LEVELS.map((level) => quantileOf(sorted, level));
};

/** Least squares with a small ridge: coefficients of [1, x]. */
function regress(xs, ys) {
  const d = xs[0].length + 1;
  const a = Array.from({ length: d }, () => new Float64Array(d + 1));
  xs.forEach((x, i) => {
    const row = [1, ...x];
    for (let r = 0; r < d; r++) {
      for (let c = 0; c < d; c++) a[r][c] += row[r] * row[c];
      a[r][d] += row[r] * ys[i];
    }
  });
  for (let r = 0; r < d; r++) a[r][r] += 1e-6 * xs.length;
  for (let r = 0; r < d; r++) {
    for (let other = 0; other < d; other++) {
      if (other === r) continue;
      const factor = a[other][r] / a[r][r];
      for (let c = r; c <= d; c++) a[other][c] -= factor * a[r][c];
    }
  }
  return a.map((row, r) => row[d] / row[r]);
}
const predict = (beta, x) => x.reduce((sum, value, c) => sum + beta[c + 1] * value, beta[0]);

/** Out-of-fold forecasts of disease progression by five simple models (fixtures/tables/make-diabetes-quantiles.mjs). */
function diabetes() {
  const [head, ...lines] = readFileSync('fixtures/tables/diabetes-quantiles.csv', 'utf8').trimEnd().split('\n');
  const names = head.split(',');
  return lines.map((line) => {
    const cells = line.split(',').map(Number);
    const forecasts = {};
    names.forEach((name, c) => {
      const [model, level] = name.split('@');
      if (level === undefined) return;
      forecasts[model] ??= [];
      forecasts[model].push(cells[c]);
    });
    return { y: cells[1], features: cells.slice(2, 4), forecasts };
  });
}

/** One-step forecasts of token surprisals from what is known before the token; models are fitted on the first third. */
function tokens() {
  const table = join(scratch, 'tokens.csv');
  surprisal(
    ...['analyze-entropy', 'tokens', '--model', 'fixtures/models/llama-sotu'],
    ...['--data', 'fixtures/text/heldout_text.jsonl', '--out', table],
  );
  const [head, ...lines] = readFileSync(table, 'utf8').trimEnd().split('\n');
  const names = head.split(',');
  // The quoted text of tokens stands before the numbers: places are counted from the end.
  const place = (name) => names.indexOf(name) - names.length;
  const [s, h] = [place('surprisal_nats'), place('entropy_nats')];
  const series = lines.slice(0, TOKENS).map((line) => {
    const cells = line.split(',');
    return { surprisal: Number(cells.at(s)), entropy: Number(cells.at(h)) };
  });
  const first = Math.floor(series.length / 3);
  const known = series.slice(0, first);
  const climate = quantilesOf(known.map(({ surprisal: value }) => value));
  const binned = (feature, bins) => {
    const edges = Float64Array.from(known.slice(1), (_, i) => feature(series, i + 1)).sort();
    const cuts = Array.from({ length: bins - 1 }, (_, b) => quantileOf(edges, (b + 1) / bins));
    const binOf = (i) => cuts.filter((cut) => feature(series, i) >= cut).length;
    const held = Array.from({ length: bins }, () => []);
    for (let i = 1; i < first; i++) held[binOf(i)].push(series[i].surprisal);
    const table = held.map(quantilesOf);
    return (i) => table[binOf(i)];
  };
  const byEntropy = binned((all, i) => all[i].entropy, 12);
  const byPrevious = binned((all, i) => all[i - 1].surprisal, 8);
  const line = regress(
    known.map(({ entropy }) => [entropy]),
    known.map(({ surprisal: value }) => value),
  );
  const spread = Math.sqrt(
    known.reduce((sum, { surprisal: value, entropy }) => sum + (value - predict(line, [entropy])) ** 2, 0) / first,
  );
  const rows = [];
  for (let i = first; i < series.length; i++) {
    const { surprisal: y, entropy } = series[i];
    rows.push({
      y,
      features: [entropy, series[i - 1].surprisal],
      forecasts: {
        climatology: climate,
        window: quantilesOf(series.slice(i - 100, i).map((entry) => entry.surprisal)),
        entropy: byEntropy(i),
        previous: byPrevious(i),
        normal: NORMAL.map((z) => predict(line, [entropy]) + spread * z),
      },
    });
  }
  return rows;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) =>
  Math.sqrt(values.reduce((sum, v) => sum + (v - mean(values)) ** 2, 0) / (values.length - 1));
const lossesOf = (report) =>
  Object.fromEntries(report.methods.map(({ name, test_mean_pinball }) => [name, test_mean_pinball]));

const sets = [];
const run = (name, reports, note) => {
  sets.push({ name, reports, losses: reports.map(lossesOf), note });
  console.error(`${name}: done`);
};
try {
  for (const kind of ['tails', 'switched']) {
    run(
      kind,
      Array.from({ length: SEEDS }, (_, seed) => fuse(made(kind, seed), seed)),
      `${SEEDS} seeds`,
    );
  }
  const patients = diabetes();
  run(
    'diabetes',
    Array.from({ length: SPLITS }, (_, seed) => fuse(patients, seed)),
    `${SPLITS} splits`,
  );
  run('surprisals', [fuse(tokens(), 0, '--split-by', 'order')], 'in order');
} finally {
  rmSync(scratch, { recursive: true });
}

// Ratios to the equal average; means over seeds.
const rows = METHODS.map((method) => ({
  method,
  cells: sets.map(({ losses }) => {
    const ratios = losses.map((of) => of[method] / of.average);
    return {
      loss: mean(losses.map((of) => of[method])),
      ratio: mean(ratios),
      sd: ratios.length > 1 ? deviation(ratios) : 0,
    };
  }),
}));
writeFileSync(
  'docs/papers/quantile-aggregation.csv',
  `method,${sets.flatMap(({ name }) => [`${name}_pinball`, `${name}_over_average`, `${name}_over_average_sd`]).join(',')}\n${rows
    .map(({ method, cells }) => [method, ...cells.flatMap(({ loss, ratio, sd }) => [loss, ratio, sd])].join(','))
    .join('\n')}\n`,
);
for (const { method, cells } of rows) {
  console.log(
    `| ${method} | ${cells.map(({ loss, ratio }) => `${loss.toPrecision(4)} (${ratio.toFixed(3)})`).join(' | ')} |`,
  );
}

/** Paired difference a - b over seeds (over rows where there is one run) with its standard error. */
function paired({ losses, reports }, a, b) {
  if (losses.length > 1) {
    const differences = losses.map((of) => of[a] - of[b]);
    return { difference: mean(differences), error: deviation(differences) / Math.sqrt(differences.length) };
  }
  const found = reports[0].differences.find(
    (entry) => [entry.method, entry.against].includes(a) && [entry.method, entry.against].includes(b),
  );
  const sign = found.method === a ? 1 : -1;
  return { difference: sign * found.mean_pinball_difference, error: found.standard_error };
}
const claim = (text, set, better, worse) => {
  const { difference, error } = paired(set, better, worse);
  const verdict = difference < -2 * error ? 'reproduced' : 'not reproduced';
  console.log(`${verdict}: ${text} (${set.name}: ${difference.toPrecision(3)} ± ${error.toPrecision(2)})`);
};
const [tails, switched, patients, series] = sets;
claim('medium beats coarse', tails, 'medium', 'coarse');
claim('coarse beats the best single model', tails, 'coarse', 'best-single');
claim('local beats global weights', switched, 'local-coarse', 'coarse');
claim('local beats global weights', switched, 'local-medium', 'medium');
for (const set of [patients, series]) {
  for (const method of ['coarse', 'medium', 'fine', 'local-coarse', 'local-medium', 'local-fine']) {
    claim(`${method} beats the best single model`, set, method, 'best-single');
    claim(`${method} beats the equal average`, set, method, 'average');
  }
}

// Conformal coverage of the method of each set, pooled over seeds: nominal to nominal + 1/(n+1), with the noise of test and calibration rows.
const coverage = [];
for (const set of sets) {
  for (const name of METHODS) {
    const reports = set.reports.map((report) => report.methods.find((method) => method.name === name));
    reports[0].scores.non_crossing.intervals.forEach(({ nominal_coverage: nominal }, at) => {
      const before = mean(reports.map(({ scores }) => scores.non_crossing.intervals[at].coverage));
      const after = mean(reports.map(({ scores }) => scores.conformal.intervals[at].coverage));
      const { calibration_rows: n, test_rows: t } = set.reports[0];
      const noise = Math.sqrt((nominal * (1 - nominal) * (1 / n + 1 / t)) / reports.length);
      const within = after > nominal - 2.5 * noise && after < nominal + 1 / (n + 1) + 2.5 * noise;
      coverage.push({ set: set.name, name, nominal, before, after, noise, within });
    });
  }
}
for (const { name } of sets) {
  const of = coverage.filter((entry) => entry.set === name);
  const worst = (key) => Math.max(...of.map((entry) => Math.abs(entry[key] - entry.nominal)));
  console.log(
    `${name}: worst |coverage - nominal| ${worst('before').toFixed(3)} before, ${worst('after').toFixed(3)} after; ` +
      `${of.filter(({ within }) => within).length} of ${of.length} within 1/(n+1) and 2.5 s.e.`,
  );
}
const nested = sets.flatMap(({ reports }) => reports).filter(({ nesting }) => nesting?.holds === true).length;
console.log(`nesting of the fits holds in ${nested} of ${sets.flatMap(({ reports }) => reports).length} runs`);

const figure = await chartFigure({
  title: 'Quantile aggregation against the equal average',
  subtitle:
    'Test pinball loss over that of the equal average, less 1, means over seeds or splits; coverage before and after conformal correction',
  charts: [
    {
      kind: 'heat-map',
      chart: {
        title: 'Pinball loss over that of the equal average',
        note: 'Below 0 is better.',
        rows: METHODS,
        columns: sets.map(({ name, note }) => `${name} (${note})`),
        rowLabel: 'method',
        columnLabel: 'data',
        values: rows.flatMap(({ cells }) => cells.map(({ ratio }) => ratio - 1)),
        valueLabel: 'ratio less 1',
        kind: 'signed',
        width: 620,
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Coverage of central intervals on tails',
        note: 'Best single model and equal average, before and after conformal correction.',
        xLabel: 'nominal coverage',
        yLabel: 'coverage less nominal',
        series: ['best-single', 'average'].flatMap((name, colour) =>
          ['before', 'after'].map((key) => {
            const of = coverage.filter((entry) => entry.set === 'tails' && entry.name === name);
            return {
              name: `${name} ${key}`,
              x: of.map(({ nominal }) => nominal),
              y: of.map((entry) => entry[key] - entry.nominal),
              dashed: key === 'before',
              colour,
            };
          }),
        ),
        references: [{ value: 0, label: 'nominal' }],
      },
    },
  ],
});
writeFileSync('docs/papers/quantile-aggregation.svg', await plotBytes(figure, 'quantile-aggregation.svg'));
