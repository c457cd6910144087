/**
 * Runs the benchmarks that need nothing but this repository. `scoring-speed.mjs` needs a model and its peers,
 * `tokenizers-vs-*.mjs` vocabularies and Python: their first lines say how. `entropy-kernel.mjs` takes `--python PYTHON`
 * for PyTorch's side.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

for (const file of ['entropy-kernel.mjs', 'peak-memory.mjs', 'start-up.mjs']) {
  console.log(`\n== ${file}`);
  const path = fileURLToPath(new URL(file, import.meta.url));
  const { status } = spawnSync(process.execPath, [path], { stdio: 'inherit' });
  if (status !== 0) process.exitCode = 1;
}
