/**
 * Evidence fusion on substitutions between elements (Ha et al. 2025; specification of fusion, section E). Claim: fused
 * sources beat each single source when one element is held out. Made-up elements in three hidden groups of five, alloys of
 * four of them, High by the groups alone; three experts that judge pairs of elements and are wrong now and then, each in
 * another way. Held out: all alloys with one element, one element after the other; and a fifth of the alloys at random.
 * Writes docs/papers/evidence-fusion.csv and .svg. Usage, after `npm run build`: node bench/papers/evidence-fusion.mjs
 */
import { writeFileSync } from 'node:fs';
import { alloyTable } from '../../dist/src/fusion/evidence/alloy-table.js';
import { evaluate } from '../../dist/src/fusion/evidence/evaluate.js';
import { combinationsOf } from '../../dist/src/fusion/evidence/exchanges.js';
import { expertMasses } from '../../dist/src/fusion/evidence/experts.js';
import { DATA_RELIABILITY } from '../../dist/src/fusion/evidence/fuse-sources.js';
import { meanAndError } from '../../dist/src/fusion/evidence/label-scores.js';
import { uniformPrior } from '../../dist/src/fusion/evidence/predict.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const SEEDS = 20;
const SIZES = [60, 120, 240, 480];
const GROUPS = ['A', 'B', 'C'];
const ELEMENTS = GROUPS.flatMap((group) => [1, 2, 3, 4, 5].map((i) => `${group}${i}`));
const WRONG_LABELS = 0.05;
/** Shares of pairs that an expert does not judge, calls medium, and gets wrong. */
const EXPERTS = [
  { name: 'expert 1', silent: 0.1, medium: 0.2, wrong: 0.1 },
  { name: 'expert 2', silent: 0.3, medium: 0.1, wrong: 0.15 },
  { name: 'expert 3', silent: 0.2, medium: 0.2, wrong: 0.2 },
];
const METRICS = { auc: 'AUC', accuracy: 'accuracy', macroF1: 'macro F1', brier: 'Brier' };

const group = (element) => element[0];

/** High: two or three elements of A, and at least one of B. */
function isHigh(set) {
  const count = (name) => set.filter((element) => group(element) === name).length;
  return (count('A') === 2 || count('A') === 3) && count('B') > 0;
}

function quaternaries() {
  const all = [];
  const n = ELEMENTS.length;
  for (let a = 0; a < n; a++)
    for (let b = a + 1; b < n; b++)
      for (let c = b + 1; c < n; c++) for (let d = c + 1; d < n; d++) all.push([a, b, c, d].map((e) => ELEMENTS[e]));
  return all;
}

function answersOf({ name, silent, medium, wrong }, random) {
  const answers = ELEMENTS.flatMap((first, i) =>
    ELEMENTS.slice(i + 1).map((second) => {
      const draw = random.uniform();
      const same = group(first) === group(second);
      let judgement = { kind: 'answers', canJudge: 'Yes', similarity: same ? 'High' : 'Low' };
      if (draw < silent) judgement = { kind: 'answers', canJudge: 'No', similarity: 'No' };
      else if (draw < silent + medium) judgement = { kind: 'answers', canJudge: 'Yes', similarity: 'Medium' };
      else if (draw < silent + medium + wrong) judgement.similarity = same ? 'Low' : 'High';
      return { first, second, where: name, judgement };
    }),
  );
  return { name, answers };
}

function setupOf(seed, size) {
  const random = createRandom(seed);
  const all = quaternaries();
  const rows = Array.from(random.permutation(all.length).subarray(0, size), (i) => {
    const high = isHigh(all[i]) !== random.uniform() < WRONG_LABELS;
    return { set: all[i], label: high ? 'High' : 'Low', where: '' };
  });
  const experts = EXPERTS.map((expert, e) => answersOf(expert, random.fork(e + 1)));
  return {
    table: alloyTable(ELEMENTS, rows),
    combinations: combinationsOf(ELEMENTS, 1),
    experts: expertMasses(ELEMENTS, experts),
    settings: { alpha: 0.1, version: 'v1' },
    discount: { factor: DATA_RELIABILITY, mode: 'once' },
    folds: 10,
    seed,
    prior: uniformPrior(2),
  };
}

const KINDS = ['leave-one-element-out', 'random'];
const results = [];
for (const size of SIZES) {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const setup = setupOf(seed, size);
    for (const kind of KINDS) {
      const { methods, pooled } = evaluate(setup, { kind, splits: 5, testShare: 0.2 });
      methods.forEach((method, m) => {
        results.push({ kind, size, seed, method, ...pooled[m] });
      });
    }
  }
}
const methods = [...new Set(results.map(({ method }) => method))];
const of = (kind, size, method) =>
  results.filter((row) => row.kind === kind && row.size === size && row.method === method);

const lines = ['held_out,alloys,method,metric,mean,se,seeds,fused_ahead,fused_ahead_se,seeds_fused_ahead'];
const table = [];
for (const kind of KINDS) {
  for (const size of SIZES) {
    const fused = of(kind, size, 'fused');
    for (const method of methods) {
      const own = of(kind, size, method);
      for (const metric of Object.keys(METRICS)) {
        const { mean, se } = meanAndError(own.map((row) => row[metric]));
        const sign = metric === 'brier' ? -1 : 1;
        const ahead = own.map((row, i) => sign * (fused[i][metric] - row[metric]));
        const gap = meanAndError(ahead);
        const wins = ahead.filter((value) => value > 0).length;
        const numbers = [mean, se, SEEDS, gap.mean, gap.se, wins];
        const cells = numbers.map((value) => Number(value.toPrecision(6)));
        lines.push([kind, size, method, METRICS[metric], ...cells].join(','));
        table.push({ kind, size, method, metric, mean, se, gap, wins });
      }
    }
  }
}
writeFileSync('docs/papers/evidence-fusion.csv', `${lines.join('\n')}\n`);

const entry = (kind, size, method, metric) =>
  table.find((row) => row.kind === kind && row.size === size && row.method === method && row.metric === metric);
for (const kind of KINDS) {
  for (const size of SIZES) {
    for (const method of methods) {
      const [auc, accuracy] = ['auc', 'accuracy'].map((metric) => entry(kind, size, method, metric));
      const text = (found) => `${found.mean.toFixed(3)} ± ${found.se.toFixed(3)}`;
      const gap = `fused ahead ${auc.gap.mean.toFixed(3)} ± ${auc.gap.se.toFixed(3)} (${auc.wins} of ${SEEDS})`;
      console.log(`${kind} ${size} ${method}: AUC ${text(auc)}, accuracy ${text(accuracy)}; ${gap}`);
    }
  }
}
const figure = await chartFigure({
  title: 'Evidence fusion against single sources',
  subtitle: `Made-up alloys of 15 elements in three hidden groups, ${SEEDS} seeds, bands of one standard error.`,
  headline: [],
  charts: KINDS.flatMap((kind) =>
    ['auc', 'accuracy'].map((metric) => ({
      kind: 'lines',
      chart: {
        title: `${METRICS[metric]}, ${kind === 'random' ? 'a fifth held out at random' : 'one element held out'}`,
        xLabel: 'alloys',
        yLabel: METRICS[metric],
        xScale: 'log',
        series: methods.map((method) => ({
          name: method,
          x: SIZES,
          y: SIZES.map((size) => entry(kind, size, method, metric).mean),
          standardError: SIZES.map((size) => entry(kind, size, method, metric).se),
        })),
      },
    })),
  ),
});
writeFileSync('docs/papers/evidence-fusion.svg', await plotBytes(figure, 'evidence-fusion.svg'));
