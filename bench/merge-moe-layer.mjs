// Claim: one layer of Mixtral's shape (8 experts of 4096 x 14336 in bf16) is aligned and merged in minutes on an ordinary
// processor, in the memory of a few experts; merging alone is not far from copying the same bytes.
//
//   npm run build && node bench/merge-moe-layer.mjs [--experts 8] [--groups 4] [--hidden 4096] [--width 14336] [--pairs N]
//        [--dtype BF16|F16|F32] [--kin 0] [--repeats 3] [--threads 2] [--work DIR]
//        [--phases copy,mean,gram,align,merge] [--json FILE]
//
// Writes a Mixtral directory of one layer. Experts are unrelated normal matrices, the hard case of the assignment; with --kin
// 0.5 they share half of their variance in permuted neurons. Every phase runs in a process of its own, which reports its
// seconds by step and its largest resident memory:
//   copy      reads and writes the files, synced
//   mean      expert by expert: read, add, divide, round, write a model of --groups experts (no alignment)
//   gram      inner products of all experts' weights with all
//   align     for --pairs pairs (default: all experts but the groups' dominants): gains, assignment exact, greedy and auction,
//             squared distances, and the sum of the pair
//   merge     as mean, every member aligned to its dominant first, as many members as --pairs
// copy, mean and gram are repeated and medians are given; align and merge run once, as medians over their pairs.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const src = new URL('../dist/src/', import.meta.url);
const load = (path) => import(new URL(path, src));

const { values: given } = parseArgs({
  options: {
    experts: { type: 'string', default: '8' },
    groups: { type: 'string', default: '4' },
    hidden: { type: 'string', default: '4096' },
    width: { type: 'string', default: '14336' },
    pairs: { type: 'string' },
    dtype: { type: 'string', default: 'BF16' },
    kin: { type: 'string', default: '0' },
    repeats: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    work: { type: 'string' },
    json: { type: 'string' },
    phases: { type: 'string', default: 'copy,mean,gram,align,merge' },
    phase: { type: 'string' },
  },
});
const [experts, groups, hidden, width, repeats, threads] = [
  given.experts,
  given.groups,
  given.hidden,
  given.width,
  given.repeats,
  given.threads,
].map(Number);
const pairs = Number(given.pairs ?? experts - groups);
const work = given.work ?? mkdtempSync(join(tmpdir(), 'surprisal-layer-'));
const source = join(work, 'source');
const target = join(work, 'target');
const matrix = width * hidden;
const layerBytes = experts * 3 * matrix * { BF16: 2, F16: 2, F32: 4 }[given.dtype];
const shape = { hidden, width, gated: true, activation: 'silu' };

const MATRICES = { w1: [width, hidden], w2: [hidden, width], w3: [width, hidden] };
const nameOf = (e, part) => `model.layers.0.block_sparse_moe.experts.${e}.${part}.weight`;

/** Nearly normal numbers of variance 1: sums of the four bytes of a xorshift generator (Marsaglia 2003). */
function createNoise(seed) {
  let x = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) | 1;
  const deviation = Math.sqrt((4 * (256 * 256 - 1)) / 12);
  return (into) => {
    for (let i = 0; i < into.length; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      into[i] = ((x & 255) + ((x >>> 8) & 255) + ((x >>> 16) & 255) + (x >>> 24) - 510) / deviation;
    }
  };
}

