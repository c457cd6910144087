import { afterAll, describe, expect, it } from 'vitest';
import { logSoftmax } from '../../src/decoding/log-softmax.js';
import { generatePaths } from '../../src/decoding/path-generation.js';
import {
  EMPTY_PATH,
  PATH_NUCLEUS_DEFAULTS,
  type PathNucleusSettings,
  stepPaths,
  type TokenPath,
} from '../../src/decoding/path-nucleus.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';
import { createRandom } from '../../src/random.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', context: 64 } as const;
const PROMPTS = [Int32Array.of(5, 17, 60, 3), Int32Array.of(44, 8)];
const STEPS = 7;

/** The same rule with the whole sequence run anew for every path and step. */
async function withoutCaches(
  model: LanguageModel,
  settings: PathNucleusSettings,
  stopIds: readonly number[],
  seed: number,
): Promise<TokenPath[][]> {
  const all: TokenPath[][] = [];
  for (const [p, prompt] of PROMPTS.entries()) {
    let paths: TokenPath[] = [EMPTY_PATH];
    for (let step = 0; step < STEPS && paths.some(({ finished }) => !finished); step++) {
      const draw = createRandom(seed).fork(p).fork(step);
      const rows: Float64Array[] = [];
      for (const { tokens } of paths) {
        const window = Int32Array.of(...prompt, ...tokens);
        rows.push(logSoftmax(await model.logits([window], [[window.length - 1, window.length]])));
      }
      const ends = (token: number): boolean => stopIds.includes(token);
      paths = [...stepPaths(paths, rows, settings, ends, () => draw.uniform()).paths];
    }
    all.push(paths);
  }
  return all;
}

describe.each([
  ['models/llama-sotu', 'f32'],
  ['architectures/gemma2', 'f32'],
  ['models/llama-sotu', 'f64'],
] as const)('paths of %s in %s', (name, precision) => {
  let model: LanguageModel | undefined;
  afterAll(() => model?.close());

  it.each([
    [{ width: 3 }],
    [{ width: 4, select: 'sample', tokenMass: 0.95, pathMass: 1 }],
    [{ width: 1, select: 'sample' }],
  ] as const)('forked caches give what whole passes give: %o', async (changes) => {
    model ??= await openLanguageModel(`fixtures/${name}`, { ...OPTIONS, precision });
    const settings: PathNucleusSettings = { ...PATH_NUCLEUS_DEFAULTS, ...changes };
    const request = { prompts: PROMPTS, settings, maxNewTokens: STEPS, seed: 3, stopIds: [] as number[] };
    // A token that occurs early in some path, so that paths finish at different steps.
    const free = await generatePaths(model, request);
    const stopIds = [free[0].paths[0].tokens[2]];
    const made = await generatePaths(model, { ...request, stopIds });
    const expected = await withoutCaches(model, settings, stopIds, 3);
    expected.forEach((paths, p) => {
      expect(made[p].paths.map(({ tokens }) => tokens)).toEqual(paths.map(({ tokens }) => tokens));
      made[p].paths.forEach((path, i) => {
        expect(path.logProbability).toBeCloseTo(paths[i].logProbability, precision === 'f32' ? 3 : 9);
        expect(-path.surprisalNats.reduce((sum, value) => sum + value, 0)).toBeCloseTo(path.logProbability, 9);
        expect(path.finished).toBe(paths[i].finished);
      });
      expect(made[p].paths.reduce((sum, { weight }) => sum + weight, 0)).toBeCloseTo(1, 12);
    });
  });
});
