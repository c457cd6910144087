import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { type DType, elementCount } from '../../src/formats/tensor.js';
import { widenToF64 } from '../../src/kernels/dtypes.js';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { readCheckpoint, readConfig, writeCheckpoint } from '../models/rewritten-checkpoint.js';
import { type Ended, interrupted, resident, surprisal } from './run-surprisal.js';

const directory = temporaryFolder();
const at = (name: string): string => join(directory, name);
const BASE = 'fixtures/models/llama-sotu';
const MOBY = 'fixtures/models/llama-sotu-ft-moby';
const RECENT = 'fixtures/models/llama-sotu-ft-recent';

function yaml(name: string, text: string): string {
  writeFileSync(at(name), text);
  return at(name);
}

const fuse = (...argv: readonly string[]): Ended => resident(['fuse', 'merge', ...argv]);

function tensorsOf(path: string): Map<string, { readonly dtype: string; readonly values: Float64Array }> {
  const store = openSafetensors(path);
  try {
    return new Map(
      [...store.tensors.values()].map((info) => {
        const bytes = new Uint8Array(info.byteLength);
        store.readInto(info, 0, bytes.length, bytes);
        const values = new Float64Array(elementCount(info.shape));
        widenToF64(bytes, info.dtype as DType, values);
        return [info.name, { dtype: info.dtype, values }];
      }),
    );
  } finally {
    store.close();
  }
}

/** Element of the first difference, or -1. Millions of elements take `toEqual` seconds. */
const differenceOf = (a: Float64Array, b: Float64Array): number => a.findIndex((value, i) => !Object.is(value, b[i]));

function expectSameTensors(path: string, other: string): void {
  const [first, second] = [path, other].map(tensorsOf);
  expect([...first.keys()].sort()).toEqual([...second.keys()].sort());
  for (const [name, { dtype, values }] of first) {
    const { dtype: type, values: found = new Float64Array() } = second.get(name) ?? {};
    expect([type, found.length, differenceOf(values, found)]).toEqual([dtype, values.length, -1]);
  }
}

const filesOf = (path: string): Record<string, string> =>
  Object.fromEntries(readdirSync(path).map((file) => [file, readFileSync(join(path, file), 'latin1')]));

const TIES = `
models:
  - model: ${MOBY}
    parameters: { weight: 0.6, density: 0.5 }
  - model: ${RECENT}
    parameters: { weight: [0.2, 0.8], density: 0.4 }
merge_method: ties
base_model: ${BASE}
dtype: bfloat16
`;

