/**
 * Two fine-tunes of one model become one, by every method of `fuse merge`. Claim: a merge is better than either parent on the mean
 * over both of their texts. Numbers of a method (weights, densities, places on arcs) are chosen by Nelder-Mead on the first half
 * of the windows of texts that no model was trained on; the table is of the second half, and so is the choice of the method
 * not: it is the best one on the first half.
 * Usage: node bench/papers/merge-fine-tunes.mjs [--evaluations 40] [--bin bin/surprisal.js]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { heatMap } from '../../dist/src/report/plots/heat-map.js';
import { FULL_WIDTH } from '../../dist/src/report/plots/panel.js';

const { values } = parseArgs({
  options: { evaluations: { type: 'string', default: '40' }, bin: { type: 'string', default: 'bin/surprisal.js' } },
});
const BASE = 'fixtures/models/llama-sotu';
const PARENTS = ['fixtures/models/llama-sotu-ft-moby', 'fixtures/models/llama-sotu-ft-recent'];
const two = ['--base', BASE, '--model', ...PARENTS];
const parents = ['--model', ...PARENTS];
/** What is searched beside the numbers that a method requires. */
const METHODS = [
  ['linear', parents],
  ['slerp', ['--base', PARENTS[0], '--model', PARENTS[1]]],
  ['nuslerp', parents],
  ['nuslerp', two, [], 'nuslerp of task vectors'],
  ['multislerp', two],
  ['karcher', parents, undefined],
  ['task_arithmetic', two],
  ['ties', two, ['weight', 'density', 'lambda']],
  ['dare_linear', two, ['weight', 'density']],
  ['dare_ties', two, ['weight', 'density']],
  ['breadcrumbs', two, ['weight', 'density']],
  ['breadcrumbs_ties', two, ['weight', 'density']],
  ['della', two, ['weight', 'density', 'lambda'], undefined, ['--parameter', 'epsilon=0.02']],
  ['della_linear', two, ['weight', 'density'], undefined, ['--parameter', 'epsilon=0.02']],
  ['model_stock', two, undefined],
  ['nearswap', ['--base', PARENTS[0], '--model', PARENTS[1]]],
  ['arcee_fusion', ['--base', PARENTS[0], '--model', PARENTS[1]], undefined],
  ['sce', two, ['select_topk']],
  ['ram', two, undefined],
  ['ramplus_tl', two, ['r', 'alpha']],
  ['varm', two, undefined],
];

const folder = mkdtempSync(join(tmpdir(), 'merge-fine-tunes-'));
const texts = ['moby', 'addresses'].map((name) => join(folder, `${name}.jsonl`));
const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
const isNovel = (row) => JSON.parse(row).id.startsWith('chapter');
writeFileSync(texts[0], `${rows.filter(isNovel).join('\n')}\n`);
writeFileSync(texts[1], `${rows.filter((row) => !isNovel(row)).join('\n')}\n`);

function run([method, models, searched = [], label = method, more = []], fixed) {
  const search = fixed ? ['--search', 'none'] : ['--search', 'nelder-mead', '--search-evaluations', values.evaluations];
  const names = searched.length > 0 ? ['--search-parameters', ...searched] : [];
  const argv = [
    ...[
      'fuse',
      'merge',
      '--method',
      method,
      ...models,
      ...more,
      '--dtype',
      'bfloat16',
      '--out',
      join(folder, 'merged'),
    ],
    ...[...search, ...names, '--search-data', ...texts, '--force', '--quiet', '--report', join(folder, 'r.json')],
  ];
  const started = performance.now();
  const { status, stderr } = spawnSync(process.execPath, [values.bin, ...argv], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${label}: ${stderr}`);
  const { search: found } = JSON.parse(readFileSync(join(folder, 'r.json'), 'utf8'));
  process.stderr.write(`${label}: ${((performance.now() - started) / 1e3).toFixed(0)} s\n`);
  return { label, found };
}

const results = METHODS.map((entry) => run(entry, entry.length > 2 && entry[2] === undefined));
rmSync(folder, { recursive: true });

const parentScores = PARENTS.map((model) => results[0].found.scores.find((score) => score.model === model));
const merged = results.map(({ label, found }) => ({
  label,
  numbers: found.variables.map(({ parameter, model, best }) => {
    const of = model === undefined || model === null ? '' : ` (${model.replace(/.*-ft-/, '').replace(/.*\//, '')})`;
    return `${parameter}${of} ${best.toPrecision(3)}`;
  }),
  ...found.scores.find(({ role }) => role === 'merged'),
}));
merged.sort((a, b) => a.search_nll_nats - b.search_nll_nats);
const [best] = merged;
const bestParent = Math.min(...parentScores.map((score) => score.held_out_nll_nats));
const table = [
  ...parentScores.map((score, i) => ({
    label: `parent ${PARENTS[i].replace('fixtures/models/', '')}`,
    numbers: [],
    ...score,
  })),
  ...merged,
];
const columns = [
  'model',
  'search_nats',
  'held_out_nats',
  'held_out_nats_se',
  'perplexity_novel',
  'perplexity_addresses',
  'numbers',
];
const lines = table.map(({ label, numbers, ...score }) => [
  label,
  ...[score.search_nll_nats, score.held_out_nll_nats, score.held_out_nll_nats_se].map((value) => value.toFixed(4)),
  ...score.held_out_texts.map(({ nll_nats: nats }) => Math.exp(nats).toFixed(2)),
  numbers.join('; '),
]);
const verdict = best.held_out_nll_nats < bestParent ? 'reproduced' : 'not reproduced';
for (const line of [columns, columns.map(() => '---'), ...lines]) process.stdout.write(`| ${line.join(' | ')} |\n`);
process.stdout.write(
  `\nbest on the first half: ${best.label}; held out ${best.held_out_nll_nats.toFixed(4)} nats against ${bestParent.toFixed(4)} ` +
    `of the better parent: ${verdict}\n`,
);
writeFileSync('docs/papers/merge-fine-tunes.csv', `${[columns, ...lines].map((line) => line.join(',')).join('\n')}\n`);
const losses = table.map(({ held_out_nll_nats: mean, held_out_texts: texts }) => [
  ...texts.map(({ nll_nats: nats }) => nats),
  mean,
]);
const panel = await heatMap({
  title: 'Loss beside the better parent, held-out half',
  note: 'Nats a token; below 0 is better than both parents. Methods in the order of the half that their numbers were chosen on.',
  rows: table.map(({ label }) => label),
  columns: ['novel', 'addresses', 'mean'],
  rowLabel: 'model',
  columnLabel: 'text',
  values: losses.flatMap((row) => row.map((loss, text) => loss - Math.min(losses[0][text], losses[1][text]))),
  valueLabel: 'nats',
  kind: 'signed',
  domain: [-0.3, 0.3],
  width: FULL_WIDTH,
});
const figure = { title: 'Two fine-tunes merged', headline: [], panels: [panel], sections: [] };
writeFileSync('docs/papers/merge-fine-tunes.svg', await plotBytes(figure, 'merge-fine-tunes.svg'));
