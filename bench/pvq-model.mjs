// Time and peak memory of quantising a whole model, and what follows for one of seven billion parameters.
//
//   npm run build && node bench/pvq-model.mjs [--work DIR] [--shape llama-1b] [--layers N] [--threads 2] [--tokens 4096]
//
// A model of the shape with random weights (bench/make-model.mjs) is quantised at 3.25 bits by the real command, without
// text and with Hessians of random token ids. The 7B figures are extrapolated: without a Hessian by the number of
// weights, with one by the products that dominate, out n^2 of every tensor (feedback and descent) and n^3 of its factor.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    work: { type: 'string' },
    shape: { type: 'string', default: 'llama-1b' },
    layers: { type: 'string' },
    threads: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '4096' },
  },
});
const work = options.work ?? mkdtempSync(join(tmpdir(), 'surprisal-pvq-'));
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const node = (...argv) => {
  const ended = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`${argv.join(' ')}\n${ended.stdout}${ended.stderr}`);
  return ended.stdout;
};

const layers = options.layers ? ['--layers', options.layers] : [];
const model = join(work, `${options.shape}-${options.layers ?? 'all'}`);
if (!existsSync(join(model, 'config.json'))) {
  node(here('make-model.mjs'), '--shape', options.shape, ...layers, '--vocab', '32000', '--out', model);
}
const ids = Array.from({ length: Number(options.tokens) }, (_, i) => (i * 7919 + 13 * (i >> 4)) % 32000);
const text = join(work, 'ids.jsonl');
writeFileSync(text, `${JSON.stringify({ input_ids: ids })}\n`);

/** Linears of a decoder layer: [out, in]. */
function linears({ hidden, kvWidth, mlp }) {
  return [
    [hidden, hidden],
    [kvWidth, hidden],
    [kvWidth, hidden],
    [hidden, hidden],
    [mlp, hidden],
    [mlp, hidden],
    [hidden, mlp],
  ];
}
const SEVEN = linears({ hidden: 4096, kvWidth: 4096, mlp: 11008 });
const weightsOf = (shapes) => shapes.reduce((sum, [out, n]) => sum + out * n, 0);
const workOf = (shapes) => shapes.reduce((sum, [out, n]) => sum + 4 * out * n * n + n ** 3 / 3, 0);

function run(name, more) {
  const out = join(work, 'quantised');
  const timings = join(work, 'timings.json');
  const report = join(work, 'report.json');
  rmSync(out, { recursive: true, force: true });
  const argv = ['quantize-pvq', '--model', model, '--out', out, '--bpw', '3.25', '--threads', options.threads];
  node(here('../bin/surprisal.js'), ...argv, '--quiet', '--timings', timings, '--report', report, '--force', ...more);
  const { stages, host, tensors } = JSON.parse(readFileSync(timings, 'utf8'));
  const { quantized, sqnr_db: sqnr, tensors: records } = JSON.parse(readFileSync(report, 'utf8'));
  const seconds = tensors.reduce((sum, tensor) => sum + tensor.seconds, 0);
  const stage = (wanted) => stages.find((found) => found.name === wanted)?.seconds ?? 0;
  const rate = quantized.weights / seconds / 1e6;
  const shapes = records.map(({ rows, columns }) => [rows, columns]);
  const factor = more.length > 0 ? (32 * workOf(SEVEN)) / workOf(shapes) : (32 * weightsOf(SEVEN)) / weightsOf(shapes);
  console.log(
    `${name}: ${(quantized.weights / 1e6).toFixed(0)} Mweights, ${seconds.toFixed(1)} s in tensors (${rate.toFixed(1)} Mweights/s), ` +
      `whole stage ${stage('quantise').toFixed(1)} s, calibration ${stage('calibrate').toFixed(1)} s, ` +
      `${quantized.bits_per_weight.toFixed(4)} bits, ${sqnr.toFixed(2)} dB, peak ${(host.peak_resident_bytes / 2 ** 20).toFixed(0)} MiB; ` +
      `extrapolated to 7B: ${((seconds * factor) / 60).toFixed(1)} min in tensors`,
  );
}

console.log(`${options.shape}, ${options.threads} threads`);
run('without text', []);
run('with Hessians', [
  '--data',
  text,
  '--calib-tokens',
  options.tokens,
  '--calib-length',
  '1024',
  '--allocation',
  'uniform',
  '--prefix-token',
  '0',
]);
if (!options.work) rmSync(work, { recursive: true });
