/**
 * Forks of reasoning by the entropy of windows (ARES; specification of policies, section 4). Claim: against bursts planted in
 * synthetic traces, the F1 of fork detection by window width w peaks at 4 to 8; single tokens are too noisy, 16 to 32 dilute.
 */
import { writeFileSync } from 'node:fs';
import { forkPoints } from '../../dist/src/policy/ares/fork-points.js';
import { percentile, windowMeans, windowRegions } from '../../dist/src/policy/ares/window-entropy.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const WIDTHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const SEEDS = 10;
const TRACES = 60;
const LENGTH = 600;
const BURSTS = 6;
/** A fork is right when it stands this near to where a burst begins. */
const NEAR = 6;
/** Thresholds that are tried: percentiles of the window means of a response, averaged over responses. */
const PERCENTS = [70, 75, 80, 85, 88, 90, 92, 94, 95, 96, 97, 98, 99, 99.5];

const exponential = (random, mean) => -mean * Math.log(1 - random.uniform());

/**
 * Entropies as those of language models: mostly near 0 with isolated uncertain tokens (names, numbers, synonyms), and bursts of
 * 4 to 9 tokens that are uncertain together, with certain tokens among them.
 */
function traceOf(random) {
  const entropy = new Float64Array(LENGTH);
  for (let t = 0; t < LENGTH; t++) {
    const lone = random.uniform() < 0.1;
    entropy[t] = lone ? 1 + exponential(random, 0.7) : exponential(random, 0.25);
  }
  const bursts = [];
  const slot = LENGTH / BURSTS;
  for (let b = 0; b < BURSTS; b++) {
    const length = 4 + random.integer(6);
    const start = Math.floor(b * slot) + random.integer(Math.floor(slot) - length - NEAR);
    bursts.push({ start, end: start + length });
    for (let t = start; t < start + length; t++)
      entropy[t] = random.uniform() < 0.2 ? exponential(random, 0.25) : 0.6 + exponential(random, 0.8);
  }
  return { entropy, bursts };
}

/** How a fork can be right: it stands near the start of a burst, or its region of windows overlaps one. Each burst counts once. */
const CRITERIA = {
  near: (means, threshold, width, bursts) =>
    matched(
      forkPoints(means, threshold, width, LENGTH),
      bursts,
      ({ position }, { start }) => Math.abs(position - start) <= NEAR,
    ),
  overlap: (means, threshold, width, bursts) =>
    matched(
      windowRegions(means, threshold),
      bursts,
      ({ from, to }, { start, end }) => from < end && to + width > start,
    ),
};

function matched(forks, bursts, fits) {
  let right = 0;
  const open = new Set(bursts);
  for (const fork of forks) {
    for (const burst of open) {
      if (!fits(fork, burst)) continue;
      open.delete(burst);
      right++;
      break;
    }
  }
  return { right, forks: forks.length, bursts: bursts.length };
}

/** F1 over traces at the threshold of one percentile. */
function scoreAt(traces, width, percent, criterion) {
  const means = traces.map(({ entropy }) => windowMeans(entropy, width));
  const threshold = means.reduce((sum, one) => sum + percentile(one, percent), 0) / means.length;
  const total = { right: 0, forks: 0, bursts: 0 };
  traces.forEach(({ bursts }, i) => {
    const one = CRITERIA[criterion](means[i], threshold, width, bursts);
    for (const key of Object.keys(total)) total[key] += one[key];
  });
  const precision = total.forks === 0 ? 0 : total.right / total.forks;
  const recall = total.right / total.bursts;
  return { percent, precision, recall, f1: (2 * total.right) / (total.forks + total.bursts) };
}

/** The percentile that is best on some traces, judged on others. */
function scoreOf(chosen, judged, width, criterion) {
  const scores = PERCENTS.map((percent) => scoreAt(chosen, width, percent, criterion));
  const { percent } = scores.reduce((top, one) => (one.f1 > top.f1 ? one : top));
  return scoreAt(judged, width, percent, criterion);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const errorOf = (values) => {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (values.length - 1) / values.length);
};

const rows = WIDTHS.map((width) => {
  const best = [];
  const fixed = [];
  const overlap = [];
  for (let seed = 0; seed < SEEDS; seed++) {
    const random = createRandom(seed);
    const [chosen, judged] = [0, 1].map((half) =>
      Array.from({ length: TRACES }, (_, i) => traceOf(random.fork(2 * i + half))),
    );
    best.push(scoreOf(chosen, judged, width, 'near'));
    overlap.push(scoreOf(chosen, judged, width, 'overlap'));
    fixed.push(scoreAt(judged, width, 95, 'near'));
  }
  const of = (list, key) => list.map((one) => one[key]);
  return {
    width,
    f1: mean(of(best, 'f1')),
    f1Error: errorOf(of(best, 'f1')),
    precision: mean(of(best, 'precision')),
    recall: mean(of(best, 'recall')),
    percent: mean(of(best, 'percent')),
    fixed: mean(of(fixed, 'f1')),
    fixedError: errorOf(of(fixed, 'f1')),
    overlap: mean(of(overlap, 'f1')),
    overlapError: errorOf(of(overlap, 'f1')),
  };
});

const csv = [
  'window_tokens,f1,f1_se,precision,recall,chosen_percentile,f1_percentile_95,f1_percentile_95_se,f1_overlap,f1_overlap_se',
  ...rows.map((r) =>
    [r.width, r.f1, r.f1Error, r.precision, r.recall, r.percent, r.fixed, r.fixedError, r.overlap, r.overlapError].join(
      ',',
    ),
  ),
];
writeFileSync('docs/papers/window-entropy.csv', `${csv.join('\n')}\n`);
const figure = await chartFigure({
  title: 'Fork detection by the width of the window',
  subtitle: `${SEEDS} seeds of ${2 * TRACES} traces of ${LENGTH} tokens with ${BURSTS} bursts of 4 to 9 tokens`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'F1 of planted bursts',
        note: 'Bands: one standard error over seeds. The threshold is chosen on other traces, or the 95th percentile of window means.',
        xLabel: 'window, tokens',
        yLabel: 'F1',
        xScale: 'log',
        yZero: true,
        width: 964,
        series: [
          {
            name: 'near the start of a burst',
            x: WIDTHS,
            y: rows.map((r) => r.f1),
            standardError: rows.map((r) => r.f1Error),
          },
          {
            name: 'near, 95th percentile',
            x: WIDTHS,
            y: rows.map((r) => r.fixed),
            standardError: rows.map((r) => r.fixedError),
          },
          {
            name: 'regions that overlap a burst',
            x: WIDTHS,
            y: rows.map((r) => r.overlap),
            standardError: rows.map((r) => r.overlapError),
          },
        ],
      },
    },
  ],
});
writeFileSync('docs/papers/window-entropy.svg', await plotBytes(figure, 'window-entropy.svg'));

for (const r of rows)
  console.log(
    `w ${String(r.width).padStart(2)}  F1 ${r.f1.toFixed(3)} ± ${r.f1Error.toFixed(3)}  precision ${r.precision.toFixed(3)}  recall ${r.recall.toFixed(3)}  at percentile ${r.percent.toFixed(1)}; at 95: ${r.fixed.toFixed(3)}; overlap: ${r.overlap.toFixed(3)}`,
  );
const top = rows.reduce((a, b) => (b.f1 > a.f1 ? b : a));
console.log(`best width ${top.width}: ${top.width >= 4 && top.width <= 8 ? 'reproduced' : 'not reproduced'}`);
