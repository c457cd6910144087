/**
 * Top-H decoding (Baghaei Potraghloo et al. 2025; specification of steering, section 2.7): as the temperature rises, the
 * text that top-H draws stays likelier under the untempered model than that of min-p and top-p, and so keeps its sense.
 *
 * 200 continuations (20 prompts, ten samples) at every temperature with every sampler, on the bundled model, or another:
 *   node bench/papers/top-h-decoding.mjs [--model FILE] [--name word] [--tokens 48]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'fixtures/models/llama-sotu' },
    name: { type: 'string', default: 'top-h-decoding' },
    tokens: { type: 'string', default: '48' },
    prompts: { type: 'string', default: '20' },
    samples: { type: 'string', default: '10' },
  },
});
const TEMPERATURES = [0.7, 1.2, 1.6, 2, 2.5];
const SAMPLERS = ['top-h=0.4', 'min-p=0.1', 'top-p=0.9', 'eta=0.0002', 'top-k=50', 'none'];
const ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const ALPHA_TEMPERATURE = 1.5;
/** Characters of a document that are the prompt. */
const PROMPT = 120;

const scratch = mkdtempSync(join(tmpdir(), 'top-h-decoding-'));
const prompts = join(scratch, 'prompts.jsonl');
const documents = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n').map(JSON.parse);
const starts = [];
for (let part = 0; starts.length < Number(options.prompts); part++) {
  for (const { id, text } of documents) {
    // From a beginning of a sentence on, and not up to a space.
    const from = text.indexOf('. ', part * 1500) + 2;
    const end = text.lastIndexOf(' ', from + PROMPT);
    starts.push({
      id: `${id}:${from}`,
      prompt: text.slice(part === 0 ? 0 : from, part === 0 ? PROMPT : end).trimEnd(),
    });
  }
}
writeFileSync(
  prompts,
  starts
    .slice(0, Number(options.prompts))
    .map((row) => `${JSON.stringify(row)}\n`)
    .join(''),
);