describe('fuse merge', { timeout: 120_000 }, () => {
  it('writes a model directory, a report, a table and a figure', () => {
    const config = yaml(
      'linear.yml',
      `
models:
  - model: ${MOBY}
    parameters: { weight: 3 }
  - model: ${RECENT}
    parameters: { weight: 1 }
merge_method: linear
dtype: float32
`,
    );
    const argv = [config, at('linear'), '--report', at('r.json'), '--table', at('t.csv'), '--plot', at('p.svg')];
    expect(fuse(...argv)).toMatchObject({ code: 0, stderr: '' });
    const [moby, recent, merged] = [MOBY, RECENT, at('linear')].map(tensorsOf);
    expect([...merged.keys()].sort()).toEqual([...moby.keys()].sort());
    for (const [name, { dtype, values }] of merged) {
      expect(dtype).toBe('F32');
      const expected = values.map((_, i) =>
        Math.fround(0.75 * (moby.get(name)?.values[i] ?? 0) + 0.25 * (recent.get(name)?.values[i] ?? 0)),
      );
      expect(differenceOf(values, expected)).toBe(-1);
    }
    expect(readConfig(at('linear'))).toMatchObject({ num_hidden_layers: 4, torch_dtype: 'float32' });
    expect(readdirSync(at('linear')).sort()).toEqual([
      'README.md',
      'config.json',
      'generation_config.json',
      'manifest.json',
      'mergekit_config.yml',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const report = readReport(at('r.json'));
    expect(report.inputs.map(({ path }) => basename(path)).sort()).toEqual([
      ...['config.json', 'config.json', 'linear.yml', 'model.safetensors', 'model.safetensors'],
      ...['tokenizer.json', 'tokenizer.json', 'tokenizer_config.json', 'tokenizer_config.json'],
    ]);
    expect(readFileSync(at('t.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(1 + 2 * merged.size);
    const manifest = readReport(join(at('linear'), 'manifest.json'));
    expect(manifest.schema).toBe('surprisal/fuse-merge-manifest');
    expect(readFileSync(at('p.svg'), 'utf8')).toContain('Cosines of the models');
    // The model is one like any other.
    expect(
      resident([
        'analyze-entropy',
        '--model',
        at('linear'),
        '--data',
        'fixtures/text/heldout_text.jsonl',
        '--limit',
        '1',
        '--quiet',
      ]).code,
    ).toBe(0);
  });

  it('gives the same bytes whatever threads, memory, shards and interruptions', async () => {
    const config = yaml('ties.yml', TIES);
    const reports = (name: string): string[] => ['--report', at(`${name}.json`), '--table', at(`${name}.csv`)];
    expect(fuse(config, at('a'), ...reports('a'), '--threads', '2').code).toBe(0);
    expect(fuse(config, at('b'), ...reports('b'), '--threads', '1', '--max-memory', '400MB').code).toBe(0);
    expect(filesOf(at('b'))).toEqual(filesOf(at('a')));
    for (const kind of ['json', 'csv'])
      expect(readFileSync(at(`b.${kind}`), 'utf8')).toBe(readFileSync(at(`a.${kind}`), 'utf8'));
    expect(fuse(config, at('c'), '--out-shard-size', '500KB').code).toBe(0);
    expect(readdirSync(at('c')).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2);
    expectSameTensors(at('c'), at('a'));
    const argv = ['fuse', 'merge', config, at('d'), ...reports('d'), '--threads', '1'];
    const begun = (): boolean => readdirSync(directory).some((name) => /^\.d\..*partial$/.test(name));
    await interrupted(argv, 'SIGKILL', begun);
    expect(existsSync(at('d'))).toBe(false);
    expect(surprisal([...argv, '--resume'])).toMatchObject({ code: 0, stderr: '' });
    expect(filesOf(at('d'))).toEqual(filesOf(at('a')));
    expect(readFileSync(at('d.json'), 'utf8')).toBe(readFileSync(at('a.json'), 'utf8'));
    expect(readdirSync(directory).filter((name) => name.startsWith('.d'))).toEqual([]);
    // A finished run is taken as it is, another one refused.
    expect(fuse(config, at('d'), ...reports('e'), '--resume').code).toBe(0);
    expect(readFileSync(at('e.json'), 'utf8')).toBe(readFileSync(at('a.json'), 'utf8'));
    const other = fuse(config, at('d'), '--resume', '--seed', '7');
    expect(other).toMatchObject({ code: 2 });
    expect(other.stderr).toMatch(/seed/);
  });

  it('takes the same merge from flags, several documents, and prints a plan', () => {
    const flags = ['--method', 'ties', '--base', BASE, '--model', MOBY, RECENT, '--weight', '0.6', '0.5'];
    expect(fuse(...flags, '--density', '0.5', '0.4', '--dtype', 'bfloat16', '--out', at('flags')).code).toBe(0);
    expect(fuse(yaml('plain.yml', TIES.replace('[0.2, 0.8]', '0.5')), at('plain')).code).toBe(0);
    expectSameTensors(at('flags'), at('plain'));
    const several = yaml(
      'several.yml',
      `
name: half
models:
  - { model: ${MOBY}, parameters: { weight: 1 } }
  - { model: ${RECENT}, parameters: { weight: 1 } }
merge_method: linear
dtype: bfloat16
---
models:
  - { model: half, parameters: { weight: 1 } }
  - { model: ${BASE}, parameters: { weight: 1 } }
merge_method: linear
dtype: bfloat16
`,
    );
    const planned = fuse(several, at('several'), '--dry-run');
    expect(planned).toMatchObject({ code: 0, stderr: '' });
    expect(planned.stdout).toContain('is planned when half');
    expect(existsSync(at('several'))).toBe(false);
    expect(fuse(several, at('several'), '--report', at('s.json')).code).toBe(0);
    const report = readReport(at('s.json')) as unknown as {
      documents: { name: string | null }[];
      inputs: { path: string }[];
    };
    expect(report.documents.map(({ name }) => name)).toEqual(['half', null]);
    expect(report.inputs.some(({ path }) => path.startsWith('half'))).toBe(false);
    expect(readdirSync(directory).filter((name) => name.startsWith('.several'))).toEqual([]);
  });

  it('says what is wrong, in one line, and leaves nothing behind', () => {
    const [tensors, config] = [readCheckpoint(MOBY), readConfig(MOBY)];
    const [name, tensor] = [...tensors].find(([key]) => key.endsWith('mlp.up_proj.weight')) ?? [];
    if (name === undefined || tensor === undefined) throw new Error('no tensor');
    const spoiled = tensor.bytes.slice();
    new Uint16Array(spoiled.buffer, 0, 3).fill(0x7fc0);
    tensors.set(name, { ...tensor, bytes: spoiled });
    writeCheckpoint(at('nan'), config, tensors);
    mkdirSync(at('cut'));
    for (const file of readdirSync(MOBY)) writeFileSync(join(at('cut'), file), readFileSync(join(MOBY, file)));
    truncateSync(join(at('cut'), 'model.safetensors'), 1_000_000);
    const cases: [string, RegExp][] = [
      [TIES.replace('ties', 'tis'), /wrong\.yml:7:15.*"tis".*ties/],
      [TIES.replace('density: 0.5', 'densty: 0.5'), /wrong\.yml:4:\d+.*densty.*density/],
      [TIES.replace(`base_model: ${BASE}\n`, ''), /base/],
      [TIES.replace(BASE, at('gone')), /gone.*no such/],
      [TIES.replace(MOBY, at('nan')), /nan: tensor .*up_proj\.weight: 3 of .* NaN/],
      [TIES.replace(MOBY, at('cut')), /truncated/],
      [
        TIES.replace(MOBY, 'fixtures/models/qwen2-moby'),
        /LlamaForCausalLM.*Qwen2ForCausalLM|Qwen2ForCausalLM.*LlamaForCausalLM/,
      ],
      [TIES.replace('density: 0.5', 'density: 0'), /density/],
    ];
    for (const [text, message] of cases) {
      const ended = fuse(yaml('wrong.yml', text), at('wrong'), '--report', at('wrong.json'));
      expect(ended).toMatchObject({ code: 2, stdout: '' });
      expect(ended.stderr).toMatch(message);
      expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(readdirSync(directory).filter((file) => /^\.?wrong(\.|$)(?!yml)/.test(file))).toEqual([]);
    }
    expect(fuse(yaml('nan.yml', TIES.replace(MOBY, at('nan'))), at('kept'), '--allow-nonfinite').code).toBe(0);
    expect(fuse(yaml('ok.yml', TIES), at('kept')).stderr).toMatch(/exists; pass --force/);
    expect(fuse(at('ok.yml'), at('x'), '--seed', '1', '--random-seed', '2').stderr).toMatch(/the same option/);
    expect(fuse(at('ok.yml'), at('x'), '--trust-remote-code').stderr).toMatch(/no code of models/);
    expect(fuse(at('ok.yml'), at('x'), '--search-groups', '2').stderr).toMatch(/--search-groups needs --search/);
    const judged = ['--search', 'none', '--search-data', 'fixtures/text/heldout_text.jsonl'];
    expect(fuse(at('ok.yml'), at('x'), ...judged, '--search-evaluations', '9').stderr).toMatch(/none does not read it/);
    expect(fuse(at('ok.yml'), at('x'), '--weight', '1').stderr).toMatch(/--weight: .*ok\.yml says/);
  });
});
