/**
 * A concatenation of representations distilled into one network (Zhang & Bottou 2023; specification of entropy analyses, rich
 * representations). Claims, at this size: networks trained alike from several seeds hold more side by side than each alone, and a
 * student that learns a head for each of them keeps more of it than a network of its size trained on the labels.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom } from '../../dist/src/random.js';
import { drawDigits } from '../digits.mjs';

const TRAIN = 2000;
const TEST = 4000;
const SEEDS = [0, 1, 2];
const folder = mkdtempSync(join(tmpdir(), 'heads-'));
const { points, labels } = drawDigits(TRAIN + TEST, createRandom(9));
function table(name, from, to) {
  const lines = [`label,${Array.from({ length: 784 }, (_, j) => `p${j}`).join(',')}`];
  for (let i = from; i < to; i++) lines.push(`${labels[i]},${points.subarray(i * 784, (i + 1) * 784).join(',')}`);
  writeFileSync(join(folder, name), `${lines.join('\n')}\n`);
  return join(folder, name);
}
const train = table('train.csv', 0, TRAIN);
const test = table('test.csv', TRAIN, TRAIN + TEST);

function surprisal(...argv) {
  const { status, stderr } = spawnSync(process.execPath, ['bin/surprisal.js', ...argv, '--quiet'], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
}

/** Probe accuracies of networks of a folder, by name of the set. */
function probed(features, names) {
  const report = join(features, 'probes.json');
  const files = (part) => names.map((name) => join(features, `${name}-${part}.npy`));
  const answers = ['--labels', join(features, 'labels-train.npy'), '--test-labels', join(features, 'labels-eval.npy')];
  surprisal(
    'analyze-entropy',
    'probes',
    '--data',
    ...files('train'),
    '--test',
    ...files('eval'),
    ...answers,
    '--out',
    `${report}.csv`,
    '--force',
  );
  const [head, ...rows] = readFileSync(`${report}.csv`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(','));
  return rows.map((row) => Object.fromEntries(head.map((name, i) => [name, row[i]])));
}

const rows = [];
for (const seed of SEEDS) {
  const task = ['--data', train, '--eval-data', test, '--epochs', '20', '--seed', String(10 * seed)];
  const [own, control] = ['members', 'control'].map((name) => join(folder, `${name}-${seed}`));
  surprisal(
    'distill-pld',
    'heads',
    ...task,
    '--members',
    '5',
    '--member',
    'mlp:24',
    '--student',
    'mlp:64',
    '--features',
    own,
  );
  surprisal(
    'distill-pld',
    'heads',
    ...task,
    '--members',
    '1',
    '--member',
    'mlp:64',
    '--student',
    'mlp:64',
    '--features',
    control,
  );
  const members = probed(
    own,
    [0, 1, 2, 3, 4].map((m) => `member-${m}`),
  );
  const pick = (list, kind) =>
    list.filter((row) => row.kind === kind && row.split === 'test').map((row) => Number(row.accuracy));
  const singles = pick(members, 'single');
  rows.push({
    single: singles.reduce((sum, value) => sum + value, 0) / singles.length,
    ensemble: pick(members, 'ensemble').at(-1),
    concatenation: pick(members, 'concatenation').at(-1),
    distilled: pick(probed(own, ['student']), 'single')[0],
    'labels, same size': pick(probed(control, ['member-0']), 'single')[0],
  });
}
mkdirSync('docs/papers', { recursive: true });
const lines = ['features,accuracy,sd,seeds'];
for (const name of Object.keys(rows[0])) {
  const values = rows.map((row) => row[name]);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
  lines.push(`"${name}",${mean.toFixed(4)},${deviation.toFixed(4)},${values.length}`);
}
writeFileSync('docs/papers/distilled-representations.csv', `${lines.join('\n')}\n`);
console.log(lines.join('\n'));