function decode(label, samplers) {
  const report = join(scratch, `${label}.json`);
  const argv = ['bin/surprisal.js', 'steer', 'decode', '--model', options.model, '--data', prompts, '--quiet'];
  argv.push('--samples', options.samples, '--max-new-tokens', options.tokens, '--no-second-pass');
  argv.push('--report', report, '--sampler', ...samplers);
  const ended = spawnSync(process.execPath, argv, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (ended.status !== 0) throw new Error(`${label} ended with ${ended.status}`);
  return JSON.parse(readFileSync(report, 'utf8')).samplers.map(({ text }) => text);
}

const at = (temperature, sampler) =>
  sampler === 'none' ? `temperature=${temperature}` : `temperature=${temperature},${sampler}`;
const rows = [];
const push = (sampler, temperature, alpha, text) => {
  const { mean_surprisal_nats: surprisal, distinct_2, self_bleu_4, repetition_4, mean_kept_count, generations } = text;
  rows.push({
    sampler,
    temperature,
    alpha,
    continuations: generations,
    log_likelihood: -surprisal.mean,
    low: -surprisal.high,
    high: -surprisal.low,
    distinct_2,
    self_bleu: self_bleu_4.mean,
    repetition: repetition_4.mean,
    kept: mean_kept_count.mean,
  });
};
for (const temperature of TEMPERATURES) {
  const texts = decode(
    `t${temperature}`,
    SAMPLERS.map((sampler) => at(temperature, sampler)),
  );
  for (const [s, text] of texts.entries()) push(SAMPLERS[s], temperature, '', text);
}
const texts = decode(
  'alphas',
  ALPHAS.map((alpha) => at(ALPHA_TEMPERATURE, `top-h=${alpha}`)),
);
for (const [a, text] of texts.entries()) push('top-h', ALPHA_TEMPERATURE, ALPHAS[a], text);
rmSync(scratch, { recursive: true });

const columns =
  'sampler,temperature,alpha,continuations,mean_log_likelihood_nats,low_nats,high_nats,distinct_2,self_bleu_4,repetition_4,mean_kept_count';
writeFileSync(
  `docs/papers/${options.name}.csv`,
  [columns, ...rows.map((row) => Object.values(row).join(','))].map((line) => `${line}\n`).join(''),
);
const of = (sampler) => rows.filter((row) => row.sampler === sampler && row.alpha === '');
const lines = (title, note, yLabel, value, more = {}) => ({
  kind: 'lines',
  chart: {
    title,
    note,
    yLabel,
    xLabel: 'temperature',
    series: SAMPLERS.map((name) => ({ name, x: TEMPERATURES, y: of(name).map(value) })),
    ...more,
  },
});
const sweep = rows.filter((row) => row.alpha !== '');
const figure = await chartFigure({
  title: 'Top-H against the temperature',
  subtitle: `${basename(options.model)}; ${rows[0].continuations} continuations of ${options.tokens} tokens a point`,
  charts: [
    lines(
      'Likelihood of the text',
      'Mean log-likelihood under the untempered model.',
      'nats a token',
      (row) => row.log_likelihood,
    ),
    lines('Distinct pairs of tokens', 'distinct-2 over all continuations.', 'share', (row) => row.distinct_2, {
      yHigh: 1,
    }),
    lines('Tokens that could be drawn', 'Mean number kept; logarithmic.', 'tokens', (row) => row.kept, {
      yScale: 'log',
    }),
    {
      kind: 'lines',
      chart: {
        title: `Top-H against alpha, temperature ${ALPHA_TEMPERATURE}`,
        note: 'Coherence (log-likelihood, nats a token) falls where diversity rises.',
        xLabel: 'alpha',
        yLabel: 'nats a token',
        series: [{ name: 'log-likelihood', x: ALPHAS, y: sweep.map((row) => row.log_likelihood) }],
      },
    },
    {
      kind: 'lines',
      chart: {
        title: `Diversity of top-H, temperature ${ALPHA_TEMPERATURE}`,
        note: 'distinct-2 over all continuations, self-BLEU within a prompt.',
        xLabel: 'alpha',
        yLabel: 'share',
        yZero: true,
        yHigh: 1,
        series: [
          { name: 'distinct-2', x: ALPHAS, y: sweep.map((row) => row.distinct_2) },
          { name: 'self-BLEU-4', x: ALPHAS, y: sweep.map((row) => row.self_bleu) },
        ],
      },
    },
  ],
});
writeFileSync(`docs/papers/${options.name}.svg`, await plotBytes(figure, `${options.name}.svg`));

console.log(`${'sampler'.padEnd(12)}${TEMPERATURES.map((t) => `T=${t}`.padStart(16)).join('')}   fall`);
const fall = (sampler) => of(sampler)[0].log_likelihood - of(sampler)[TEMPERATURES.length - 1].log_likelihood;
for (const sampler of SAMPLERS) {
  const cells = of(sampler).map((row) =>
    `${row.log_likelihood.toFixed(3)} (${row.distinct_2.toFixed(2)})`.padStart(16),
  );
  console.log(`${sampler.padEnd(12)}${cells.join('')}  ${fall(sampler).toFixed(3).padStart(6)}`);
}
/** distinct-2 where a sampler's likelihood is that of top-H at T = 2, between two temperatures; none where it never is. */
const likelihood = of('top-h=0.4')[3].log_likelihood;
for (const sampler of SAMPLERS) {
  const points = of(sampler);
  const after = points.findIndex((row) => row.log_likelihood <= likelihood);
  if (after < 1) continue;
  const [a, b] = [points[after - 1], points[after]];
  const share = (a.log_likelihood - likelihood) / (a.log_likelihood - b.log_likelihood);
  const distinct = a.distinct_2 + share * (b.distinct_2 - a.distinct_2);
  console.log(`distinct-2 at ${likelihood.toFixed(2)} nats a token, ${sampler}: ${distinct.toFixed(3)}`);
}
const falls = fall('top-h=0.4');
/** Differences below this are none: intervals of a point are about as wide. */
const NOTHING = 0.1;
for (const other of SAMPLERS.slice(1)) {
  const less = fall(other) - falls;
  const verdict = less > NOTHING ? 'reproduced' : less < -NOTHING ? 'not reproduced' : 'no difference';
  console.log(`top-H's likelihood falls less than with ${other}, by ${less.toFixed(3)}: ${verdict}`);
}
