// A 7B-shaped merge (bfloat16, sharded) beside plain copying and mergekit, same machine and threads.
//   node bench/synthetic-7b.mjs FOLDER [--layers 32]
//   node bench/merge-7b.mjs FOLDER [--methods linear,slerp,ties,sce] [--mergekit PATH/mergekit-yaml] [--threads 2] [--repeats 1] [--kill]
// Wall time, MB/s of bytes read and written, peak memory. Files of the models are dropped from the page cache before every
// run where that is allowed. `ties` and `sce` take the second model twice, under two names. --kill: a run that is killed at half and
// resumed must give the bytes of an unbroken one.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    methods: { type: 'string', default: 'linear,slerp,ties,sce' },
    mergekit: { type: 'string' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '1' },
    kill: { type: 'boolean', default: false },
    bin: { type: 'string', default: 'bin/surprisal.js' },
  },
});
const folder = resolve(positionals[0]);
const [base, tuned] = ['base', 'tuned-1'].map((name) => join(folder, name));
const second = join(folder, 'tuned-2');
if (!existsSync(second)) {
  mkdirSync(second);
  for (const name of readdirSync(tuned)) symlinkSync(join(tuned, name), join(second, name));
}
const out = join(folder, 'out');
const weightBytes = (directory) =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.safetensors'))
    .reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
const bytes = weightBytes(base);

const CONFIGS = {
  linear: {
    reads: 2,
    text: `models:\n- {model: ${base}, parameters: {weight: 0.5}}\n- {model: ${tuned}, parameters: {weight: 0.5}}\nmerge_method: linear\ndtype: bfloat16\n`,
  },
  slerp: {
    reads: 2,
    text: `models:\n- {model: ${base}}\n- {model: ${tuned}}\nmerge_method: slerp\nbase_model: ${base}\nparameters: {t: 0.4}\ndtype: bfloat16\n`,
  },
  ties: {
    reads: 3,
    text: `models:\n- {model: ${tuned}, parameters: {weight: 0.6, density: 0.5}}\n- {model: ${second}, parameters: {weight: 0.4, density: 0.3}}\nmerge_method: ties\nbase_model: ${base}\ndtype: bfloat16\n`,
  },
  sce: {
    reads: 3,
    text: `models:\n- {model: ${tuned}}\n- {model: ${second}}\nmerge_method: sce\nbase_model: ${base}\nparameters: {select_topk: 0.5}\ndtype: bfloat16\n`,
  },
};

/** Runs a program; seconds and peak memory of it and its children. */
function timed(argv, env = {}) {
  // The page cache is dropped where this process may do so: otherwise a run finds what the one before has read.
  spawnSync('sh', ['-c', 'sync; echo 3 > /proc/sys/vm/drop_caches'], { stdio: 'ignore' });
  const started = performance.now();
  const { status, stderr } = spawnSync('/usr/bin/time', ['-f', '%M %U %S', ...argv], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, OMP_NUM_THREADS: values.threads, MKL_NUM_THREADS: values.threads, ...env },
  });
  const seconds = (performance.now() - started) / 1e3;
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr.slice(-500)}`);
  const [kib, user, system] = stderr.trimEnd().split('\n').at(-1).split(' ').map(Number);
  return { seconds, mib: kib / 1024, processor: user + system };
}

const median = (runs) => runs.toSorted((a, b) => a.seconds - b.seconds)[Math.floor(runs.length / 2)];
const repeated = (body) =>
  median(
    Array.from({ length: Number(values.repeats) }, () => {
      rmSync(out, { recursive: true, force: true });
      return body();
    }),
  );
const report = (name, reads, { seconds, mib, processor }) =>
  process.stdout.write(
    `${name.padEnd(22)} ${seconds.toFixed(1).padStart(7)} s ${(((reads + 1) * bytes) / 1e6 / seconds).toFixed(0).padStart(6)} MB/s ` +
      `${mib.toFixed(0).padStart(6)} MiB  processor ${processor.toFixed(0)} s\n`,
  );

process.stdout.write(
  `${(bytes / 1e9).toFixed(2)} GB a model, ${values.threads} threads, medians of ${values.repeats}\n`,
);
const copies = new Map();
for (const reads of new Set(values.methods.split(',').map((name) => CONFIGS[name].reads))) {
  // The same bytes: one model copied and put on the disk, the others read.
  const others = [tuned, second].slice(0, reads - 1).map((name) => `cat ${name}/*.safetensors > /dev/null`);
  const copy = `mkdir ${out} && cp ${base}/*.safetensors ${out} && sync -f ${out}; ${others.join('; ')}`;
  copies.set(
    reads,
    repeated(() => timed(['sh', '-c', copy])),
  );
  report(`copying, ${reads} read`, reads, copies.get(reads));
}
for (const name of values.methods.split(',')) {
  const config = join(folder, `${name}.yml`);
  const { text, reads } = CONFIGS[name];
  writeFileSync(config, text);
  const argv = [process.execPath, values.bin, 'fuse', 'merge', config, out, '--threads', values.threads, '--quiet'];
  const ours = repeated(() => timed(argv));
  report(`${name}, surprisal`, reads, ours);
  process.stdout.write(`  ${(copies.get(reads).seconds / ours.seconds).toFixed(2)} of copying's speed\n`);
  if (values.kill) {
    const digest = () =>
      readdirSync(out)
        .sort()
        .map(
          (file) =>
            `${file} ${createHash('sha256')
              .update(statSync(join(out, file)).size < 1e8 ? readFileSync(join(out, file)) : sha(join(out, file)))
              .digest('hex')}`,
        )
        .join('\n');
    const sha = (file) => spawnSync('sha256sum', [file], { encoding: 'utf8' }).stdout.split(' ')[0];
    const whole = digest();
    rmSync(out, { recursive: true, force: true });
    const child = spawn(argv[0], argv.slice(1), { stdio: 'ignore' });
    await new Promise((done) => setTimeout(done, 500 * ours.seconds));
    child.kill('SIGKILL');
    await new Promise((done) => child.once('exit', done));
    const resumed = timed([...argv, '--resume']);
    process.stdout.write(
      `  killed at half, resumed in ${resumed.seconds.toFixed(1)} s: ${digest() === whole ? 'the same bytes' : 'OTHER BYTES'}\n`,
    );
  }
  if (values.mergekit) {
    const theirs = repeated(() =>
      timed([values.mergekit, config, out, '--no-copy-tokenizer', '--quiet', '--num-threads', values.threads]),
    );
    report(`${name}, mergekit`, reads, theirs);
    process.stdout.write(`  surprisal is ${(theirs.seconds / ours.seconds).toFixed(2)} times as fast\n`);
  }
}
rmSync(out, { recursive: true, force: true });