async function makeLayer() {
  const { createSafetensorsWriter } = await load('formats/safetensors-writer.js');
  const { narrowFromF32 } = await load('kernels/dtypes.js');
  const { createRandom } = await load('random.js');
  const { dtype } = given;
  const heads = Math.max(1, Math.floor(hidden / 128));
  const tensors = Object.entries({
    'model.embed_tokens.weight': [64, hidden],
    'model.layers.0.input_layernorm.weight': [hidden],
    'model.layers.0.post_attention_layernorm.weight': [hidden],
    'model.layers.0.self_attn.q_proj.weight': [heads * 8, hidden],
    'model.layers.0.self_attn.k_proj.weight': [heads * 8, hidden],
    'model.layers.0.self_attn.v_proj.weight': [heads * 8, hidden],
    'model.layers.0.self_attn.o_proj.weight': [hidden, heads * 8],
    'model.layers.0.block_sparse_moe.gate.weight': [experts, hidden],
    'model.norm.weight': [hidden],
    'lm_head.weight': [64, hidden],
  });
  for (let e = 0; e < experts; e++) {
    for (const [part, sides] of Object.entries(MATRICES)) tensors.push([nameOf(e, part), sides]);
  }
  mkdirSync(source, { recursive: true });
  const plan = tensors.map(([name, sides]) => ({ name, dtype, shape: sides }));
  const writer = createSafetensorsWriter(source, { plan, force: true });
  const kin = Number(given.kin);
  const [own, shared] = [Math.sqrt(1 - kin), Math.sqrt(kin)];
  const scale = 1 / Math.sqrt(hidden);
  // Rows of the matrices as neurons see them: down is drawn by columns, so its rows are cut from the common part by order.
  const write = (name, sides, seed, part, order) => {
    const [rows, columns] = sides.length === 1 ? [1, sides[0]] : sides;
    const noise = createNoise(seed);
    const drawn = new Float32Array(columns);
    const common = new Float32Array(columns);
    const bytes = new Uint8Array(columns * (dtype === 'F32' ? 4 : 2));
    for (let i = 0; i < rows; i++) {
      noise(drawn);
      if (part !== undefined && kin > 0) {
        createNoise(1e6 * (1 + part) + (part === 1 ? i : order[i]))(common);
        for (let j = 0; j < columns; j++) drawn[j] = own * drawn[j] + shared * common[part === 1 ? order[j] : j];
      }
      for (let j = 0; j < columns; j++) drawn[j] *= scale;
      narrowFromF32(drawn, dtype, bytes, 1);
      writer.write(name, bytes);
    }
  };
  tensors.forEach(([name, sides], seed) => {
    const found = /experts\.(\d+)\.w(\d)/.exec(name);
    const order = found && createRandom(Number(found[1])).permutation(width);
    write(name, sides, seed + 1, found ? Number(found[2]) - 1 : undefined, order);
  });
  writer.commit();
  const config = {
    architectures: ['MixtralForCausalLM'],
    model_type: 'mixtral',
    hidden_size: hidden,
    intermediate_size: width,
    num_hidden_layers: 1,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    head_dim: 8,
    num_local_experts: experts,
    num_experts_per_tok: Math.min(2, groups),
    vocab_size: 64,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    hidden_act: 'silu',
    tie_word_embeddings: false,
    torch_dtype: { BF16: 'bfloat16', F16: 'float16', F32: 'float32' }[dtype],
  };
  writeFileSync(join(source, 'config.json'), JSON.stringify(config));
}

const seconds = (steps, name, body) => {
  const from = process.hrtime.bigint();
  const result = body();
  steps[name] = [...(steps[name] ?? []), Number(process.hrtime.bigint() - from) / 1e9];
  return result;
};

/** Expert buffers that are read into again and again. */
const expertBuffers = () => ({
  gate: new Float32Array(matrix),
  up: new Float32Array(matrix),
  down: new Float32Array(matrix),
});

