/** Runs every benchmark of this folder in turn; arguments go to each (`--python PATH` for the peers in Python). */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';

const folder = new URL('.', import.meta.url).pathname;
const skipped = new Set(['all.mjs', 'make-model.mjs']);
for (const file of readdirSync(folder)
  .filter((name) => name.endsWith('.mjs') && !skipped.has(name))
  .sort()) {
  console.log(`\n== ${file}`);
  const { status } = spawnSync(process.execPath, [`${folder}${file}`, ...process.argv.slice(2)], { stdio: 'inherit' });
  if (status !== 0) process.exitCode = 1;
}
