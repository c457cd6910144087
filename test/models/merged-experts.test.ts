import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { Floats, TapEvent } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { logitsOf, relative, windowOf } from '../quantization/model-logits.js';
import { type Checkpoint, integerTensor, readCheckpoint, readConfig, writeCheckpoint } from './rewritten-checkpoint.js';

const ROOT = 'fixtures/architectures';
const folder = mkdtempSync(join(tmpdir(), 'surprisal-merged-'));
afterAll(() => rmSync(folder, { recursive: true }));

const EXPERT = /^(model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.)experts\.(\d+)\.(.*)$/;

/** One map a layer; null for a layer without experts. */
type Maps = readonly (readonly number[] | null)[];

function storedCount(map: readonly number[]): number {
  return Math.max(...map) + 1;
}

/** The checkpoint in which merged expert g is the first expert that maps to it. */
function remapped(tensors: Checkpoint, maps: Maps): Checkpoint {
  const merged: Checkpoint = new Map();
  for (const [name, tensor] of tensors) {
    const [, prefix, layer, expert, rest] = EXPERT.exec(name) ?? [];
    if (prefix === undefined) merged.set(name, tensor);
    else {
      const map = maps[Number(layer)] ?? [];
      const group = map[Number(expert)];
      if (map.indexOf(group) === Number(expert) && group >= 0) merged.set(`${prefix}experts.${group}.${rest}`, tensor);
    }
    const router = /^(model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.gate)\.weight$/.exec(name);
    const map = router && maps[Number(router[2])];
    if (router && map) merged.set(`${router[1]}.expert_map`, integerTensor(map));
  }
  return merged;
}

/** The same function as a standard checkpoint: copies of merged experts, zeros where an expert was dropped. */
function expanded(tensors: Checkpoint, maps: Maps): Checkpoint {
  const copies: Checkpoint = new Map();
  for (const [name, tensor] of tensors) {
    const [, prefix, layer, expert, rest] = EXPERT.exec(name) ?? [];
    const map = maps[Number(layer)];
    if (prefix === undefined || !map) copies.set(name, tensor);
    else {
      const group = map[Number(expert)];
      const source = tensors.get(`${prefix}experts.${map.indexOf(group)}.${rest}`);
      if (!source) throw new Error(name);
      copies.set(name, group < 0 ? { ...tensor, bytes: new Uint8Array(tensor.bytes.length) } : source);
    }
  }
  return copies;
}

let made = 0;
function write(name: string, router: 'remap' | 'reduced', counts: unknown, tensors: Checkpoint): string {
  const config = readConfig(join(ROOT, name));
  const extension = { version: 1, router, experts_per_layer: counts };
  const merged = {
    ...config,
    model_type: 'surprisal_moe',
    base_model_type: config.model_type,
    surprisal_moe: extension,
  };
  return writeCheckpoint(join(folder, `${name}-${made++}`), merged, tensors);
}

function writeRemapped(name: string, maps: Maps): string {
  const counts = maps.map((map) => map && storedCount(map));
  return write(name, 'remap', counts, remapped(readCheckpoint(join(ROOT, name)), maps));
}

const CASES: [string, Maps][] = [
  [
    'mixtral',
    [
      [0, 1, 0, 1],
      [0, 1, 2, 1],
    ],
  ],
  [
    'mixtral',
    [
      [-1, 0, 1, 0],
      [0, 0, 0, 0],
    ],
  ],
  ['qwen2-moe-shared', [[0, 1, 0, 2, 1, 0], null, [3, 2, 1, 0, -1, -1]]],
  [
    'qwen3-moe',
    [
      [0, 1, 2, 3, 0, 1, 2, 3],
      [-1, -1, 0, 0, -1, 1, 1, 0],
    ],
  ],
  [
    'qwen3-moe-unnormalised',
    [
      [0, 1, 1, 0],
      [-1, 0, -1, 0],
    ],
  ],
  [
    'olmoe',
    [
      [0, 0, 1, 1, 2, 2, 3, 3],
      [0, 0, 0, 0, 0, -1, 1, 1],
    ],
  ],
];

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;

