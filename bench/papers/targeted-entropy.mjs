/**
 * Confucius3-Math (2025; specification of policies, section 7). Claims: targeted entropy (7.1) holds the entropy near its
 * target from both sides and training ends higher than plainly; recent-sample recovery (7.3) lowers the number of groups that
 * must be generated for an accepted batch. On the shared lock, ten seeds.
 */
import { writeFileSync } from 'node:fs';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { bandOf, mean, shown, standardError, trainLab } from '../lab-runs.mjs';

const SEEDS = 10;
const TARGETS = [0.2, 0.55, 0.9];
const METHODS = [
  'plain=grpo:dual-clip=0',
  ...TARGETS.map((target) => `target ${target}=targeted-entropy:target=${target},coefficient=0.05,dual-clip=0`),
  'bonus 0.03=entropy-bonus:coefficient=0.03,dual-clip=0',
  'hardness weights=hardness-weights:aggregation=token-mean',
];
const AT = [0, 50, 100, 200, 499];
/** Groups of an update, and updates over which groups are counted: behind them groups that teach become rare. */
const BATCHES = [8, 12, 16, 24];
const UPDATES = 15;

const { curves } = trainLab(METHODS, '--seeds', String(SEEDS));
const labels = [...curves.keys()];
/** Mean over the last 100 steps. */
const late = ({ entropy_nats: entropy }) => mean(entropy.slice(400));
console.log(`| rule | ${AT.map((s) => `H at ${s}`).join(' | ')} | mean H, 400 to 499 | R at 200 | R at 499 |`);
console.log(`|---|${'---|'.repeat(AT.length + 3)}`);
for (const label of labels) {
  const runs = curves.get(label);
  const cells = [
    ...AT.map((s) => shown(runs.map((run) => run.entropy_nats[s]))),
    shown(runs.map(late)),
    ...[200, 499].map((s) => shown(runs.map((run) => run.success[s]))),
  ];
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}

/** Groups generated until the n-th update, n = 1 .. UPDATES; NaN where a run never came there. */
function generatedBy({ generated_groups: generated, used_groups: used }) {
  const sums = [];
  let sum = 0;
  for (let s = 0; s < generated.length && sums.length < UPDATES; s++) {
    sum += generated[s];
    if (used[s] > 0) sums.push(sum);
  }
  return Array.from({ length: UPDATES }, (_, n) => sums[n] ?? Number.NaN);
}
const recovery = trainLab(
  BATCHES.flatMap((batch) => [
    `recovery, ${batch}=recent-samples:batch=${batch}`,
    `none, ${batch}=recent-samples:batch=${batch},recovery=no`,
  ]),
  ...['--seeds', String(SEEDS), '--steps', '150'],
).curves;
console.log(
  `\n| groups of an update | generated per update, thrown away | recovered | saved | generated / used, recovered |`,
);
console.log('|---|---|---|---|---|');
for (const batch of BATCHES) {
  const [kept, lost] = ['recovery', 'none'].map((name) =>
    recovery.get(`${name}, ${batch}`).map((run) => generatedBy(run)[UPDATES - 1] / UPDATES),
  );
  const saved = kept.map((value, i) => 100 * (1 - value / lost[i]));
  const ratio = kept.map((value) => value / batch);
  console.log(`| ${batch} | ${shown(lost, 1)} | ${shown(kept, 1)} | ${shown(saved, 1)} % | ${shown(ratio, 2)} |`);
}

const updates = Array.from({ length: UPDATES }, (_, n) => n + 1);
const generatedSeries = (name, batch, colour) => {
  const sums = recovery.get(`${name}, ${batch}`).map(generatedBy);
  return {
    name: `${batch} groups, ${name === 'none' ? 'thrown away' : 'recovered'}`,
    x: updates,
    y: updates.map((_, n) => mean(sums.map((sum) => sum[n] / (n + 1)))),
    standardError: updates.map((_, n) => standardError(sums.map((sum) => sum[n] / (n + 1)))),
    dashed: name === 'none',
    colour,
  };
};
const figure = await chartFigure({
  title: 'Targeted entropy and recent-sample recovery on the shared lock',
  subtitle: `${SEEDS} seeds; bands are one standard error`,
  headline: labels.map((label) => {
    const ends = curves.get(label).map((run) => run.success[499]);
    return { label: `${label}: R at 499`, value: mean(ends), standardError: standardError(ends) };
  }),
  charts: [
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Entropy and targets', xLabel: 'step', yLabel: 'entropy (nats)', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'entropy_nats')),
        references: TARGETS.map((value) => ({ value, label: 'target' })),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Probability of a right answer', xLabel: 'step', yLabel: 'success', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'success')),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Groups generated for an update', xLabel: 'updates so far', yLabel: 'groups', dots: false },
        series: BATCHES.flatMap((batch, i) => ['recovery', 'none'].map((name) => generatedSeries(name, batch, i))),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{
          title: 'Success against entropy',
          xLabel: 'entropy (nats)',
          yLabel: 'success',
          xScale: 'log',
          dots: false,
        },
        series: labels.map((label) => {
          const runs = curves.get(label);
          const averaged = (column) => runs[0].step.map((_, s) => mean(runs.map((run) => run[column][s])));
          return { name: label, x: averaged('entropy_nats'), y: averaged('success') };
        }),
      },
    },
  ],
});
writeFileSync('docs/papers/targeted-entropy.svg', await plotBytes(figure, '.svg'));
