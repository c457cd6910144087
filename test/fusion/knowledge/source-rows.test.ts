import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeSafetensors } from '../../../src/formats/safetensors-writer.js';
import { movedLine, pairRows } from '../../../src/fusion/knowledge/row-pairs.js';
import { readSourceRows } from '../../../src/fusion/knowledge/source-rows.js';
import { temporaryFolder } from '../../formats/collect.js';

const folder = temporaryFolder();
const PLAIN = {
  input_ids: [3, 1, 2],
  attention_mask: [1, 1, 0],
  labels: [-100, 1, -100],
  per_step_logits: [[2.5, 1], [0.5], []],
  per_step_indices: [[4, 0], [1], []],
  metric_ce: 1.25,
  per_step_metric_ce: [1, 1.5, 0],
  per_step_aligned_logits_0: [[1], [2]],
  per_step_aligned_indices_0: [[8], [9]],
  metric_ce_aligned_0: 2,
};

function lines(name: string, ...rows: (object | string)[]): string {
  const path = join(folder, name);
  writeFileSync(path, rows.map((row) => `${typeof row === 'string' ? row : JSON.stringify(row)}\n`).join(''));
  return path;
}

const OPTIONS = { vocabulary: 5, pivotVocabulary: 10 };

describe('stored rows', () => {
  it('are read from JSON Lines, without the padding', async () => {
    const { rows } = await readSourceRows([lines('a.jsonl', PLAIN)], OPTIONS);
    const [row] = rows;
    expect(row.inputIds).toEqual(Int32Array.of(3, 1));
    expect(row.labels).toEqual(Int32Array.of(-100, 1));
    expect(row.rows).toEqual({
      offsets: Int32Array.of(0, 2, 3),
      ids: Int32Array.of(4, 0, 1),
      logits: Float64Array.of(2.5, 1, 0.5),
    });
    expect([row.metricCe, [...(row.perStepCe ?? [])]]).toEqual([1.25, [1, 1.5]]);
    expect(row.aligned).toEqual([
      {
        rows: { offsets: Int32Array.of(0, 1, 2), ids: Int32Array.of(8, 9), logits: Float64Array.of(1, 2) },
        metricCe: 2,
      },
    ]);
  });

  it('are read from tensors, -1 filling short lists', async () => {
    const path = join(folder, 't.safetensors');
    const tensors = [
      { name: 'input_ids', dtype: 'I32', shape: [2, 2], data: Int32Array.of(3, 1, 2, 0) },
      { name: 'attention_mask', dtype: 'U8', shape: [2, 2], data: Uint8Array.of(1, 1, 1, 0) },
      { name: 'per_step_indices', dtype: 'I32', shape: [2, 2, 2], data: Int32Array.of(4, 0, 1, -1, 2, 3, 0, 0) },
      { name: 'per_step_logits', dtype: 'F32', shape: [2, 2, 2], data: Float32Array.of(2, 1, 3, 0, 5, 4, 0, 0) },
      { name: 'metric_ce', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) },
    ] as const;
    writeFileSync(path, encodeSafetensors(tensors));
    const { rows } = await readSourceRows([path], OPTIONS);
    expect(rows.map(({ inputIds }) => [...inputIds])).toEqual([[3, 1], [2]]);
    expect(rows.map(({ rows: own }) => [...(own?.logits ?? [])])).toEqual([
      [2, 1, 3],
      [5, 4],
    ]);
    expect(rows.map(({ metricCe, place }) => [metricCe, place])).toEqual([
      [1, `${path}, row 0`],
      [2, `${path}, row 1`],
    ]);
    writeFileSync(path, encodeSafetensors(tensors.slice(1)));
    await expect(readSourceRows([path], OPTIONS)).rejects.toThrow(/no tensor input_ids/);
  });

  it('name what is wrong, and where', async () => {
    const faults: [object | string, RegExp][] = [
      [{ ...PLAIN, input_ids: undefined }, /f\.jsonl:1: no column input_ids/],
      [{ ...PLAIN, input_ids: [3, 5, 2] }, /input_ids, entry 1: token 5 is outside the vocabulary of 5/],
      [{ ...PLAIN, per_step_indices: [[4, 7], [1], []] }, /per_step_indices, step 0, entry 1: token 7 is outside/],
      [{ ...PLAIN, per_step_indices: [[4, 0], []] }, /step 1: 1 per_step_logits for 0 per_step_indices/],
      [{ ...PLAIN, per_step_indices: [[4, 0]] }, /per_step_indices has 1 steps for 2 tokens/],
      [{ ...PLAIN, per_step_indices: [[4, 4], [1]] }, /step 0 holds a token twice/],
      [{ ...PLAIN, per_step_indices: undefined }, /per_step_indices is missing beside per_step_logits/],
      [{ ...PLAIN, per_step_logits: [[2, null], [1]] }, /per_step_logits, step 0, entry 1 is NaN/],
      [{ ...PLAIN, per_step_aligned_indices_0: [[8], [10]] }, /per_step_aligned_indices_0, step 1, entry 0: token 10/],
      [{ ...PLAIN, attention_mask: [1, 0, 1] }, /attention_mask has a hole at position 1/],
      [{ ...PLAIN, attention_mask: [1] }, /attention_mask has 1 entries for 3/],
      [{ ...PLAIN, labels: ['a', 1, 2] }, /labels, entry 0: "a" is not a number/],
      ['[1]', /each line must be one JSON object/],
      ['{"input_ids": [1', /f\.jsonl:1: is not JSON/],
    ];
    for (const [row, message] of faults) {
      await expect(readSourceRows([lines('f.jsonl', row)], OPTIONS)).rejects.toThrow(message);
    }
    await expect(readSourceRows([lines('f.txt', PLAIN)], OPTIONS)).rejects.toThrow(/read from \.jsonl, \.npz/);
    await expect(readSourceRows([lines('e.jsonl')], OPTIONS)).rejects.toThrow(/e\.jsonl: (holds no row|is empty)/);
  });

  it('whose cross-entropy is NaN are counted, or left out', async () => {
    const bare = JSON.stringify({ ...PLAIN, metric_ce: 'BARE' }).replace('"BARE"', 'NaN');
    const path = lines('n.jsonl', PLAIN, bare, { ...PLAIN, metric_ce: null }, PLAIN);
    await expect(readSourceRows([path], OPTIONS)).rejects.toThrow(
      /2 of 4 sequences have a cross-entropy that is NaN, the first at .*n\.jsonl:2; leave them out with --drop-nan/,
    );
    const { rows, dropped } = await readSourceRows([path], { ...OPTIONS, dropNan: true });
    expect([rows.map(({ index }) => index), dropped]).toEqual([
      [0, 3],
      [1, 2],
    ]);
  });

  it('of two models are paired by their place, and written with what was moved', async () => {
    const read = (name: string, ...rows: object[]) =>
      readSourceRows([lines(name, ...rows)], { ...OPTIONS, dropNan: true });
    const pivot = await read('p.jsonl', PLAIN, { ...PLAIN, metric_ce: null }, { ...PLAIN, metric_ce: 4 });
    const source = await read('s.jsonl', { ...PLAIN, metric_ce: null }, PLAIN, { ...PLAIN, metric_ce: 3 });
    const pairs = pairRows(pivot, source);
    expect(pairs.map((pair) => [pair.pivot.metricCe, pair.source.metricCe])).toEqual([[4, 3]]);
    const moved = {
      offsets: Int32Array.of(0, 1, 1),
      ids: Int32Array.of(7),
      logits: Float64Array.of(0.5),
      kinds: Uint8Array.of(0, 5),
    };
    expect(JSON.parse(movedLine(pairs[0], moved, 'fusellm'))).toEqual({
      input_ids: [3, 1],
      attention_mask: [1, 1],
      labels: [-100, 1],
      per_step_logits: [[2.5, 1], [0.5]],
      per_step_indices: [[4, 0], [1]],
      metric_ce: 4,
      per_step_aligned_logits_0: [[0.5], []],
      per_step_aligned_indices_0: [[7], []],
      metric_ce_aligned_0: 3,
    });
    expect(JSON.parse(movedLine(pairs[0], moved, 'fusechat')).fused_metric_ce).toBe(3);
    const one = await read('o.jsonl', PLAIN);
    expect(() => pairRows(pivot, one)).toThrow(/the pivot's rows hold 3 sequences, the source's 1/);
  });
});
