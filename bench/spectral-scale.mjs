// Spectral entropies at sizes that no matrix of pairs fits: time and peak resident memory, each case in a process of its
// own.
//
//   npm run build && node bench/spectral-scale.mjs [--work DIR] [--cases NAME,...] [--threads 2] [--json FILE]
//
//   cosine       1,000,000 x 384 of f32 (1.5 GB on disk), read once: the second moment [384, 384], all Vendi orders exact
//   fkea         the same file, 512 random frequencies: covariance [1024, 1024], order 1 with its error and half-D bias
//   diffusion    the same file, diffusion entropy of 512 random frequencies: two passes
//   pass         one product of the Gaussian kernel of 100,000 x 64 points with 64 vectors
//   slq          diffusion entropy of 100,000 x 64 points by quadrature, 64 probes
//
// The file is made once, in DIR (default: a temporary folder that is removed): 100 clusters of seeded normal noise.
// The first three must stay below 2 GB; the script ends with 1 when one does not.
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    work: { type: 'string' },
    cases: { type: 'string' },
    threads: { type: 'string', default: '2' },
    json: { type: 'string' },
    rows: { type: 'string', default: '1000000' },
    points: { type: 'string', default: '100000' },
    run: { type: 'string' },
    file: { type: 'string' },
  },
});
const COLUMNS = 384;
const DIMENSIONS = 64;
const SIGMA = 25;
const FREQUENCIES = 512;
const LIMIT_MB = 2000;
const rows = Number(options.rows);
const points = Number(options.points);
const threads = Number(options.threads);
const source = (path) => import(new URL(`../dist/src/${path}.js`, import.meta.url));

/** Rows of a cluster are its centre and a stretch of one long table of normal numbers. */
async function clustered(count, columns, visit) {
  const { createRandom } = await source('random');
  const random = createRandom(1);
  const table = Float32Array.from({ length: 1_000_003 }, () => random.normal());
  const centres = Float32Array.from({ length: 100 * columns }, () => random.normal());
  const block = new Float32Array(1000 * columns);
  let offset = 0;
  for (let start = 0; start < count; start += 1000) {
    const size = Math.min(1000, count - start);
    for (let i = 0; i < size; i++) {
      const centre = ((start + i) % 100) * columns;
      offset = (offset + 7919) % (table.length - columns);
      for (let k = 0; k < columns; k++) block[i * columns + k] = centres[centre + k] + table[offset + k];
    }
    visit(block.subarray(0, size * columns), start);
  }
}

