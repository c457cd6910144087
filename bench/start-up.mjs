// Claim (e): the command starts in the time of a bare Node process and little more, and loads what it needs only.
//
//   npm run build && node bench/start-up.mjs [--repeats 21] [--json FILE]
//
// Bare `node -e 0`, `surprisal --version` and `surprisal --help` in turn; medians, with the least and the greatest, and
// the medians of the differences within a turn. A second pass lists the packages that each command loads.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: { repeats: { type: 'string', default: '21' }, json: { type: 'string' } },
});
const repeats = Number(options.repeats);
const binary = fileURLToPath(new URL('../bin/surprisal.js', import.meta.url));
const COMMANDS = {
  'node -e 0': ['-e', '0'],
  'surprisal --version': [binary, '--version'],
  'surprisal --help': [binary, '--help'],
};

/** Milliseconds of one process. */
function time(args) {
  const start = performance.now();
  const run = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const taken = performance.now() - start;
  if (run.status !== 0) throw new Error(`${args.join(' ')}: ${run.stderr}`);
  return taken;
}

const times = Object.fromEntries(Object.keys(COMMANDS).map((name) => [name, []]));
for (let repeat = -1; repeat < repeats; repeat++) {
  for (const [name, args] of Object.entries(COMMANDS)) {
    const taken = time(args);
    if (repeat >= 0) times[name].push(taken);
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const results = {};
for (const [name, taken] of Object.entries(times)) {
  const beyond = median(taken.map((ms, i) => ms - times['node -e 0'][i]));
  results[name] = {
    medianMs: median(taken),
    least: Math.min(...taken),
    greatest: Math.max(...taken),
    beyondNodeMs: beyond,
  };
  const spread = `(${Math.min(...taken).toFixed(0)} to ${Math.max(...taken).toFixed(0)})`;
  console.log(
    `${name.padEnd(22)} ${median(taken).toFixed(0).padStart(5)} ms ${spread.padEnd(14)} ${beyond.toFixed(0).padStart(5)} ms beyond node`,
  );
}

/** Writes every file that a module loader or a native addon brought in, one a line, to descriptor 3. */
const LIST = `data:text/javascript,${encodeURIComponent(`
  import fs from 'node:fs';
  import { createRequire, register } from 'node:module';
  process.on('exit', () => {
    const report = process.report.getReport();
    const lines = [...Object.keys(createRequire('file:///x.js').cache), ...report.sharedObjects];
    fs.writeSync(3, lines.join('\\n') + '\\n');
  });
  register('data:text/javascript,' + encodeURIComponent(\`
    import fs from 'node:fs';
    export async function load(url, context, next) { fs.writeSync(3, url + '\\\\n'); return next(url, context); }
  \`));
`)}`;
for (const [name, args] of Object.entries(COMMANDS).slice(1)) {
  const run = spawnSync(process.execPath, ['--import', LIST, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    encoding: 'utf8',
  });
  const loaded = String(run.output[3]).split('\n');
  const packages = new Set(loaded.flatMap((line) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(line)?.[1] ?? []));
  const own = loaded.filter((line) => line.startsWith('file:') && !line.includes('node_modules')).length;
  results[name].packages = [...packages].sort();
  results[name].ownModules = own;
  const heavy = [...packages].filter((item) => /onnxruntime|plot|resvg|linkedom|hyparquet/.test(item));
  console.log(`${name}: ${own} modules of its own; packages ${[...packages].sort().join(', ') || 'none'}`);
  if (heavy.length > 0 || loaded.some((line) => /\.node$/.test(line))) {
    console.error(`${name} loads what it does not need: ${heavy.join(', ') || 'a native addon'}`);
    process.exitCode = 1;
  }
}
if (options.json) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
