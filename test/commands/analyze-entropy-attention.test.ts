import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../src/formats/npy.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const MODEL = 'fixtures/models/llama-sotu';
/** Three documents of 1,500 characters. */
const TEXT = (() => {
  const [first] = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n');
  const { text } = JSON.parse(first) as { text: string };
  const path = join(folder, 'text.jsonl');
  const rows = [0, 1, 2].map((i) => JSON.stringify({ text: text.slice(1500 * i, 1500 * (i + 1)) }));
  writeFileSync(path, rows.join('\n'));
  return path;
})();
const attention = (...argv: string[]) => resident(['analyze-entropy', 'attention', ...argv]);
const base = ['--model', MODEL, '--data', TEXT, '--limit', '2', '--context', '64', '--quiet'];

interface Report {
  by_head: { entropy_nats: number; normalized_entropy: number; bin: number }[];
  bins: { relative: { shares: number[] } };
  regulariser: {
    loss: number;
    unscaled_loss: number;
    by_head: { loss: number; threshold_gradient: number; wanted_nats: number; penalised_queries: number }[];
  };
  fit: {
    settled: boolean;
    loss_before: number;
    loss_after: number;
    by_head: { entropy_nats_after: number; loss_after: number; threshold: number; temperature_greatest: number }[];
  };
}

function run(name: string, ...argv: string[]): Report {
  const report = out(`${name}.json`);
  expect(attention(...argv, '--report', report)).toMatchObject({ code: 0, stderr: '' });
  return readReport(report) as unknown as Report;
}

/** The tensors of a file of f64 values. */
function tensorsOf(path: string): Map<string, { shape: readonly number[]; values: Float64Array }> {
  const store = openSafetensors(path);
  const found = [...store.tensors.values()].map((tensor) => {
    const values = new Float64Array(tensor.byteLength / 8);
    store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
    return [tensor.name, { shape: tensor.shape, values }] as const;
  });
  store.close();
  return new Map(found);
}

interface Tensor {
  shape: number[];
  data: number[];
}

/** Writes a tensor as .npy and gives its path. */
function npy(name: string, shape: readonly number[], data: ArrayLike<number>): string {
  const path = out(name);
  writeFileSync(path, encodeNpy(Float64Array.from(data), shape));
  return path;
}

