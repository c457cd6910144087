/**
 * STEER (2025; specification of policies, section 2). Claims: the token-level estimate says how an update changes the entropy;
 * weights that shrink the tokens of a large estimate hold the entropy up, even with a clip that clips nothing, and performance
 * rises. Estimates against exact changes in random softmaxes; training on the shared lock, ten seeds.
 */
import { writeFileSync } from 'node:fs';
import { softmaxEntropy } from '../../dist/src/policy/entropy-change.js';
import { entropySlope, steerOmega } from '../../dist/src/policy/entropy-change-estimates.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { bandOf, mean, shown, standardError, trainLab } from '../lab-runs.mjs';

const SEEDS = 10;
const METHODS = [
  'plain=grpo:dual-clip=0',
  'plain, clip 0.99/5=grpo:clip-low=0.99,clip-high=5,dual-clip=10',
  'STEER exp 0.1=steer:weight-min=0.1',
  'STEER exp 0.8=steer:weight-min=0.8',
  'STEER linear 0.8-1.2=steer:mapping=linear,weight-min=0.8,weight-max=1.2',
  'STEER exp 0.1, clip 0.99/5=steer:weight-min=0.1,clip-low=0.99,clip-high=5',
];
const AT = [0, 50, 100, 200, 499];
/** Entropy that counts as spent. */
const SPENT = 0.1;
const STATES = 20000;

/** Estimates and exact changes of entropy by one small step on one sampled token, in random softmaxes. */
function estimates(vocabulary, eta) {
  const random = createRandom(11);
  const rows = [];
  for (let n = 0; n < STATES; n++) {
    const spread = 0.5 + 3 * random.uniform();
    const logits = Float64Array.from({ length: vocabulary }, () => spread * random.normal());
    const largest = Math.max(...logits);
    const sum = logits.reduce((total, z) => total + Math.exp(z - largest), 0);
    const logProbs = logits.map((z) => z - largest - Math.log(sum));
    const entropy = softmaxEntropy(logits);
    let left = random.uniform();
    let token = 0;
    for (; token < vocabulary - 1; token++) {
      left -= Math.exp(logProbs[token]);
      if (left < 0) break;
    }
    const advantage = random.normal();
    // One step on A rho: dz_v = eta A ([v = a] - p_v).
    const moved = logits.map((z, v) => z + eta * advantage * ((v === token ? 1 : 0) - Math.exp(logProbs[v])));
    const squares = logProbs.reduce((total, l) => total + Math.exp(2 * l) * (l + entropy), 0);
    const first = advantage * eta;
    rows.push({
      exact: softmaxEntropy(moved) - entropy,
      steer: -steerOmega(advantage, logProbs[token], logProbs[token], entropy),
      single: first * entropySlope('single-logit', logProbs[token], entropy, 0),
      order: first * entropySlope('exact', logProbs[token], entropy, squares),
    });
  }
  const correlation = (a, b) => {
    const [ma, mb] = [mean(a), mean(b)];
    const [sa, sb] = [a, b].map((x, i) => Math.sqrt(x.reduce((t, v) => t + (v - [ma, mb][i]) ** 2, 0)));
    return a.reduce((t, v, i) => t + (v - ma) * (b[i] - mb), 0) / (sa * sb);
  };
  const exact = rows.map((row) => row.exact);
  return ['steer', 'single', 'order'].map((key) => {
    const found = rows.map((row) => row[key]);
    const agree = found.filter((value, i) => Math.sign(value) === Math.sign(exact[i])).length / STATES;
    return { key, agree, correlation: correlation(found, exact) };
  });
}

console.log('| vocabulary | estimate | direction right | correlation with the exact change |\n|---|---|---|---|');
const NAMES = { steer: 'STEER', single: 'single logit', order: 'exact first order' };
for (const vocabulary of [8, 64, 1024]) {
  for (const { key, agree, correlation } of estimates(vocabulary, 1e-3)) {
    console.log(`| ${vocabulary} | ${NAMES[key]} | ${(100 * agree).toFixed(1)} % | ${correlation.toFixed(3)} |`);
  }
}

const { curves } = trainLab(METHODS, '--seeds', String(SEEDS));
const labels = [...curves.keys()];
const spentAt = ({ entropy_nats: entropy }) => entropy.findIndex((h) => h < SPENT);
console.log(`\n| rule | ${AT.map((s) => `H at ${s}`).join(' | ')} | H < ${SPENT} at step | R at 200 | R at 499 |`);
console.log(`|---|${'---|'.repeat(AT.length + 3)}`);
for (const label of labels) {
  const runs = curves.get(label);
  const cells = [
    ...AT.map((s) => shown(runs.map((run) => run.entropy_nats[s]))),
    shown(runs.map(spentAt), 0),
    ...[200, 499].map((s) => shown(runs.map((run) => run.success[s]))),
  ];
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}

const figure = await chartFigure({
  title: 'STEER on the shared lock',
  subtitle: `${SEEDS} seeds, 500 steps; bands are one standard error`,
  headline: labels.map((label) => {
    const ends = curves.get(label).map((run) => run.success[499]);
    return { label: `${label}: R at 499`, value: mean(ends), standardError: standardError(ends) };
  }),
  charts: [
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Entropy', xLabel: 'step', yLabel: 'entropy (nats)', yScale: 'log', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'entropy_nats')),
        references: [{ value: SPENT, label: 'spent' }],
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Probability of a right answer', xLabel: 'step', yLabel: 'success', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'success')),
      },
    },
  ],
});
writeFileSync('docs/papers/steer-entropy-change.svg', await plotBytes(figure, '.svg'));
