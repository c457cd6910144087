// Compiles native/src into native/build/surprisal.node with whatever C++ compiler is there, from the headers of the
// npm package node-api-headers: no node-gyp, no network. Runs as the package's `install` script, so it must never
// break an installation: without a compiler it prints one line and ends with 0, and the TypeScript kernels serve.
//
//   node native/build.mjs            build when sources, flags or compiler changed
//   node native/build.mjs --strict   the same, but print the compiler's errors and end with 1 when it fails
//   node native/build.mjs --force    build even when up to date
//
// Environment: CXX names the compiler; SURPRISAL_NO_NATIVE=1 skips the build.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const nativeDirectory = dirname(fileURLToPath(import.meta.url));
const sourceDirectory = join(nativeDirectory, 'src');
const buildDirectory = join(nativeDirectory, 'build');
const addon = join(buildDirectory, 'surprisal.node');
const stampFile = join(buildDirectory, 'stamp');
const strict = process.argv.includes('--strict');
const force = process.argv.includes('--force');

/** Hash of all that the addon is made of, but for the compiler. */
let sourceHash = '';

/** [sourceHash, name of the compiler] of the addon that is there; empty strings when there is none. */
function builtFrom() {
  if (!existsSync(addon) || !existsSync(stampFile)) return ['', ''];
  const [source = '', compiler = ''] = readFileSync(stampFile, 'utf8').split('\n');
  return [source, compiler];
}

/** Prints the one line an installation shows and ends: 0, or 1 under --strict. */
function giveUp(reason, detail = '') {
  if (sourceHash !== '' && builtFrom()[0] === sourceHash) {
    console.log(`surprisal: native kernels kept as they were built before (${reason})`);
  } else {
    // An addon of other sources would answer differently from the TypeScript beside it.
    rmSync(addon, { force: true });
    rmSync(stampFile, { force: true });
    console.log(`surprisal: no native kernels (${reason}); the TypeScript kernels will be used, which are slower`);
  }
  if (strict && detail !== '') console.error(detail);
  process.exit(strict ? 1 : 0);
}

/** The first of $CXX, c++, g++, clang++ that answers, with the first line of its version. */
function findCompiler() {
  const candidates = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++'];
  for (const candidate of candidates) {
    // CXX may carry arguments, as in "ccache g++".
    const [command, ...prefix] = candidate.trim().split(/\s+/);
    const answer = spawnSync(command, [...prefix, '--version'], { encoding: 'utf8' });
    if (answer.status === 0) return { command, prefix, version: answer.stdout.split('\n')[0].trim() };
  }
  return undefined;
}

function includeDirectory() {
  const require = createRequire(import.meta.url);
  try {
    return require('node-api-headers').include_dir;
  } catch {
    return undefined;
  }
}

const commonFlags = ['-std=c++17', '-O3', '-fPIC', '-pthread', '-fvisibility=hidden', '-ffp-contract=off'];

/** Flags of one translation unit: the suffix before .cpp names the instruction set it may use. */
function unitFlags(file) {
  if (process.arch !== 'x64') return [];
  if (file.endsWith('.avx2.cpp')) return ['-mavx2', '-mfma', '-mf16c'];
  if (file.endsWith('.avx512.cpp')) {
    return [
      '-mavx512f',
      '-mavx512bw',
      '-mavx512dq',
      '-mavx512vl',
      '-mavx2',
      '-mfma',
      '-mf16c',
      '-mprefer-vector-width=512',
    ];
  }
  return [];
}

