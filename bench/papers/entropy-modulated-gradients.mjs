/**
 * EMPG (2025; specification of policies, section 5): modulating the advantage of a turn by its entropy, with a bonus for turns
 * that lead to a clear next one, raises the success of long tasks with one reward at the end.
 *
 * Eight doors, one reward; success after fixed numbers of updates; five seeds.
 *   node bench/papers/entropy-modulated-gradients.mjs
 */
import { difference, meanOf, measuredSteps, told, trainAll, verdict, writeCsv, writeFigure } from './lab/runs.mjs';

const SEEDS = [1, 2, 3, 4, 5];
const METHODS = {
  'plain GRPO': { intervention: 'grpo' },
  EMPG: { intervention: 'empg' },
  'scaling alone': { intervention: 'empg', settings: { zeta: 0 } },
  'bonus alone': { intervention: 'empg', settings: { k: 0 } },
};
const LABELS = Object.keys(METHODS);
const results = await trainAll({
  engine: 'transformer-chain',
  steps: 41,
  task: {
    prompts: 256,
    'evaluate-every': 5,
    'evaluation-prompts': 256,
  },
  seeds: SEEDS,
  methods: METHODS,
});
const steps = measuredSteps(results[LABELS[0]][0].success);
const at = (label, of, step) => results[label].map((curves) => of(curves)[step]);
const success = (curves) => curves.success;
const entropy = (curves) => curves.entropy;

writeCsv(
  'entropy-modulated-gradients',
  ['method', 'seed', 'step', 'success', 'entropy_nats'],
  LABELS.flatMap((label) =>
    results[label].flatMap((curves, s) =>
      steps.map((step) => [label, SEEDS[s], step, success(curves)[step], entropy(curves)[step]]),
    ),
  ),
);
const lines = (title, note, yLabel, of, more = {}) => ({
  kind: 'lines',
  chart: {
    title,
    note,
    yLabel,
    xLabel: 'step',
    series: LABELS.map((name) => ({ name, x: steps, y: steps.map((step) => meanOf(at(name, of, step)).mean) })),
    ...more,
  },
});
await writeFigure('entropy-modulated-gradients', {
  title: 'EMPG: eight doors, one reward',
  subtitle: `two updates a step; mean of ${SEEDS.length} seeds`,
  charts: [
    lines('Success', 'Share of fresh walks through all eight doors.', 'share', success, { yHigh: 1 }),
    lines('Entropy', 'Mean over the tokens of the rollouts.', 'nats', entropy, { yZero: true }),
  ],
});

const TOLD = [10, 20, 30, 40];
console.log(`| method | ${TOLD.map((step) => `success at ${step}`).join(' | ')} |`);
for (const label of LABELS) {
  console.log(`| ${label} | ${TOLD.map((step) => told(meanOf(at(label, success, step)))).join(' | ')} |`);
}
for (const label of LABELS.slice(1)) {
  for (const step of TOLD) {
    const better = difference(at(label, success, step), at(LABELS[0], success, step));
    console.log(`${label}, step ${step}: success ${told(better)} above plain: ${verdict(better)}`);
  }
}
