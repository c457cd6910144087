/**
 * Runs the benchmarks that need nothing but this repository; `--python PYTHON` adds their peers (torch, numpy, scipy,
 * scikit-learn, pandas, polars, orjson, vendi-score, dse-dsmi). The others need a model, vocabularies or room on the disk: their first lines say
 * how they are run.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Whether a file takes `--python`. */
const FILES = [
  ['entropy-kernel.mjs', true],
  ['peak-memory.mjs', false],
  ['start-up.mjs', false],
  ['symmetric-spectrum.mjs', true],
  ['vendi-score.mjs', true],
  ['diffusion-entropy.mjs', true],
  ['ksg.mjs', true],
  ['attention-entropy-32k.mjs', true],
  ['pvq-decode.mjs', true],
  ['assignment.mjs', true],
  ['optimizers.mjs', true],
  ['merge-kernels.mjs', true],
  ['token-maps.mjs', true],
  ['quantile-weights.mjs', true],
  ['evidence.mjs', true],
  ['policy-dynamics.mjs', true],
  ['policy-rows.mjs', true],
  ['json-columns.mjs', true],
  ['panel-operators.mjs', true],
];

for (const [file, hasPeer] of FILES) {
  console.log(`\n== ${file}`);
  const path = fileURLToPath(new URL(file, import.meta.url));
  const { status } = spawnSync(process.execPath, [path, ...(hasPeer ? process.argv.slice(2) : [])], {
    stdio: 'inherit',
  });
  if (status !== 0) process.exitCode = 1;
}