describe('stored attention', () => {
  const golden = JSON.parse(readFileSync('fixtures/golden/attention-entropy/l3-h4-t12.json', 'utf8')) as {
    inputs: { attentions: Tensor; thresholds: Tensor; gamma: number };
    expected: Record<string, number> & Record<string, Tensor>;
  };
  const { attentions, thresholds } = golden.inputs;
  const stored = npy('attention.npy', attentions.shape, attentions.data);
  const wanted = npy('thresholds.npy', thresholds.shape, thresholds.data);

  it.each([
    ['code', 'unscaled_code_reduction_per_layer_thresholds', 'grad_code_reduction'],
    ['algorithm1', 'unscaled_algorithm1_reduction', 'grad_algorithm1_reduction'],
  ])('gives the figures of the authors, %s', (variant, loss, gradient) => {
    const more = ['--thresholds', wanted, '--variant', variant, '--lambda', '1', '--compat', '--quiet'];
    const { by_head, regulariser, bins } = run(`stored-${variant}`, '--attention', stored, ...more);
    expect(regulariser.unscaled_loss).toBeCloseTo(golden.expected[loss], 8);
    golden.expected.head_entropy.data.forEach((entropy, i) => {
      expect(by_head[i].entropy_nats).toBeCloseTo(entropy, 9);
      expect(by_head[i].bin).toBe(golden.expected.quartile_bin.data[i]);
      expect(regulariser.by_head[i].threshold_gradient).toBeCloseTo(golden.expected[gradient].data[i], 8);
    });
    bins.relative.shares.forEach((share, i) => {
      expect(share).toBeCloseTo(golden.expected.bin_fraction.data[i], 12);
    });
  });

  it('comes to the same from scores', () => {
    const scores = npy(
      'scores.npy',
      attentions.shape,
      attentions.data.map((a) => 7 + Math.log(a)),
    );
    const direct = run('direct', '--attention', stored, '--quiet');
    const scored = run('scored', '--attention', scores, '--from-scores', '--quiet');
    scored.by_head.forEach((head, i) => {
      expect(Math.abs(head.entropy_nats - direct.by_head[i].entropy_nats)).toBeLessThan(1e-9);
      expect(head.normalized_entropy).toBeCloseTo(
        golden.expected.head_entropy_normalised_by_log_visible_keys.data[i],
        7,
      );
    });
  });

  it('counts rows of NaN and rows without mass', () => {
    const data = attentions.data.slice();
    data.fill(Number.NaN, 12, 14);
    data.fill(0, 24, 36);
    const report = run('broken', '--attention', npy('broken.npy', attentions.shape, data), '--quiet');
    expect(report.by_head[0]).toMatchObject({ queries: 22, nan_queries: 1, masked_queries: 1 });
  });

  it.each([
    [
      'a shape',
      () => ['--attention', npy('flat.npy', [2, 3, 4, 4], new Array(96).fill(0))],
      /^error: attention: expected \[layer,batch,head,query,key\], got \[2,3,4,4\] in file .*flat.npy, tensor flat\n$/,
    ],
    [
      'sums',
      () => ['--attention', npy('sums.npy', [1, 1, 1, 2, 2], [1, 0, 0.5, 0.412])],
      /^error: attention layer 0 batch 0 head 0 query 1 sums to 0.912 \(tolerance 0.001\); are these logits\?/,
    ],
    [
      'later keys',
      () => ['--attention', npy('both.npy', [1, 1, 1, 2, 2], [0.5, 0.5, 0.5, 0.5])],
      /^error: attention layer 0 batch 0 head 0 query 0 gives 0.5 to key 1, .* pass --bidirectional\n$/,
    ],
    [
      'thresholds',
      () => ['--attention', stored, '--thresholds', npy('few.npy', [3], [0, 0, 0])],
      /few.npy, tensor few: expected \[4\] or \[3,4\], got \[3\]\n$/,
    ],
    ['a threshold', () => ['--attention', stored, '--thresholds', '1.2'], /^error: --thresholds 1.2: /],
    ['a model beside it', () => ['--attention', stored, '--model', MODEL], /^error: --model and --attention exclude/],
    ['options of nothing', () => ['--attention', stored, '--gamma', '0.1'], /^error: --gamma needs --thresholds/],
    ['a fit', () => ['--attention', stored, '--fit-temperatures', '--thresholds', '0.4'], /--fit-temperatures and/],
  ])('refuses %s', (_, argv, message) => {
    const { code, stderr } = attention(...argv());
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

describe('the regulariser of a model', () => {
  it('unites from shards to the bytes of a run without', () => {
    const more = ['--model', MODEL, '--data', TEXT, '--context', '64', '--thresholds', '0.4', '--quiet'];
    run('whole', ...more);
    const parts = [0, 1].map((shard) => {
      run(`part-${shard}`, ...more, '--shard', `${shard}/2`);
      return out(`part-${shard}.json`);
    });
    const united = out('united.json');
    expect(resident(['merge-reports', ...parts, '--out', united])).toMatchObject({ code: 0 });
    expect(readFileSync(united, 'utf8')).toBe(readFileSync(out('whole.json'), 'utf8'));
  });

  it.each(['code', 'algorithm1'])('has the gradient of its loss by temperatures and thresholds, %s', (variant) => {
    const more = [...base, '--variant', variant, '--lambda', '1', '--precision', 'f64', '--gamma', '0.1'];
    const gradients = out(`gradients-${variant}.safetensors`);
    const at = ['--temperatures', '1.2', '--thresholds', '0.45'];
    const report = run(`at-${variant}`, ...more, ...at, '--gradients', gradients, '--temperature-per', 'head');
    const found = tensorsOf(gradients);
    expect(found.get('temperatures')?.shape).toEqual([4, 4]);
    const thresholds = found.get('thresholds')?.values ?? new Float64Array(0);
    thresholds.forEach((value, i) => {
      expect(value).toBe(report.regulariser.by_head[i].threshold_gradient);
    });
    // The loss jumps where a query enters the tolerance: differences are compared where none did.
    const step = 1e-5;
    const moved = [1.2 - step, 1.2 + step].map((t) =>
      run('moved', ...more, '--temperatures', String(t), '--thresholds', '0.45', '--force'),
    );
    let compared = 0;
    found.get('temperatures')?.values.forEach((value, i) => {
      const [low, high] = moved.map((each) => each.regulariser.by_head[i]);
      if (low.penalised_queries !== high.penalised_queries) return;
      compared++;
      expect(Math.abs((high.loss - low.loss) / (2 * step) - value)).toBeLessThan(1e-4 * (1 + Math.abs(value)));
    });
    expect(compared).toBeGreaterThan(3);
  });

  it('has gradients by position whose sums over positions are those by head', () => {
    const [byHead, byPosition] = ['head', 'position'].map((unit) => {
      const path = out(`gradient-${unit}.safetensors`);
      run(`gradient-${unit}`, ...base, '--thresholds', '0.45', '--gradients', path, '--temperature-per', unit);
      return tensorsOf(path).get('temperatures');
    });
    expect(byPosition?.shape).toEqual([4, 4, 64]);
    byHead?.values.forEach((value, i) => {
      const sum = byPosition?.values.subarray(64 * i, 64 * (i + 1)).reduce((a, b) => a + b, 0);
      expect(sum).toBeCloseTo(value, 9);
    });
  });
});

describe('a fit of temperatures', () => {
  it.each([
    ['code', 'position'],
    ['algorithm1', 'head'],
  ])('%s by %s: its temperatures, read back, give the loss that it reached', (variant, unit) => {
    const temperatures = out(`temperatures-${variant}.safetensors`);
    const fitting = ['--fit-temperatures', '--temperature-per', unit, '--temperatures-out', temperatures];
    const more = [...base, '--thresholds', '0.4', '--variant', variant];
    const { fit, regulariser } = run(`fit-${variant}`, ...more, ...fitting);
    expect(fit.settled).toBe(true);
    expect(fit.loss_after).toBeLessThan(fit.loss_before);
    expect(fit.loss_before).toBeCloseTo(regulariser.loss, 12);
    const after = run(`after-${variant}`, ...more, '--temperatures', temperatures);
    expect(after.regulariser.loss).toBeCloseTo(fit.loss_after, 10);
    after.by_head.forEach((head, i) => {
      expect(head.entropy_nats).toBeCloseTo(fit.by_head[i].entropy_nats_after, 10);
    });
    expect(tensorsOf(temperatures).get('temperatures')?.shape).toEqual(unit === 'head' ? [4, 4] : [4, 4, 64]);
  });

  it('writes the same bytes for any number of threads, and thresholds that it learns', () => {
    const files = [1, 3].map((threads) => {
      const path = out(`learnt-${threads}.safetensors`);
      const more = ['--thresholds', 'learn', '--fit-temperatures', '--temperatures-out', path];
      run(`learnt-${threads}`, ...base, ...more, '--threads', String(threads));
      return readFileSync(path);
    });
    expect(files[1].equals(files[0])).toBe(true);
    expect(readFileSync(out('learnt-3.json'), 'utf8')).toBe(readFileSync(out('learnt-1.json'), 'utf8'));
    const thresholds = tensorsOf(out('learnt-1.safetensors')).get('thresholds')?.values ?? [];
    expect(thresholds.length).toBe(16);
    for (const threshold of thresholds) expect(threshold >= 0 && threshold <= 1).toBe(true);
  });

  it('says what it needs', () => {
    const refused = (...argv: string[]): string => attention(...base, ...argv).stderr;
    expect(refused('--fit-temperatures')).toMatch('--fit-temperatures needs --thresholds');
    expect(refused('--thresholds', 'learn')).toMatch('--thresholds learn needs --fit-temperatures');
    expect(refused('--temperatures-out', 'x.npy')).toMatch('--temperatures-out needs --fit-temperatures');
    expect(refused('--gradients', 'x.npy', '--thresholds', '0.4')).toMatch(/a name ending in .safetensors is needed/);
    expect(refused('--fit-temperatures', '--thresholds', '0.4', '--shard', '0/2')).toMatch(/exclude each other/);
    expect(refused('--temperatures', '0')).toMatch('--temperatures 0: ');
    expect(refused('--from-scores')).toMatch('--from-scores needs --attention');
    const short = npy('short.npy', [4, 4, 32], new Float64Array(512).fill(1));
    expect(refused('--temperatures', short)).toMatch(/covers 32 positions, a window has 64; lower --context/);
    const zero = [...base, '--temperatures', '0'];
    const ended = surprisal(['analyze-entropy', 'attention', ...zero]);
    expect(ended).toEqual({ ...attention(...zero), code: 2 });
  });
});