const phases = {
  copy(steps) {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const chunk = new Uint8Array(8 << 20);
    seconds(steps, 'total', () => {
      for (const file of readdirSync(source)) {
        const [from, to] = [openSync(join(source, file), 'r'), openSync(join(target, file), 'w')];
        for (;;) {
          const count = readSync(from, chunk, 0, chunk.length, null);
          if (count === 0) break;
          writeSync(to, chunk, 0, count);
        }
        fsyncSync(to);
        closeSync(from);
        closeSync(to);
      }
    });
  },

  mean: (steps) => mergeLayer(steps, 0),
  merge: (steps) => mergeLayer(steps, pairs),

  async gram(steps) {
    const { openExpertModel } = await load('moe/expert-layout.js');
    const { readExpert } = await load('moe/expert-reader.js');
    const { weightGram } = await load('moe/similarity.js');
    const model = openExpertModel(source);
    const read = (e) => seconds(steps, 'read', () => readExpert(model, 0, e, threads));
    const parts = ({ gate, up, down }) => [gate, down, up];
    seconds(steps, 'total', () => weightGram(experts, { read, held: Math.min(experts, 4) }, parts, threads));
  },

  async align(steps, figures) {
    const { openExpertModel } = await load('moe/expert-layout.js');
    const { readExpert } = await load('moe/expert-reader.js');
    const { alignmentGains, expertDistance } = await load('moe/alignment.js');
    const { solveAssignment } = await load('kernels/linear-assignment.js');
    const model = openExpertModel(source);
    const [reference, member] = [expertBuffers(), expertBuffers()];
    const gains = new Float32Array(width * width);
    seconds(steps, 'read', () => readExpert(model, 0, 0, threads, reference));
    for (let p = 0; p < pairs; p++) {
      const e = 1 + (p % (experts - 1));
      seconds(steps, 'read', () => readExpert(model, 0, e, threads, member));
      seconds(steps, 'gains', () => alignmentGains(reference, member, shape, { gains, threads }));
      for (const mode of ['exact', 'auction', 'greedy']) {
        const { permutation, gain, bound, gap } = seconds(steps, mode, () =>
          solveAssignment(gains, width, { mode, threads }),
        );
        const distance = seconds(steps, 'distance', () =>
          expertDistance(reference, member, shape, permutation, threads),
        );
        figures.push({ pair: p, mode, gain, bound, relative_gap: gap / bound, squared_distance: distance });
      }
    }
  },
};