describe('a merged model with a remapped router', () => {
  it.each(CASES)('%s %j computes what copies of its experts compute', async (name, maps) => {
    const config = readConfig(join(ROOT, name));
    const path = writeRemapped(name, maps);
    const copies = expanded(readCheckpoint(join(ROOT, name)), maps);
    const reference = writeCheckpoint(join(folder, `${name}-${made++}`), config, copies);
    const wanted = await logitsOf(openModelFiles(reference), 'f64');
    expect(relative(await logitsOf(openModelFiles(path), 'f64'), wanted)).toBeLessThan(1e-13);
    expect(relative(await logitsOf(openModelFiles(path), 'f32'), wanted)).toBeLessThan(1e-5);
  });

  it.each(['mixtral', 'qwen2-moe-shared', 'olmoe'])('%s under the identity keeps every bit', async (name) => {
    const description = openModelFiles(join(ROOT, name)).description;
    const maps = description.layers.map(({ mlp }) =>
      mlp.kind === 'moe' ? Array.from({ length: mlp.experts }, (_, e) => e) : null,
    );
    const path = writeRemapped(name, maps);
    for (const precision of ['f32', 'f64'] as const) {
      const wanted = await logitsOf(openModelFiles(join(ROOT, name)), precision);
      expect(await logitsOf(openModelFiles(path), precision)).toEqual(wanted);
    }
  });

  it('whose experts are all dropped adds nothing', async () => {
    const tensors = remapped(readCheckpoint(join(ROOT, 'mixtral')), [
      [0, -1, -1, -1],
      [0, -1, -1, -1],
    ]);
    for (const l of [0, 1]) {
      tensors.set(`model.layers.${l}.block_sparse_moe.gate.expert_map`, integerTensor([-1, -1, -1, -1]));
    }
    const path = write('mixtral', 'remap', [1, 1], tensors);
    const reference = expanded(readCheckpoint(join(ROOT, 'mixtral')), [
      [-1, -1, -1, -1],
      [-1, -1, -1, -1],
    ]);
    const copies = writeCheckpoint(join(folder, 'nothing'), readConfig(join(ROOT, 'mixtral')), reference);
    const wanted = await logitsOf(openModelFiles(copies), 'f32');
    expect(await logitsOf(openModelFiles(path), 'f32')).toEqual(wanted);
  });

  it('gives the same bits streamed, in batches and on any number of threads, and layers of a kind share a session', async () => {
    const path = writeRemapped('olmoe', CASES[5][1]);
    const whole = await run(path, OPTIONS, [windowOf(67)]);
    for (const threads of [1, 2, 3]) {
      const plan = { layersResident: false, headResident: false, headBlock: 24 };
      expect(await run(path, { ...OPTIONS, threads, plan }, [windowOf(67)])).toEqual(whole);
      const batch = await run(path, { ...OPTIONS, threads }, [windowOf(67), windowOf(67).slice(0, 1), windowOf(67)]);
      expect(batch.subarray(0, whole.length)).toEqual(whole);
    }
  });

  it('shows what its router and its merged experts saw', async () => {
    const maps = CASES[5][1];
    const path = writeRemapped('olmoe', maps);
    for (const length of [1, 2, 40]) {
      await inspect(path, windowOf(67).subarray(0, length), (event) => {
        const map = maps[event.layer] ?? [];
        const rows = event.count;
        const logits = event.taps.get('router_logits') ?? new Float64Array(0);
        expect(logits.length).toBe(rows * map.length);
        expectGroups(event, logits, map, rows);
      });
    }
  });
});

