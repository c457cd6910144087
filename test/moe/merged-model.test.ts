import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openModelFiles } from '../../src/models/model-files.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import type { ExpertModel } from '../../src/moe/expert-model.js';
import { readExpert } from '../../src/moe/expert-reader.js';
import { createMergedModel, type MergedForm, type MergedPlan } from '../../src/moe/merged-writer.js';
import { logitsOf, relative } from '../quantization/model-logits.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'surprisal-merged-model-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

describe('a merged model runs', () => {
  const source = path.resolve('fixtures/architectures/qwen2-moe-shared');

  /** Six experts to three; the same function in every form but reduced. */
  const merge = (form: MergedForm): string => {
    const model = openExpertModel(source);
    const map = Int32Array.of(0, 1, 2, 0, 1, 1);
    const target = path.join(folder, form);
    const plan: MergedPlan = {
      form,
      layers: model.layers.map(({ layer, experts }) => ({
        layer,
        experts: form === 'expanded' ? experts : 3,
        routerRows: form === 'reduced' ? 3 : experts,
        ...(form === 'remap' && { map }),
      })),
    };
    const head = { tool: { name: 'surprisal', version: '1' }, command: 'merge-moe merge', parameters: {}, inputs: [] };
    const writer = createMergedModel(model, target, plan, { head, force: true });
    for (const [index, { layer }] of model.layers.entries()) {
      const merged = [meanOfMembers(model, index, [0, 3]), meanOfMembers(model, index, [1, 4, 5]), { copyOf: 2 }];
      if (form === 'expanded') for (const [e, group] of map.entries()) writer.writeExpert(layer, e, merged[group]);
      else for (const [at, expert] of merged.entries()) writer.writeExpert(layer, at, expert);
      if (form === 'reduced') writer.writeRouter(layer, { rows: Int32Array.of(0, 1, 2) });
      writer.finishLayer(layer, null);
    }
    writer.commit();
    model.close();
    return target;
  };
  const meanOfMembers = (model: ExpertModel, index: number, members: number[]) => {
    const read = members.map((e) => readExpert(model, index, e));
    const mean = (of: (expert: (typeof read)[number]) => Float32Array): Float32Array =>
      of(read[0]).map((_, i) => read.reduce((sum, expert) => sum + of(expert)[i], 0) / members.length);
    return { gate: mean(({ gate, up }) => gate ?? up), up: mean(({ up }) => up), down: mean(({ down }) => down) };
  };
  const run = async (directory: string): Promise<ArrayLike<number>> => {
    const files = openModelFiles(directory);
    try {
      return await logitsOf(files, 'f64');
    } finally {
      files.store.close();
    }
  };

  it('with the same logits remapped as expanded, and with others reduced', async () => {
    const [expanded, remapped, reduced, original] = [
      await run(merge('expanded')),
      await run(merge('remap')),
      await run(merge('reduced')),
      await run(source),
    ];
    expect(relative(remapped, expanded)).toBeLessThan(1e-12);
    expect(relative(reduced, expanded)).toBeGreaterThan(1e-3);
    expect(relative(original, expanded)).toBeGreaterThan(1e-3);
  });

  it('and is read again with its map', () => {
    const merged = openExpertModel(merge('remap'), { merged: 'read' });
    expect(merged.layers.map(({ layer, experts, routerRows, map }) => ({ layer, experts, routerRows, map }))).toEqual(
      [0, 2].map((layer) => ({ layer, experts: 3, routerRows: 6, map: Int32Array.of(0, 1, 2, 0, 1, 1) })),
    );
    merged.close();
  });
});
