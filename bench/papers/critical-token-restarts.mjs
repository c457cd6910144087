/**
 * CURE (2025; specification of policies, section 6): restarting responses at tokens of high entropy, then plain training, solves
 * more prompts than plain training at the same number of generated tokens.
 *
 * Sums modulo 7, half of which the warm start mostly gets wrong; groups of 4 responses and 12 branches, then of 16; five seeds.
 *   node bench/papers/critical-token-restarts.mjs
 */
import { difference, meanOf, measuredSteps, told, trainAll, verdict, writeCsv, writeFigure } from './lab/runs.mjs';

const SEEDS = [1, 2, 3, 4, 5];
const METHODS = {
  'plain GRPO': { intervention: 'grpo' },
  CURE: { intervention: 'cure', settings: { 'top-k': 3 }, steps: 121, task: { 'branch-steps': 80 } },
  'random restarts': {
    intervention: 'cure',
    settings: { 'top-k': 3, order: 'random' },
    steps: 121,
    task: { 'branch-steps': 80 },
  },
};
const LABELS = Object.keys(METHODS);
const results = await trainAll({
  engine: 'transformer',
  steps: 91,
  task: {
    'hard-share': 0.5,
    'hard-right': 0.15,
    prompts: 256,
    'warm-steps': 500,
    idle: 0.5,
    'evaluate-every': 5,
    'solved-every': 5,
    'evaluation-prompts': 256,
    'evaluation-responses': 8,
  },
  seeds: SEEDS,
  methods: METHODS,
});
/** Tokens generated before the evaluation of a step. */
const tokensBefore = (curves, step) => (step === 0 ? 0 : curves.extra.generated_tokens[step - 1]);
const BUDGETS = [30, 60, 90, 120, 150].map((thousands) => thousands * 1000);

/** A curve at a number of tokens, between two evaluations in proportion. */
function atBudget(curves, curve, budget) {
  const steps = measuredSteps(curve);
  const after = steps.findIndex((step) => tokensBefore(curves, step) >= budget);
  if (after < 1) return Number.NaN;
  const [a, b] = [steps[after - 1], steps[after]];
  const share = (budget - tokensBefore(curves, a)) / (tokensBefore(curves, b) - tokensBefore(curves, a));
  return curve[a] + share * (curve[b] - curve[a]);
}
const solved = (curves) => curves.extra.solved_prompts;
const success = (curves) => curves.success;
const entropy = (curves) => curves.entropy;
const at = (label, of, budget) => results[label].map((curves) => atBudget(curves, of(curves), budget));

writeCsv(
  'critical-token-restarts',
  ['method', 'seed', 'generated_tokens', 'solved_prompts', 'accuracy', 'entropy_nats'],
  LABELS.flatMap((label) =>
    results[label].flatMap((curves, s) =>
      measuredSteps(success(curves)).map((step) => [
        label,
        SEEDS[s],
        tokensBefore(curves, step),
        solved(curves)[step],
        success(curves)[step],
        entropy(curves)[step],
      ]),
    ),
  ),
);
const GRID = Array.from({ length: 15 }, (_, i) => (i + 1) * 10000);
const lines = (title, note, yLabel, of, more = {}) => ({
  kind: 'lines',
  chart: {
    title,
    note,
    yLabel,
    xLabel: 'thousand generated tokens',
    series: LABELS.map((name) => ({
      name,
      x: GRID.map((budget) => budget / 1000),
      y: GRID.map((budget) => meanOf(at(name, of, budget)).mean),
    })),
    ...more,
  },
});
await writeFigure('critical-token-restarts', {
  title: 'CURE: restarts at critical tokens, then plain training',
  subtitle: `sums modulo 7, half of them mostly wrong at first; mean of ${SEEDS.length} seeds`,
  charts: [
    lines('Solved prompts', 'Of 256 that are trained on: most of eight responses right.', 'prompts', solved),
    lines('Accuracy', 'Share right on fresh prompts.', 'share', success),
    lines('Entropy', 'Mean over the tokens of the rollouts.', 'nats', entropy, { yZero: true }),
  ],
});

console.log(`| method | ${BUDGETS.map((budget) => `solved at ${budget / 1000}k`).join(' | ')} | accuracy at 150k |`);
for (const label of LABELS) {
  const cells = BUDGETS.map((budget) => told(meanOf(at(label, solved, budget)), 1));
  console.log(`| ${label} | ${cells.join(' | ')} | ${told(meanOf(at(label, success, 150000)))} |`);
}
for (const label of LABELS.slice(1)) {
  for (const budget of BUDGETS) {
    const more = difference(at(label, solved, budget), at(LABELS[0], solved, budget));
    console.log(`${label}, ${budget / 1000}k tokens: solved ${told(more, 1)} above plain: ${verdict(more)}`);
  }
}