async function makeFile(path) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${COLUMNS}), }`;
  const header = Buffer.from(`${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`);
  const magic = Buffer.from('\x93NUMPY\x01\x00\x00\x00', 'latin1');
  magic.writeUInt16LE(header.length, 8);
  const file = openSync(`${path}.part`, 'w');
  writeSync(file, Buffer.concat([magic, header]));
  await clustered(rows, COLUMNS, (block) => {
    writeSync(file, Buffer.from(block.buffer, block.byteOffset, block.byteLength));
  });
  closeSync(file);
  renameSync(`${path}.part`, path);
}

const entropyNats = (values) => {
  const kept = values.filter((value) => value > 0);
  const total = kept.reduce((sum, value) => sum + value, 0);
  return kept.reduce((sum, value) => sum - (value / total) * Math.log(value / total), 0);
};

async function openFile() {
  const { openFeatures } = await source('features/open-features');
  return openFeatures({ kind: 'file', path: options.file });
}

async function pointCloud() {
  const data = new Float32Array(points * DIMENSIONS);
  await clustered(points, DIMENSIONS, (block, start) => data.set(block, start * DIMENSIONS));
  return { data, n: points, d: DIMENSIONS };
}

/** Every case gives what to print. */
const CASES = {
  async cosine(products) {
    const { unitRows } = await source('diversity/unit-rows');
    const { featureCovariance } = await source('linalg/feature-map');
    const { rowMap } = await source('linalg/row-map');
    const { symmetricSpectrum } = await source('kernels/symmetric-spectrum');
    const moment = await featureCovariance(rowMap(unitRows(await openFile()), 'f32'), { products });
    return { what: 'Vendi order 1', value: Math.exp(entropyNats(symmetricSpectrum(moment, COLUMNS))) };
  },
  async fkea(products) {
    const { featureCovariance } = await source('linalg/feature-map');
    const { drawFrequencies, fourierMap, fourierScores } = await source('linalg/random-features');
    const omega = drawFrequencies(COLUMNS, FREQUENCIES, SIGMA, 1);
    const map = fourierMap(await openFile(), omega, FREQUENCIES, { products, precision: 'f32', sigma: SIGMA });
    const covariance = await featureCovariance(map, { products });
    const [score] = fourierScores(covariance, FREQUENCIES, [(values) => Math.exp(entropyNats(values))]);
    return { what: 'Vendi order 1', ...score };
  },
  async diffusion(products) {
    const { diffusionCovariance } = await source('linalg/feature-map');
    const { drawFrequencies, fourierMap } = await source('linalg/random-features');
    const { symmetricSpectrum } = await source('kernels/symmetric-spectrum');
    const omega = drawFrequencies(COLUMNS, FREQUENCIES, SIGMA, 1);
    const map = fourierMap(await openFile(), omega, FREQUENCIES, { products, precision: 'f32', sigma: SIGMA });
    const { covariance } = await diffusionCovariance(map, 1, { products });
    return { what: 'DSE bits', value: entropyNats(symmetricSpectrum(covariance, 2 * FREQUENCIES)) / Math.LN2 };
  },
  async pass(products) {
    const { gaussianOperator } = await source('linalg/kernel-operator');
    const operator = gaussianOperator(await pointCloud(), 5, { products, precision: 'f32' });
    const vectors = Float64Array.from({ length: 64 * points }, (_, i) => Math.sin(i));
    const out = new Float64Array(vectors.length);
    const started = performance.now();
    await operator.multiply(vectors, 64, out);
    const seconds = (performance.now() - started) / 1000;
    // Inner products of half the pairs, and 64 products with each entry.
    const operations = 2 * points * points * (DIMENSIONS / 2 + 64);
    return { what: 'GFLOP/s of products', value: operations / seconds / 1e9, seconds };
  },
  async slq(products) {
    const { anisotropicOperator } = await source('linalg/kernel-operator');
    const { estimateEntropies } = await source('linalg/estimated-entropy');
    const operator = await anisotropicOperator(await pointCloud(), 5, { products, precision: 'f32' });
    const { entropies, steps } = await estimateEntropies(operator, [{}, { power: 2 }], {
      seed: 1,
      threads,
      maxMemoryBytes: 2 ** 31,
    });
    const [{ value, standardError }] = entropies;
    return { what: `DSE bits (${steps} steps)`, value: value / Math.LN2, standardError: standardError / Math.LN2 };
  },
};

async function runCase(name) {
  const { openProducts } = await source('linalg/tiled-products');
  const products = openProducts({ threads });
  const started = performance.now();
  const result = await CASES[name](products);
  const seconds = (performance.now() - started) / 1000;
  await products.close();
  const peakMb = (process.resourceUsage().maxRSS * 1024) / 1e6;
  console.log(JSON.stringify({ name, seconds, peakMb, ...result }));
}

if (options.run) await runCase(options.run);
else {
  const work = options.work ?? mkdtempSync(join(tmpdir(), 'surprisal-scale-'));
  const file = join(work, `clusters-${rows}x${COLUMNS}.npy`);
  if (!existsSync(file)) await makeFile(file);
  const results = [];
  for (const name of options.cases?.split(',') ?? Object.keys(CASES)) {
    const args = [fileURLToPath(import.meta.url), '--run', name, '--file', file, '--threads', String(threads)];
    args.push('--rows', String(rows), '--points', String(points));
    const child = spawnSync(process.execPath, args, { encoding: 'utf8' });
    if (child.status !== 0) throw new Error(`${name}: ${child.stderr}`);
    const result = JSON.parse(child.stdout);
    results.push(result);
    const { seconds, peakMb, what, value, standardError, half } = result;
    const error = standardError === undefined ? '' : ` ± ${standardError.toPrecision(2)}`;
    const bias = half === undefined ? '' : ` (half the frequencies: ${half.toFixed(2)})`;
    console.log(
      `${name.padEnd(10)} ${seconds.toFixed(1).padStart(7)} s  peak ${peakMb.toFixed(0).padStart(5)} MB  ${what} ${value.toFixed(3)}${error}${bias}`,
    );
  }
  if (!options.work) rmSync(work, { recursive: true });
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ rows, points, threads, results }, null, 2)}\n`);
  process.exit(results.every(({ peakMb }) => peakMb < LIMIT_MB) ? 0 : 1);
}
