// Claim: merging tensors takes less time than mergekit's own functions on the same threads: linear at most 1/1.5 of it,
// near plain copying of the same bytes, ties at most a third.
//
//   npm run build && node bench/merge-kernels.mjs [--elements 16777216] [--dtype BF16] [--threads 2] [--repeats 9]
//                    [--only linear,slerp] [--python PYTHON] [--json FILE]
//
// One square tensor of every model in memory. Every repeat takes each side once, in turn; medians, in ns per element of
// the output and per element and model. The peer computes in the stored type, as mergekit does with that `dtype`.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = new URL('../dist/src/', import.meta.url);
const { kernelStatus } = await import(new URL('kernels/native.js', root));
const { narrowFromF32 } = await import(new URL('kernels/dtypes.js', root));
const { mergeMethod } = await import(new URL('fusion/merge/methods/registry.js', root));
const { measureTensor, nonFinite } = await import(new URL('kernels/merge-measures.js', root));
const { createRandom } = await import(new URL('random.js', root));

const { values: options } = parseArgs({
  options: {
    elements: { type: 'string', default: '16777216' },
    dtype: { type: 'string', default: 'BF16' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '9' },
    only: { type: 'string' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const [wanted, threads, repeats] = ['elements', 'threads', 'repeats'].map((name) => Number(options[name]));
const side = Math.floor(Math.sqrt(wanted));
const elements = side * side;
const dtype = options.dtype;
if (!kernelStatus().native) {
  console.error(`no native kernels: ${kernelStatus().reason}`);
  process.exit(1);
}

/**
 * Tensors beside the output: the base first where there is one. `weight` and `density` of every model, `parameters` of the
 * tensor, at most `repeats` where the peer sorts.
 */
const TABLE = [
  { method: 'linear', models: 2, weight: 1 },
  { method: 'linear', models: 5, weight: 1 },
  { method: 'slerp', base: true, models: 1, parameters: { t: 0.4 } },
  { method: 'nuslerp', models: 2, weight: 1 },
  { method: 'nuslerp', models: 2, weight: 1, parameters: { nuslerp_flatten: false } },
  { method: 'nuslerp', models: 2, weight: 1, parameters: { nuslerp_flatten: false, nuslerp_row_wise: true } },
  { method: 'multislerp', models: 3, weight: 1 },
  { method: 'multislerp', base: true, models: 3, weight: 1 },
  { method: 'karcher', models: 3 },
  { method: 'model_stock', base: true, models: 2 },
  { method: 'model_stock', base: true, models: 2, parameters: { filter_wise: true } },
  { method: 'nearswap', base: true, models: 1, parameters: { t: 0.0005 } },
  { method: 'arcee_fusion', base: true, models: 1 },
  { method: 'task_arithmetic', base: true, models: 2, weight: 0.5 },
  { method: 'ties', base: true, models: 2, weight: 0.5, density: 0.5, repeats: 3 },
  { method: 'ties', base: true, models: 2, weight: 0.5, density: 0.1, repeats: 3 },
  { method: 'dare_linear', base: true, models: 2, weight: 0.5, density: 0.5 },
  { method: 'dare_ties', base: true, models: 2, weight: 0.5, density: 0.5 },
  { method: 'breadcrumbs', base: true, models: 2, weight: 0.5, density: 0.6, repeats: 3 },
  { method: 'della', base: true, models: 2, weight: 0.5, density: 0.5, repeats: 3 },
  { method: 'sce', base: true, models: 2, parameters: { select_topk: 0.1 }, repeats: 3 },
  { method: 'sce', base: true, models: 2 },
  { method: 'ram', base: true, models: 2 },
  { method: 'ramplus_tl', base: true, models: 2 },
].filter(({ method }) => options.only === undefined || options.only.split(',').includes(method));

/** A base and its fine-tunes: normals of 0.02, and differences of 0.001. */
function makeTensors(count) {
  const random = createRandom(1);
  const noise = Float32Array.from({ length: 1 << 20 }, () => random.normal());
  return Array.from({ length: count }, (_, model) => {
    const values = new Float32Array(elements);
    for (let i = 0; i < elements; i++) {
      const change = model === 0 ? 0 : 0.001 * noise[(i * 7 + model * 104729) & 1048575];
      values[i] = 0.02 * noise[i & 1048575] + change;
    }
    const bytes = new Uint8Array(elements * (dtype === 'F32' ? 4 : 2));
    narrowFromF32(values, dtype, bytes);
    return { dtype, shape: [side, side], bytes };
  });
}

const most = Math.max(3, ...TABLE.map(({ base, models }) => models + (base ? 1 : 0)));
const tensors = makeTensors(most);
const output = { dtype, shape: [side, side], bytes: new Uint8Array(tensors[0].bytes.length) };

const seconds = (work) => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
};

function runOurs({ method: name, base = false, models, weight, density, parameters = {} }) {
  const method = mergeMethod(name);
  const defaults = (declared) => Object.fromEntries(declared.map((entry) => [entry.name, entry.default]));
  const inputs = tensors.slice(0, models + (base ? 1 : 0)).map((tensor, i) => ({
    model: `m${i}`,
    isBase: base && i === 0,
    tensor,
    parameters: {
      ...defaults(method.perModel),
      ...(weight !== undefined && { weight }),
      ...(density !== undefined && { density }),
    },
  }));
  method.merge({
    name: 'weight',
    inputs,
    parameters: { ...defaults(method.global), ...parameters },
    output,
    firstElement: 0,
    seed: 1,
    threads,
    variant: 'surprisal',
  });
}

/** A mergekit process that merges once for every line it is sent. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('merge-kernels.py', import.meta.url));
  const child = spawn(options.python, [script, String(side), dtype, String(threads), String(most)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => JSON.parse((await lines.next()).value);
  return {
    ...(await read()),
    ask: (entry) => {
      child.stdin.write(`${JSON.stringify(entry)}\n`);
      return read();
    },
    end: () => child.stdin.end(),
  };
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const ns = (time) => (1e9 * time) / elements;
const peer = await startPeer();
const rows = [];
const say = (name, models, ours, theirs) => {
  const row = {
    name,
    models,
    ns_per_element: ns(ours),
    ns_per_element_and_model: ns(ours) / models,
    peer_ns_per_element: theirs === undefined ? null : ns(theirs),
    ratio: theirs === undefined ? null : theirs / ours,
  };
  rows.push(row);
  const other = theirs === undefined ? '' : `  mergekit ${ns(theirs).toFixed(3)}  ${(theirs / ours).toFixed(1)}x`;
  console.log(
    `${name.padEnd(56)} ${row.ns_per_element.toFixed(3)} (${row.ns_per_element_and_model.toFixed(3)})${other}`,
  );
};
console.log(`${elements} elements of ${dtype}, ${threads} threads, medians of ${repeats}: ns per element (and model)`);

const copy = Array.from({ length: repeats }, () => seconds(() => output.bytes.set(tensors[0].bytes)));
say('copy of one tensor, one thread', 1, median(copy));
for (const entry of TABLE) {
  const [ours, theirs] = [[], []];
  runOurs(entry);
  if (peer !== undefined) await peer.ask(entry);
  for (let repeat = 0; repeat < Math.min(repeats, entry.repeats ?? repeats); repeat++) {
    ours.push(seconds(() => runOurs(entry)));
    if (peer !== undefined) theirs.push((await peer.ask(entry)).seconds);
  }
  const { density } = entry;
  const settings = JSON.stringify({ ...(density && { density }), ...entry.parameters }).replaceAll('"', '');
  const name = `${entry.method} ${entry.base ? 'base + ' : ''}${entry.models} ${settings}`;
  say(name, entry.models + (entry.base ? 1 : 0), median(ours), peer === undefined ? undefined : median(theirs));
}
const [base, a, b] = tensors;
const measured = Array.from({ length: repeats }, () =>
  seconds(() => measureTensor({ base, models: [a, b], merged: output, threads })),
);
say('measures of base + 2 + merged', 4, median(measured));
say(
  'search for NaN and infinities',
  1,
  median(Array.from({ length: repeats }, () => seconds(() => nonFinite(a, threads)))),
);
if (options.json !== undefined) {
  const { ask, end, ...versions } = peer ?? {};
  writeFileSync(
    options.json,
    `${JSON.stringify({ elements, dtype, threads, repeats, peer: versions, rows }, null, 2)}\n`,
  );
}
peer?.end();