/** The checkpoint that keeps the listed experts of each layer, with their router rows. */
function reducedCheckpoint(tensors: Checkpoint, kept: Maps): Checkpoint {
  const maps = kept.map((list) => list && Array.from({ length: Math.max(...list) + 1 }, (_, e) => list.indexOf(e)));
  const reduced: Checkpoint = new Map();
  for (const [name, tensor] of remapped(tensors, maps)) {
    if (name.endsWith('.expert_map')) continue;
    const layer = Number(/^model\.layers\.(\d+)\.(block_sparse_moe|mlp)\.gate\.weight$/.exec(name)?.[1] ?? -1);
    const list = kept[layer];
    if (!list) reduced.set(name, tensor);
    else {
      const rowBytes = tensor.bytes.length / tensor.shape[0];
      const bytes = Buffer.concat(list.map((e) => tensor.bytes.subarray(e * rowBytes, (e + 1) * rowBytes)));
      reduced.set(name, { ...tensor, shape: [list.length, tensor.shape[1]], bytes });
    }
  }
  return reduced;
}

describe('a merged model with a reduced router', () => {
  it('is the standard model where layers have equally many experts', async () => {
    const kept = [[2, 0, 5], null, [1, 3, 4]];
    const tensors = reducedCheckpoint(readCheckpoint(join(ROOT, 'qwen2-moe-shared')), kept);
    const path = write('qwen2-moe-shared', 'reduced', [3, null, 3], tensors);
    const config = { ...readConfig(join(ROOT, 'qwen2-moe-shared')), num_experts: 3 };
    const standard = writeCheckpoint(join(folder, 'reduced'), config, tensors);
    expect(await logitsOf(openModelFiles(path), 'f32')).toEqual(await logitsOf(openModelFiles(standard), 'f32'));
  });

  it('may have another number of experts in every layer', async () => {
    const tensors = reducedCheckpoint(readCheckpoint(join(ROOT, 'olmoe')), [
      [2, 0, 5],
      [1, 3, 4, 6, 0],
    ]);
    const path = write('olmoe', 'reduced', [3, 5], tensors);
    const files = openModelFiles(path);
    expect(files.description.layers.map(({ mlp }) => mlp.kind === 'moe' && mlp.experts)).toEqual([3, 5]);
    const logits = await logitsOf(files, 'f32');
    expect(relative(logits, await logitsOf(openModelFiles(path), 'f64'))).toBeLessThan(1e-5);
  });
});

