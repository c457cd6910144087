// A multinomial probe to a gradient norm of 1e-8 against scikit-learn, on the same features and the same objective.
//
//   npm run build && node bench/probes.mjs [--rows 20000] [--features 1024] [--classes 50] [--decay 1e-3] [--threads 2]
//                    [--repeats 3] [--python PYTHON] [--solvers lbfgs,newton-cg] [--json FILE]
//
// Features are those of a random layer of rectified units over a mixture of Gaussians, which makes them as correlated as
// a network's. Every repeat takes each side once, in turn. Medians, with the least and the greatest.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { multiply } = await import(new URL('kernels/gemm.js', source));
const { configureKernels } = await import(new URL('kernels/native.js', source));
const { fitMultinomial, heldDesign } = await import(new URL('linalg/multinomial-newton.js', source));
const { gramOfDesign } = await import(new URL('probes/fit-set.js', source));
const { createRandom } = await import(new URL('random.js', source));

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string', default: '20000' },
    features: { type: 'string', default: '1024' },
    classes: { type: 'string', default: '50' },
    decay: { type: 'string', default: '1e-3' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '3' },
    python: { type: 'string' },
    solvers: { type: 'string', default: 'lbfgs,newton-cg' },
    json: { type: 'string' },
  },
});
const [rows, features, classes, decay, threads, repeats] = [
  options.rows,
  options.features,
  options.classes,
  options.decay,
  options.threads,
  options.repeats,
].map(Number);
configureKernels({ threads });

/** Standardised rectified units over 64 latent dimensions, and the component that made each row. */
function makeRows() {
  const random = createRandom(1);
  const latent = 64;
  const normal = (count, scale) => Float64Array.from({ length: count }, () => scale * random.normal());
  const centres = normal(classes * latent, 0.35);
  const mixing = normal(latent * features, 1 / 8);
  const labels = Int32Array.from({ length: rows }, () => random.integer(classes));
  const z = normal(rows * latent, 1);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < latent; k++) z[r * latent + k] += centres[labels[r] * latent + k];
  }
  const x = multiply(z, mixing, new Float64Array(rows * features), { m: rows, n: features, k: latent });
  for (let i = 0; i < x.length; i++) x[i] = Math.max(0, x[i] + 0.1 * random.normal());
  for (let j = 0; j < features; j++) {
    let [mean, square] = [0, 0];
    for (let r = 0; r < rows; r++) mean += x[r * features + j] / rows;
    for (let r = 0; r < rows; r++) square += (x[r * features + j] - mean) ** 2 / rows;
    for (let r = 0; r < rows; r++) x[r * features + j] = (x[r * features + j] - mean) / Math.sqrt(square + 1e-5);
  }
  return { x, labels };
}

const { x, labels } = makeRows();
const design = heldDesign(x, rows, features);
const fitOnce = () => {
  const start = performance.now();
  const gram = gramOfDesign(design, threads);
  const { objective, gradientNorm, passes } = fitMultinomial(design, labels, classes, decay, { gram, threads });
  return { seconds: (performance.now() - start) / 1000, objective, gradientNorm, passes };
};

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-bench-'));
const sides = new Map([['surprisal', []]]);
try {
  let peer;
  if (options.python) {
    writeFileSync(join(scratch, 'x.f64'), new Uint8Array(x.buffer));
    writeFileSync(join(scratch, 'y.i32'), new Uint8Array(labels.buffer));
    const script = fileURLToPath(new URL('probes.py', import.meta.url));
    const child = spawn(options.python, [script, scratch, rows, features, classes, decay].map(String), {
      env: { ...process.env, OMP_NUM_THREADS: String(threads), OPENBLAS_NUM_THREADS: String(threads) },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value);
    console.log(`scikit-learn ${(await next()).version}`);
    peer = {
      ask: (solver) => {
        child.stdin.write(`${solver}\n`);
        return next();
      },
      end: () => child.stdin.end(),
    };
  }
  for (let repeat = 0; repeat < repeats; repeat++) {
    sides.get('surprisal').push(fitOnce());
    for (const solver of peer ? options.solvers.split(',') : []) {
      const name = `scikit-learn ${solver}`;
      if (!sides.has(name)) sides.set(name, []);
      sides.get(name).push(await peer.ask(solver));
    }
  }
  peer?.end();
} finally {
  rmSync(scratch, { recursive: true });
}

console.log(`${rows} x ${features}, ${classes} classes, decay ${decay}, ${threads} threads, ${repeats} repeats`);
const result = [];
for (const [name, runs] of sides) {
  const seconds = runs.map((run) => run.seconds).sort((a, b) => a - b);
  const [last] = runs.slice(-1);
  const row = {
    name,
    median: seconds[seconds.length >> 1],
    least: seconds[0],
    greatest: seconds[seconds.length - 1],
    objective: last.objective,
    gradientNorm: last.gradientNorm,
    passes: last.passes,
  };
  result.push(row);
  console.log(
    `${name.padEnd(24)} ${row.median.toFixed(2)} s (${row.least.toFixed(2)} to ${row.greatest.toFixed(2)}), ` +
      `objective ${row.objective.toFixed(10)}, gradient ${row.gradientNorm.toExponential(1)}, passes ${row.passes}`,
  );
}
if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
