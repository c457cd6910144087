#!/usr/bin/env node
import { existsSync } from 'node:fs';

const entry = new URL('../dist/commands/main.js', import.meta.url);
if (existsSync(entry)) {
  const { main } = await import(entry.href);
  await main(process.argv.slice(2));
} else {
  process.stderr.write('error: surprisal is not built; run "npm run build" in its folder\n');
  process.exitCode = 2;
}