describe('a merged model is refused', () => {
  const tensors = (): Checkpoint => remapped(readCheckpoint(join(ROOT, 'mixtral')), CASES[0][1]);
  const broken = (change: (config: Record<string, unknown>, all: Checkpoint) => void): string => {
    const all = tensors();
    const config = readConfig(write('mixtral', 'remap', [2, 3], all));
    change(config, all);
    return writeCheckpoint(join(folder, `broken-${made++}`), config, all);
  };
  const name = 'model.layers.1.block_sparse_moe.gate.expert_map';
  const extension = (value: unknown) => (config: Record<string, unknown>) => {
    config.surprisal_moe = value;
  };
  const cases: [string, (config: Record<string, unknown>, all: Checkpoint) => void, RegExp][] = [
    ['no base', (config) => delete config.base_model_type, /"base_model_type" must name/],
    ['no extension', extension(undefined), /"surprisal_moe" is missing/],
    ['a later version', extension({ version: 2 }), /version 2 is not known/],
    [
      'an unknown router',
      extension({ version: 1, router: 'mean' }),
      /"router" is "mean"; expected "remap" or "reduced"/,
    ],
    ['too few counts', extension({ version: 1, router: 'remap', experts_per_layer: [2] }), /each of 2 layers/],
    [
      'too many experts',
      extension({ version: 1, router: 'remap', experts_per_layer: [2, 5] }),
      /layer 1.*has 5; expected an integer from 1 to 4/,
    ],
    [
      'fewer than a token chooses',
      extension({ version: 1, router: 'reduced', experts_per_layer: [2, 1] }),
      /layer 1 has 1 experts, of which a token chooses 2/,
    ],
    ['no map', (_, all) => all.delete(name), /gate\.expert_map" is missing/],
    [
      'a map of another length',
      (_, all) => all.set(name, integerTensor([0, 1, 2])),
      /expert_map" has shape \[3\].*\[4\]/,
    ],
    [
      'an entry that is no expert',
      (_, all) => all.set(name, integerTensor([0, 1, 3, 1])),
      /expert_map": entry 2 is 3; expected -1 \(dropped\) or an expert from 0 to 2/,
    ],
    [
      'a map of floats',
      (_, all) => all.set(name, { ...integerTensor([0, 0, 0, 0]), dtype: 'F32' }),
      /expert_map" is of F32; expected integers/,
    ],
    [
      'an expert too many',
      (_, all) => all.set('model.layers.0.block_sparse_moe.experts.2.w1.weight', integerTensor([1])),
      /unexpected tensor/,
    ],
  ];
  it.each(cases)('with %s', (_, change, message) => {
    const path = broken(change);
    expect(() => openModelFiles(path)).toThrow(InputError);
    expect(() => openModelFiles(path)).toThrow(message);
  });
});

type Options = Parameters<typeof createEngine>[1];

async function run(path: string, options: Options, windows: Int32Array[]): Promise<Floats> {
  const engine = await createEngine(openModelFiles(path), options);
  const groups = await engine.forward({ windows });
  const rows = gatherRows(
    groups,
    engine.model.hiddenSize,
    windows.map((window) => [0, window.length] as const),
  );
  await engine.normalize(rows);
  const logits = await engine.logits(rows);
  await engine.close();
  return logits;
}

async function inspect(path: string, window: Int32Array, onTap: (event: TapEvent) => void): Promise<void> {
  const engine: Engine = await createEngine(openModelFiles(path), { ...OPTIONS, precision: 'f64' });
  const taps = ['router_logits', 'mlp_input', 'expert_input', 'expert_hidden', 'expert_output'] as const;
  await engine.forward({ windows: [window], taps, onTap });
  await engine.close();
}

/** Rows and weights of merged experts against a plain recomputation from the router's logits (OLMoE: 3 of 8, not normalised). */
function expectGroups({ experts, taps }: TapEvent, logits: Floats, map: readonly number[], rows: number): void {
  if (!experts) throw new Error('no experts');
  const wanted = new Map<number, [row: number, weight: number][]>();
  for (let row = 0; row < rows; row++) {
    const z = [...logits.subarray(row * map.length, (row + 1) * map.length)];
    const exps = z.map((value) => Math.exp(value - Math.max(...z)));
    const total = exps.reduce((a, b) => a + b, 0);
    const chosen = z.map((_, e) => e).sort((a, b) => z[b] - z[a] || a - b);
    const byGroup = new Map<number, number>();
    for (const e of chosen.slice(0, 3)) byGroup.set(map[e], (byGroup.get(map[e]) ?? 0) + exps[e] / total);
    for (const [group, weight] of byGroup) {
      if (group >= 0) wanted.set(group, [...(wanted.get(group) ?? []), [row, weight]]);
    }
  }
  const groups = storedCount(map);
  const flat = Array.from({ length: groups }, (_, g) => wanted.get(g) ?? []);
  expect([...experts.counts]).toEqual(flat.map((members) => members.length));
  expect([...experts.rows]).toEqual(flat.flat().map(([row]) => row));
  flat.flat().forEach(([, weight], i) => {
    expect(experts.weights[i]).toBeCloseTo(weight, 12);
  });
  const input = taps.get('mlp_input') ?? new Float64Array(0);
  const hidden = input.length / rows;
  const seen = taps.get('expert_input') ?? new Float64Array(0);
  experts.rows.forEach((row, i) => {
    expect(seen.subarray(i * hidden, (i + 1) * hidden)).toEqual(input.subarray(row * hidden, (row + 1) * hidden));
  });
  expect(taps.get('expert_output')?.length).toBe(experts.rows.length * hidden);
}
