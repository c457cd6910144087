/**
 * Pyramid vector quantisation of language models (van der Ouderaa et al. 2024; specification of quantisation, section 9).
 *
 * Claims at small size: the perplexity falls from unrotated to rotated to rotated with error feedback, and pyramid codes
 * are better than rounding to nearest. The bundled models, all projections (the experts of the mixture), calibrated on
 * every other held-out document and evaluated on those between; every method at its own true bits, everything counted.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MODELS = [
  ['llama-sotu', '*proj*'],
  ['qwen2-moby', '*proj*'],
  ['mixtral-sotu-moby', '*proj*,*block_sparse_moe.experts*'],
];
const RATES = '2.25,2.5,3,3.25,4';
const METHODS = [
  'pvq-unrotated',
  'pvq',
  'pvq-unrotated-hessian',
  'pvq-hessian',
  'pvq-hessian-allocated',
  ...['rtn', 'rtn-clipped', 'rtn-feedback', 'rotated-rtn-feedback'].flatMap((name) =>
    [2, 3, 4].map((bits) => `${name}:bits=${bits}:group=128`),
  ),
  'lloyd-max',
  'nf4',
  'q4_0',
  'q4_1',
  'q8_0',
  'q2_k',
  'q3_k',
  'q4_k',
];

const folder = mkdtempSync(join(tmpdir(), 'pyramid-quantisation-'));
const documents = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
const half = (rest) => `${documents.filter((_, i) => i % 2 === rest).join('\n')}\n`;
writeFileSync(join(folder, 'calibration.jsonl'), half(0));
writeFileSync(join(folder, 'evaluation.jsonl'), half(1));

const lines = [
  'model,setting,bits_per_weight,model_bits_per_weight,sqnr_db,perplexity,perplexity_se,mean_kl_nats,mean_kl_nats_se,top1_agreement',
];
for (const [model, tensors] of MODELS) {
  const report = join(folder, `${model}.json`);
  const plot = join(folder, `${model}.svg`);
  const argv = [
    'bin/surprisal.js',
    'quantize-pvq',
    'sweep',
    '--model',
    `fixtures/models/${model}`,
    '--tensors',
    tensors,
  ];
  argv.push('--bpw', RATES, '--methods', METHODS.join(','), '--data', join(folder, 'calibration.jsonl'));
  argv.push('--calib-tokens', '8192', '--calib-length', '256', '--eval-data', join(folder, 'evaluation.jsonl'));
  argv.push('--context', '256', '--report', report, '--plot', plot, '--work-dir', folder, '--quiet');
  const ended = spawnSync(process.execPath, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  if (ended.status !== 0) throw new Error(`the sweep of ${model} ended with ${ended.status}`);
  const body = JSON.parse(readFileSync(report, 'utf8'));
  console.log(`\n${model}: perplexity ${body.base.perplexity.toFixed(3)} of the original\n`);
  console.log('| setting | bits | perplexity | mean KL, nats | same top-1 |\n|---|---|---|---|---|');
  lines.push(`${model},original,,,,${body.base.perplexity},${body.base.perplexity_se},0,0,1`);
  for (const row of [...body.rows].sort((a, b) => a.bits_per_weight - b.bits_per_weight)) {
    const {
      perplexity,
      perplexity_se: error,
      mean_kl_nats: kl,
      mean_kl_nats_se: klError,
      top1_agreement: top,
    } = row.evaluation;
    const cells = [row.id, row.bits_per_weight.toFixed(3), perplexity.toFixed(2)];
    console.log(`| ${[...cells, `${kl.toFixed(4)} ± ${klError.toFixed(4)}`, top.toFixed(3)].join(' | ')} |`);
    const figures = [row.bits_per_weight, row.model_bits_per_weight, row.sqnr_db, perplexity, error, kl, klError, top];
    lines.push([model, row.id, ...figures].join(','));
  }
  if (model === MODELS[0][0]) copyFileSync(plot, 'docs/papers/pyramid-quantisation.svg');
}
writeFileSync('docs/papers/pyramid-quantisation.csv', `${lines.join('\n')}\n`);
rmSync(folder, { recursive: true });