/** The layer with every `experts / groups` neighbours made one; `aligned` members go to the neurons of their first. */
async function mergeLayer(steps, aligned) {
  const { openExpertModel } = await load('moe/expert-layout.js');
  const { readExpert } = await load('moe/expert-reader.js');
  const { createMergedModel } = await load('moe/merged-writer.js');
  const { alignExpert } = await load('moe/alignment.js');
  const { createCombination } = await load('moe/combine.js');
  const model = openExpertModel(source);
  const plan = { form: 'reduced', layers: [{ layer: 0, experts: groups, routerRows: groups }] };
  const head = { tool: { name: 'surprisal', version: '0' }, command: 'bench', parameters: {}, inputs: [] };
  const labels = Int32Array.from({ length: experts }, (_, e) => Math.floor((e * groups) / experts));
  const dominants = Int32Array.from({ length: groups }, (_, g) => labels.indexOf(g));
  const whole = () => {
    const writer = createMergedModel(model, target, plan, { head, force: true, threads });
    const sum = createCombination(shape, { threads });
    const [reference, member] = [expertBuffers(), aligned > 0 ? expertBuffers() : undefined];
    const gains = aligned > 0 ? new Float32Array(width * width) : undefined;
    let left = aligned;
    for (let g = 0; g < groups; g++) {
      for (let e = dominants[g]; e < experts && labels[e] === g; e++) {
        const buffers = e === dominants[g] ? reference : (member ?? reference);
        const expert = seconds(steps, 'read', () => readExpert(model, 0, e, threads, buffers));
        let permutation;
        if (e !== dominants[g] && left-- > 0) {
          const options = { gains, threads };
          permutation = seconds(steps, 'align', () => alignExpert(reference, expert, shape, options).permutation);
        }
        seconds(steps, 'add', () => sum.add(expert, 1, permutation));
      }
      // The dominant has been added: its memory takes the mean.
      const merged = seconds(steps, 'divide', () => sum.finish(0, reference));
      seconds(steps, 'write', () => writer.writeExpert(0, g, merged));
    }
    writer.writeRouter(0, { rows: dominants });
    seconds(steps, 'commit', () => {
      writer.finishLayer(0, {});
      writer.commit();
    });
  };
  seconds(steps, 'total', whole);
  model.close();
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const sumOf = (list) => list.reduce((sum, value) => sum + value, 0);

if (given.phase) {
  const steps = {};
  const figures = [];
  await phases[given.phase](steps, figures);
  process.stdout.write(JSON.stringify({ steps, figures, peakMib: process.resourceUsage().maxRSS / 1024 }));
} else {
  if (!existsSync(join(source, 'config.json'))) await makeLayer();
  const bytes = readdirSync(source).reduce((sum, file) => sum + statSync(join(source, file)).size, 0);
  const run = (phase) => {
    const args = Object.entries({ ...given, work, pairs: String(pairs), phase, json: undefined })
      .filter(([, value]) => value !== undefined)
      .flatMap(([key, value]) => [`--${key}`, value]);
    const done = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...args], { encoding: 'utf8' });
    if (done.status !== 0) throw new Error(done.stderr);
    return JSON.parse(done.stdout);
  };
  const wanted = given.phases.split(',');
  const results = Object.fromEntries(wanted.map((phase) => [phase, []]));
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const phase of wanted) {
      if (repeat === 0 || !['align', 'merge'].includes(phase)) results[phase].push(run(phase));
    }
  }
  console.log(
    `${experts} experts to ${groups}, [${width}, ${hidden}] ${given.dtype}, ${(layerBytes / 1e9).toFixed(2)} GB, ` +
      `${threads} threads, ${repeats} repeats, ${pairs} pairs aligned, kin ${given.kin}`,
  );
  const table = [];
  for (const [phase, runs] of Object.entries(results)) {
    const totals = runs.map(({ steps }) => sumOf(steps.total ?? Object.values(steps).flat()));
    const total = median(totals);
    const peakMib = Math.max(...runs.map((result) => result.peakMib));
    const perCall = Object.fromEntries(
      Object.keys(runs[0].steps)
        .filter((step) => step !== 'total')
        .map((step) => [step, median(runs.flatMap(({ steps }) => steps[step]))]),
    );
    const rate = bytes / 1e6 / total;
    table.push({
      phase,
      median_s: total,
      least_s: Math.min(...totals),
      greatest_s: Math.max(...totals),
      source_mb_per_s: rate,
      peak_mib: peakMib,
      calls_median_s: perCall,
      ...(phase === 'align' && {
        gflops_gains: (6 * width * width * hidden) / 1e9 / perCall.gains,
        pairs: runs[0].figures,
      }),
    });
    const calls = Object.entries(perCall).map(([step, time]) => `${step} ${time.toFixed(2)}`);
    console.log(
      `${phase.padEnd(6)} ${total.toFixed(2)} s (${Math.min(...totals).toFixed(2)}-${Math.max(...totals).toFixed(2)})  ` +
        `${rate.toFixed(0).padStart(5)} MB/s  peak ${peakMib.toFixed(0)} MiB  ${calls.length ? `a call, s: ${calls.join(', ')}` : ''}`,
    );
  }
  const named = Object.fromEntries(table.map((row) => [row.phase, row]));
  if (named.align) {
    console.log(`gains: ${named.align.gflops_gains.toFixed(0)} GFLOP/s`);
    for (const { pair, mode, gain, relative_gap, squared_distance } of named.align.pairs) {
      const figures = `gain ${gain.toPrecision(8)}, gap ${relative_gap.toExponential(1)} of the bound`;
      console.log(`pair ${pair} ${mode.padEnd(8)} ${figures}, squared distance ${squared_distance.toPrecision(6)}`);
    }
  }
  if (named.copy && named.mean) {
    const times = named.mean.median_s / named.copy.median_s;
    console.log(`merging alone takes ${times.toFixed(2)} times as long as copying`);
  }
  if (given.json) {
    const { experts: _, ...settings } = given;
    writeFileSync(given.json, `${JSON.stringify({ settings, experts, groups, pairs, bytes, table }, null, 2)}\n`);
  }
  if (!given.work) rmSync(work, { recursive: true, force: true });
}
