/**
 * Entropic activation steering (Rahn, D'Oro & Bellemare 2024; specification of steering, section 1.7): the small
 * reproduction. An agent plays Gaussian bandits; the vector of its runs on equal arms is added while it chooses on other
 * bandits. Claims: the entropy of its actions grows with the strength, vectors of equal norm (shuffled, random) do not move it,
 * and replies stay readable longer than under temperature.
 *
 * `node bench/papers/entropic-steering.mjs [--model M] [--style full|brief] [--layers 4-12] [--runs 20] [--horizon 15]
 * [--eval-runs 5] [--prompts 100] [--samples 0] [--strengths list] [--unit vector|residual] [--name name]`
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'fixtures/models/llama-sotu' },
    style: { type: 'string', default: 'brief' },
    task: { type: 'string', default: 'buttons' },
    layers: { type: 'string', default: 'all' },
    runs: { type: 'string', default: '20' },
    horizon: { type: 'string', default: '15' },
    'eval-runs': { type: 'string', default: '5' },
    prompts: { type: 'string', default: '100' },
    samples: { type: 'string', default: '0' },
    'max-new-tokens': { type: 'string', default: '60' },
    strengths: { type: 'string', default: '-0.4,-0.2,-0.1,0.1,0.2,0.4' },
    unit: { type: 'string', default: 'residual' },
    random: { type: 'string', default: '3' },
    name: { type: 'string', default: 'entropic-steering' },
    work: { type: 'string' },
  },
});
/** Means of the arms that the vector is made from, and of the bandits that it is judged on (section 1.4). */
const COLLECT = '100,100';
const EVALUATE = ['95,105', '99,101', '101,99', '105,95'];

const folder = values.work ?? mkdtempSync(join(tmpdir(), 'entropic-steering-'));
function surprisal(...argv) {
  const ended = spawnSync(process.execPath, ['bin/surprisal.js', ...argv, '--quiet', '--force'], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (ended.status !== 0) throw new Error(`surprisal ${argv.slice(0, 2).join(' ')} ended with ${ended.status}`);
}
function play(means, seed, runs, log) {
  const task = ['--task', values.task, '--prompt-style', values.style, '--horizon', values.horizon];
  const out = ['--runs', runs, '--entropy', 'exact', '--out', log, '--report', `${log}.json`];
  surprisal('steer', 'bandit', '--model', values.model, '--means', means, '--seed', String(seed), ...task, ...out);
}

const collected = join(folder, 'collect.jsonl');
play(COLLECT, 0, values.runs, collected);
const logs = EVALUATE.map((means, i) => {
  const log = join(folder, `evaluate-${i}.jsonl`);
  play(means, i + 1, values['eval-runs'], log);
  return log;
});
const vector = join(folder, 'east.safetensors');
const made = join(folder, 'compute.json');
const compute = ['steer', 'compute', '--model', values.model, '--method', 'east', '--data', collected];
surprisal(...compute, '--layer', values.layers, '--out', vector, '--report', made);
const report = join(folder, 'sweep.json');
const plot = join(folder, 'sweep.svg');
const table = join(folder, 'sweep.csv');
const sampled =
  values.samples === '0' ? [] : ['--samples', values.samples, '--max-new-tokens', values['max-new-tokens']];
surprisal(
  ...['steer', 'sweep', '--model', values.model, '--vector', vector, '--data', ...logs, '--prompts', values.prompts],
  ...[`--strengths=${values.strengths}`, '--strength-unit', values.unit, '--random', values.random, ...sampled],
  ...['--out', table, '--report', report, '--plot', plot],
);

const { unsteered, verdicts, rows, prompts, runs } = JSON.parse(readFileSync(report, 'utf8'));
const shown = (value) => (typeof value === 'number' ? value.toFixed(4) : '');
console.log(`${prompts} prompts of ${runs} runs; unsteered entropy ${shown(unsteered.action_entropy_nats)} nats\n`);
console.log('| layer | rises from | to | growth, nats | 95 % | largest random | largest shuffled | controls flat |');
console.log('|---|---|---|---|---|---|---|---|');
for (const v of verdicts) {
  const interval = `${shown(v.growth_low_nats)} to ${shown(v.growth_high_nats)}`;
  const controls = [shown(v.random_growth_nats), shown(v.shuffled_growth_nats), v.controls_flat ? 'yes' : 'no'];
  const cells = [v.layer, shown(v.rising_from), shown(v.rising_to), shown(v.growth_nats), interval, ...controls];
  console.log(`| ${cells.join(' | ')} |`);
}
console.log('\n| temperature | exact entropy, nats | readable replies |\n|---|---|---|');
for (const row of [unsteered, ...rows.filter(({ kind }) => kind === 'temperature')]) {
  console.log(`| ${row.temperature} | ${shown(row.action_entropy_nats)} | ${shown(row.valid_share)} |`);
}
copyFileSync(plot, `docs/papers/${values.name}.svg`);
writeFileSync(`docs/papers/${values.name}.csv`, readFileSync(table));
if (!values.work) rmSync(folder, { recursive: true });
