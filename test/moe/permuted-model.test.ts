import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openModelFiles } from '../../src/models/model-files.js';
import { alignExpert, permuteNeurons } from '../../src/moe/alignment.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import { readExpert } from '../../src/moe/expert-reader.js';
import { createMergedModel } from '../../src/moe/merged-writer.js';
import { createRandom } from '../../src/random.js';
import { logitsOf, relative } from '../quantization/model-logits.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'surprisal-permuted-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

describe('a trained model whose neurons are permuted in every expert', () => {
  const source = path.resolve('fixtures/models/mixtral-sotu-moby');
  const target = path.join(folder, 'permuted');
  const random = createRandom(11);

  it('has the same logits', async () => {
    const model = openExpertModel(source);
    const layers = model.layers.map(({ layer, experts }) => ({ layer, experts, routerRows: experts }));
    const head = { tool: { name: 'surprisal', version: '1' }, command: 'merge-moe merge', parameters: {}, inputs: [] };
    const writer = createMergedModel(model, target, { form: 'expanded', layers }, { head });
    for (const [index, { layer, experts, shape }] of model.layers.entries()) {
      for (let e = 0; e < experts; e++) {
        writer.writeExpert(
          layer,
          e,
          permuteNeurons(readExpert(model, index, e), shape, random.permutation(shape.width)),
        );
      }
      writer.finishLayer(layer, null);
    }
    writer.commit();
    model.close();
    const logits = await Promise.all(
      [source, target].map(async (directory) => {
        const files = openModelFiles(directory);
        try {
          return await logitsOf(files, 'f32');
        } finally {
          files.store.close();
        }
      }),
    );
    expect(relative(logits[1], logits[0])).toBeLessThan(1e-5);
    expect(Array.from(logits[1]).some((value, i) => value !== logits[0][i])).toBe(true);
  });

  it('is the model itself again once its experts are aligned to those of the source', () => {
    const [model, permuted] = [source, target].map((directory) => openExpertModel(directory));
    for (const [index, { experts, shape }] of model.layers.entries()) {
      for (let e = 0; e < experts; e++) {
        const [own, moved] = [model, permuted].map((from) => readExpert(from, index, e));
        const { permutation, distanceBefore, distanceAfter, gap, bound } = alignExpert(own, moved, shape);
        expect(distanceBefore).toBeGreaterThan(0);
        expect(distanceAfter).toBe(0);
        expect(gap).toBeLessThan(1e-6 * bound);
        const back = permuteNeurons(moved, shape, permutation);
        for (const name of ['gate', 'up', 'down'] as const) {
          expect(back[name]?.every((value, i) => value === own[name]?.[i])).toBe(true);
        }
      }
    }
    model.close();
    permuted.close();
  });
});
