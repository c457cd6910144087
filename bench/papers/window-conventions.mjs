/**
 * How much the perplexity of one model on one text depends on the window convention (specification of entropy analyses,
 * section A). Claims: the conventions differ by several percent; for a trained model, perplexity does not rise as the
 * stride of the Hugging Face recipe falls: ppl(stride 1) <= ppl(L/2) <= ppl(L).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const MODEL = 'fixtures/models/llama-sotu';
const TEXT = 'fixtures/text/heldout_text.jsonl';
const CONTEXT = 64;
const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));

function score(name, ...options) {
  const report = join(scratch, `${name.replace(/\W+/g, '-')}.json`);
  const ended = spawnSync(
    process.execPath,
    [
      'bin/surprisal.js',
      'analyze-entropy',
      'tokens',
      '--model',
      MODEL,
      '--data',
      TEXT,
      '--limit',
      '2',
      '--quiet',
      '--context',
      String(CONTEXT),
      '--report',
      report,
      ...options,
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (ended.status !== 0) throw new Error(`${name} ended with ${ended.status}`);
  const { perplexity, scored_tokens: tokens } = JSON.parse(readFileSync(report, 'utf8'));
  return { name, perplexity, tokens };
}

const strides = [1, 4, 16, CONTEXT / 2, CONTEXT];
const strided = strides.map((stride) => ({
  stride,
  ...score(`hf, stride ${stride}`, '--convention', 'hf', '--stride', String(stride)),
}));
const others = [
  score('lm-eval', '--convention', 'lm-eval'),
  score('lm-eval, context_len 32', '--convention', 'lm-eval', '--context-len', '32'),
  score('llama.cpp', '--convention', 'llama.cpp'),
];
rmSync(scratch, { recursive: true });

const rows = [...strided, ...others];
const csv = [
  'convention,context_tokens,scored_tokens,perplexity',
  ...rows.map((r) => `"${r.name}",${CONTEXT},${r.tokens},${r.perplexity}`),
];
writeFileSync('docs/papers/window-conventions.csv', `${csv.join('\n')}\n`);
const figure = await chartFigure({
  title: 'Perplexity by window convention',
  subtitle: `${MODEL}, ${TEXT}, windows of ${CONTEXT} tokens`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Perplexity against the stride of the Hugging Face recipe',
        xLabel: 'stride, tokens',
        yLabel: 'perplexity',
        xScale: 'position',
        width: 964,
        series: [{ name: 'hf', x: strided.map((r) => r.stride), y: strided.map((r) => r.perplexity) }],
        references: others.map((r) => ({ label: r.name, value: r.perplexity })),
      },
    },
  ],
});
writeFileSync('docs/papers/window-conventions.svg', await plotBytes(figure, 'window-conventions.svg'));

const falls = strided.every((r, i) => i === 0 || r.perplexity >= strided[i - 1].perplexity);
const values = rows.map((r) => r.perplexity);
const spread = Math.max(...values) / Math.min(...values) - 1;
for (const r of rows)
  console.log(`${r.name.padEnd(26)}${r.perplexity.toFixed(4).padStart(10)}${String(r.tokens).padStart(8)}`);
console.log(`perplexity does not rise as the stride falls: ${falls ? 'reproduced' : 'not reproduced'}`);
console.log(`conventions differ by ${(100 * spread).toFixed(1)} %: ${spread > 0.02 ? 'reproduced' : 'not reproduced'}`);
