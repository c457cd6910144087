/**
 * CRReLU against its rivals on real digits (Sun et al. 2024, arXiv 2405.12954; specification of distillation, section D).
 * Claims, at this size: the correction of ReLU by the entropy functional is x exp(-x²/2) with a small coefficient; a network
 * with CRReLU beats the same one with ReLU and with GELU.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRandom } from '../../dist/src/random.js';
import { drawDigits } from '../digits.mjs';

const TRAIN = 2000;
const TEST = 2000;
const folder = mkdtempSync(join(tmpdir(), 'activations-'));
const { points, labels } = drawDigits(TRAIN + TEST, createRandom(5));
function table(name, from, to) {
  const lines = [`label,${Array.from({ length: 784 }, (_, j) => `p${j}`).join(',')}`];
  for (let i = from; i < to; i++) lines.push(`${labels[i]},${points.subarray(i * 784, (i + 1) * 784).join(',')}`);
  writeFileSync(join(folder, name), `${lines.join('\n')}\n`);
  return join(folder, name);
}
const train = table('train.csv', 0, TRAIN);
const test = table('test.csv', TRAIN, TRAIN + TEST);
mkdirSync('docs/papers', { recursive: true });
const words = [
  ['--base', 'relu', '--apply', '0.1'],
  ['--compare', 'relu,gelu,crrelu', '--data', train, '--eval-data', test, '--student', 'mlp:128-128'],
  ['--seeds', '5', '--epochs', '15', '--batch-size', '64', '--learning-rate', '1e-3'],
  ['--table', 'docs/papers/activation-search.csv', '--plot', 'docs/papers/activation-search.svg'],
  ['--report', join(folder, 'report.json'), '--force'],
].flat();
const ended = spawnSync(process.execPath, ['bin/surprisal.js', 'distill-pld', 'activations', ...words], {
  encoding: 'utf8',
});
if (ended.status !== 0) throw new Error(ended.stderr);
console.log(ended.stdout);
const report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8'));
console.log('| activation | accuracy | se | less ReLU | se | NLL, nats | learnt epsilon |');
for (const row of report.training.activations) {
  const { accuracy, accuracy_less_first: gain, nll_nats: nll, learnt } = row;
  const epsilon = Object.values(learnt).map(
    ({ mean, standard_error: error }) => `${mean.toFixed(3)} ± ${error.toFixed(3)}`,
  );
  const cells = [accuracy.mean, accuracy.standard_error, gain.mean, gain.standard_error, nll.mean].map(
    (v) => v?.toFixed?.(4) ?? v,
  );
  console.log(`| ${[row.activation, ...cells, epsilon.join(', ')].join(' | ')} |`);
}
