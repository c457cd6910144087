/**
 * PEAR (2025; specification of policies, section 3): rewarding right answers less where thinking is more uncertain than
 * answering shortens responses at equal accuracy.
 *
 * Sums modulo 7 with idle words in the scratch pad, a policy that is right on two thirds to begin with; five seeds.
 *   node bench/papers/phase-entropy-reward.mjs
 */
import { difference, meanOf, measuredSteps, told, trainAll, verdict, writeCsv, writeFigure } from './lab/runs.mjs';

const SEEDS = [1, 2, 3, 4, 5];
const METHODS = {
  'plain GRPO': { intervention: 'grpo' },
  'PEAR, alpha 1': { intervention: 'pear' },
  'PEAR, alpha 1, floor 0.1': { intervention: 'pear', settings: { floor: 0.1 } },
};
const LABELS = Object.keys(METHODS);
const results = await trainAll({
  engine: 'transformer',
  steps: 61,
  task: {
    'hard-share': 0,
    idle: 0.65,
    prompts: 512,
    'warm-steps': 700,
    'learning-rate': 0.0005,
    'evaluate-every': 5,
    'evaluation-prompts': 256,
  },
  seeds: SEEDS,
  methods: METHODS,
});
const steps = measuredSteps(results[LABELS[0]][0].success);
const at = (label, of, step) => results[label].map((curves) => of(curves)[step]);
const length = (curves) => curves.extra.evaluation_length_tokens;
const success = (curves) => curves.success;
const entropy = (curves) => curves.entropy;

writeCsv(
  'phase-entropy-reward',
  ['method', 'seed', 'step', 'accuracy', 'length_tokens', 'entropy_nats'],
  LABELS.flatMap((label) =>
    results[label].flatMap((curves, s) =>
      steps.map((step) => [label, SEEDS[s], step, success(curves)[step], length(curves)[step], entropy(curves)[step]]),
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
await writeFigure('phase-entropy-reward', {
  title: 'PEAR: length and accuracy',
  subtitle: `sums modulo 7 with a scratch pad; mean of ${SEEDS.length} seeds`,
  charts: [
    lines('Length of a response', 'Tokens on fresh prompts.', 'tokens', length),
    lines('Accuracy', 'Share right on fresh prompts.', 'share', success, { yHigh: 1 }),
    lines('Entropy', 'Mean over the tokens of the rollouts.', 'nats', entropy, { yZero: true }),
  ],
});

console.log(`| method | ${[10, 20, 30, 60].map((step) => `length at ${step} | accuracy at ${step}`).join(' | ')} |`);
for (const label of LABELS) {
  const cells = [10, 20, 30, 60].map((step) =>
    [told(meanOf(at(label, length, step)), 2), told(meanOf(at(label, success, step)))].join(' | '),
  );
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}
for (const label of LABELS.slice(1)) {
  for (const step of [30, 60]) {
    const shorter = difference(at(LABELS[0], length, step), at(label, length, step));
    const better = difference(at(label, success, step), at(LABELS[0], success, step));
    console.log(
      `${label}, step ${step}: shorter by ${told(shorter, 2)} (${verdict(shorter)}); accuracy ${told(better)}`,
    );
  }
}
