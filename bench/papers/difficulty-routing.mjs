/**
 * DiffAdapt (2025; specification of policies, section 8): a probe on the hidden state of the prompt chooses one of three decoding
 * settings and saves tokens at equal accuracy; entropy over difficulty is U-shaped.
 *
 * Sums in mixed numbers of terms; the finished policy of the transformer laboratory answers 600 fresh prompts ten times under each setting;
 * five seeds.
 *   npm run build && node bench/papers/difficulty-routing.mjs
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { difference, meanOf, told, verdict, writeCsv, writeFigure } from './lab/runs.mjs';

const SEEDS = [1, 2, 3, 4, 5];
/** Temperature and share of the budget: those of the labels, and those of the strategies. */
const SETTINGS = { labels: [1, 1], easy: [0.5, 0.4], normal: [0.8, 1], hard: [0.4, 0.5] };
const folder = mkdtempSync(join(tmpdir(), 'difficulty-routing-'));

function surprisal(...argv) {
  const ran = spawnSync(process.execPath, ['bin/surprisal.js', 'analyze-policy', ...argv, '--quiet', '--force'], {
    encoding: 'utf8',
  });
  if (ran.status !== 0) throw new Error(`analyze-policy ${argv.join(' ')}: ${ran.stderr}`);
}

const reports = SEEDS.map((seed) => {
  for (const [name, [temperature, budget]] of Object.entries(SETTINGS)) {
    const task = `probe-prompts=600,probe-temperature=${temperature},probe-budget=${budget}`;
    surprisal(
      ...[
        'lab',
        '--engine',
        'transformer',
        '--method',
        'grpo',
        '--seeds',
        '1',
        '--seed',
        seed,
        '--steps',
        '20',
        '--task',
        task,
      ],
      ...['--probe-dump', join(folder, `${name}.jsonl`), '--probe-states', join(folder, `${name}.npy`)],
    );
  }
  const report = join(folder, 'report.json');
  surprisal(
    ...['difficulty', '--data', join(folder, 'labels.jsonl'), '--hidden', join(folder, 'labels.npy'), '--seed', seed],
    ...['easy', 'normal', 'hard'].flatMap((name) => ['--strategy', `${name}=${join(folder, `${name}.jsonl`)}`]),
    ...['--report', report],
  );
  console.error(`seed ${seed}`);
  return JSON.parse(readFileSync(report, 'utf8'));
});
rmSync(folder, { recursive: true });

const names = reports[0].routing.policies.map(({ name }) => name);
const of = (name, field) =>
  reports.map(({ routing }) => routing.policies.find((policy) => policy.name === name)[field]);
const levels = reports[0].curve.levels;

writeCsv(
  'difficulty-routing',
  ['seed', 'policy', 'accuracy', 'mean_tokens', 'token_saving'],
  reports.flatMap(({ routing }, s) =>
    routing.policies.map((policy) => [SEEDS[s], policy.name, policy.accuracy, policy.mean_tokens, policy.token_saving]),
  ),
);
await writeFigure('difficulty-routing', {
  title: 'DiffAdapt: tokens, accuracy, entropy',
  subtitle: `transformer laboratory; ${SEEDS.length} seeds, 600 prompts each, 180 of them held out`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Accuracy and tokens',
        note: 'Mean over seeds, held-out prompts.',
        xLabel: 'tokens of a response',
        yLabel: 'accuracy',
        yZero: false,
        dots: true,
        // Names first: lines of one point carry the legend, the dots behind them their colours.
        series: [false, true].flatMap((points) =>
          names.map((name, colour) => ({
            ...{ name, x: [meanOf(of(name, 'mean_tokens')).mean], y: [meanOf(of(name, 'accuracy')).mean] },
            ...(points && { points, colour }),
          })),
        ),
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Entropy by difficulty',
        note: 'Mean token entropy of the questions of a level, by seed.',
        xLabel: 'level of difficulty',
        yLabel: 'nats',
        series: reports.map(({ curve }, s) => ({
          name: `seed ${SEEDS[s]}`,
          x: curve.levels,
          y: curve.entropy_mean_nats,
        })),
      },
    },
  ],
});

console.log('| policy | accuracy | tokens | saving |\n|---|---|---|---|');
for (const name of names) {
  const saving = meanOf(of(name, 'token_saving').map((share) => 100 * share));
  console.log(
    `| ${name} | ${told(meanOf(of(name, 'accuracy')))} | ${told(meanOf(of(name, 'mean_tokens')), 2)} | ${told(saving, 1)} % |`,
  );
}
const fewer = difference(of('always normal', 'mean_tokens'), of('probe', 'mean_tokens'));
const better = difference(of('probe', 'accuracy'), of('always normal', 'accuracy'));
console.log(
  `probe against always normal: fewer tokens ${told(fewer, 2)} (${verdict(fewer)}), accuracy ${told(better)}`,
);
for (const other of ['always easy', 'always hard', 'linear probe']) {
  console.log(
    `probe against ${other}: accuracy ${told(difference(of('probe', 'accuracy'), of(other, 'accuracy')))}, ` +
      `tokens ${told(difference(of('probe', 'mean_tokens'), of(other, 'mean_tokens')), 2)}`,
  );
}
const score = (part) => meanOf(reports.map(({ probe }) => probe[part].accuracy));
console.log(
  `probe ${told(score('test'))}, linear ${told(score('linear_test'))}, commonest class ${told(meanOf(reports.map(({ probe }) => probe.majority_accuracy)))}`,
);
console.log(
  `U-shaped: ${reports.filter(({ curve }) => curve.u_shaped).length} of ${SEEDS.length}; levels ${levels.join(', ')}; means ${levels.map((_, l) => told(meanOf(reports.map(({ curve }) => curve.entropy_mean_nats[l])))).join(', ')}`,
);