/** Runs one compiler process; resolves to its exit code and what it said. */
function run(compiler, args) {
  return new Promise((resolve) => {
    const child = spawn(compiler.command, [...compiler.prefix, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', (error) => resolve({ code: 1, output: String(error) }));
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

/** Runs the jobs, at most as many at a time as there are processors. Stops at the first that fails. */
async function runAll(compiler, jobs) {
  const queue = [...jobs];
  let failure;
  const lane = async () => {
    for (let args = queue.shift(); args !== undefined && failure === undefined; args = queue.shift()) {
      const result = await run(compiler, args);
      if (result.code !== 0) failure ??= result.output;
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), jobs.length) }, lane));
  return failure;
}

async function build() {
  if (process.env.SURPRISAL_NO_NATIVE === '1') {
    console.log('surprisal: native kernels not built (SURPRISAL_NO_NATIVE=1)');
    return;
  }
  if (process.platform === 'win32') giveUp('Windows is not supported');

  const files = readdirSync(sourceDirectory).sort();
  const read = (file) => readFileSync(join(sourceDirectory, file));
  const headers = createHash('sha256').update(JSON.stringify([commonFlags, process.platform, process.arch]));
  for (const file of files.filter((name) => name.endsWith('.hpp'))) headers.update(`${file}\0`).update(read(file));
  const headerHash = headers.digest('hex');
  const units = files.filter((file) => file.endsWith('.cpp'));
  const unitHashes = units.map((file) => {
    const hash = createHash('sha256')
      .update(headerHash)
      .update(`${file}\0${unitFlags(file).join(' ')}\0`);
    return hash.update(read(file)).digest('hex');
  });
  sourceHash = createHash('sha256').update(unitHashes.join('\n')).digest('hex');

  const include = includeDirectory();
  if (include === undefined) giveUp('node-api-headers is not installed');
  const compiler = findCompiler();
  if (compiler === undefined) giveUp('no C++ compiler found; set CXX to one');
  const compilerName = JSON.stringify(compiler);
  const [builtSource, builtCompiler] = builtFrom();
  if (!force && builtSource === sourceHash && builtCompiler === compilerName) return;
  const compilerHash = createHash('sha256').update(compilerName).digest('hex').slice(0, 8);
  const plan = units.map((file, i) => ({
    file,
    object: join(buildDirectory, `${file}.${unitHashes[i].slice(0, 16)}.${compilerHash}.o`),
  }));

  mkdirSync(buildDirectory, { recursive: true });
  // Objects carry a hash of all that went into them, so one that is there is right. Each is written under the name of
  // this process first: two builds at once do not see each other's halves.
  const compile = plan.filter((unit) => force || !existsSync(unit.object));
  const temporary = (path) => `${path}.${process.pid}.tmp`;
  const failure = await runAll(
    compiler,
    compile.map((unit) => [
      ...commonFlags,
      ...unitFlags(unit.file),
      '-I',
      include,
      '-c',
      join(sourceDirectory, unit.file),
      '-o',
      temporary(unit.object),
    ]),
  );
  if (failure !== undefined) {
    for (const unit of compile) rmSync(temporary(unit.object), { force: true });
    giveUp(`${compiler.version} could not compile them; node native/build.mjs --strict shows why`, failure);
  }
  for (const unit of compile) renameSync(temporary(unit.object), unit.object);

  const systemFlags = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : ['-Wl,-z,nodelete'];
  const link = await run(compiler, [
    '-shared',
    '-pthread',
    ...systemFlags,
    ...plan.map((unit) => unit.object),
    '-o',
    temporary(addon),
  ]);
  if (link.code !== 0) {
    rmSync(temporary(addon), { force: true });
    giveUp(`${compiler.version} could not link them; node native/build.mjs --strict shows why`, link.output);
  }
  renameSync(temporary(addon), addon);
  writeFileSync(stampFile, `${sourceHash}\n${compilerName}\n`);
  const wanted = new Set(plan.map((unit) => unit.object));
  for (const file of readdirSync(buildDirectory)) {
    if (file.endsWith('.o') && !wanted.has(join(buildDirectory, file))) {
      rmSync(join(buildDirectory, file), { force: true });
    }
  }
  console.log(`surprisal: native kernels built with ${compiler.version}`);
}

try {
  await build();
} catch (error) {
  giveUp(error instanceof Error ? error.message.split('\n')[0] : String(error), String(error?.stack ?? error));
}
