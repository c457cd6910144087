import { describe, expect, it } from 'vitest';
import {
  type FusedObjectiveRequest,
  fusedObjective,
  type SequencePlan,
} from '../../../src/fusion/knowledge/fused-objective.js';
import {
  distributionEntropy,
  fusionRowLoss,
  labelRowLoss,
  mixDistributions,
  rowDistribution,
  type SparseDistribution,
} from '../../../src/fusion/knowledge/fusion-functions.js';
import { createRandom } from '../../../src/random.js';
import type { CaptureHeader } from '../../../src/training/language/capture-file.js';
import type { CapturedTeacher } from '../../../src/training/language/captured-teacher.js';
import { IGNORED, type TokenBatch } from '../../../src/training/types.js';

const VOCABULARY = 11;
const LENGTH = 5;
const WINDOWS = 3;
const MODELS = 3;
const K = 3;
const T = 1.5;

/** Rows of one model: lists of different lengths, some of the sources' empty. */
function memoryCapture(
  seed: number,
  mayBeEmpty: boolean,
): CapturedTeacher & { list(w: number, t: number): SparseDistribution } {
  const random = createRandom(seed);
  const lists = Array.from({ length: WINDOWS * LENGTH }, (_, i) => {
    const count = mayBeEmpty && i % 4 === 1 ? 0 : 1 + random.integer(K);
    const ids = random.permutation(VOCABULARY).slice(0, count);
    const logits = Float64Array.from(ids, () => Math.fround(-random.uniform() * 4)).sort((a, b) => b - a);
    return { ids, logits };
  });
  return {
    header: { k: K, vocabulary: VOCABULARY } as CaptureHeader,
    paths: ['memory'],
    storedRows: lists.length,
    has: () => true,
    close: () => undefined,
    list: (w, t) => {
      const { ids, logits } = lists[w * LENGTH + t];
      return rowDistribution(ids, logits, T);
    },
    rows(w, from, to) {
      const ids = new Int32Array((to - from) * K).fill(-1);
      const logProbs = new Float64Array((to - from) * K);
      for (let t = from; t < to; t++) {
        const own = lists[w * LENGTH + t];
        ids.set(own.ids, (t - from) * K);
        logProbs.set(own.logits, (t - from) * K);
      }
      return { kind: 'top', k: K, ids, logProbs, leftover: new Float64Array(to - from) };
    },
  };
}

const captures = [memoryCapture(1, false), memoryCapture(2, true), memoryCapture(3, true)];
const lengths = Int32Array.of(5, 3, 4);
const batch: TokenBatch = {
  tokens: new Int32Array(WINDOWS * LENGTH),
  labels: Int32Array.of(1, IGNORED, 4, 5, 6, 7, 8, 9, IGNORED, IGNORED, 2, 3, IGNORED, 10, IGNORED),
  batch: WINDOWS,
  length: LENGTH,
  windows: Int32Array.of(0, 1, 2),
};

function plansOf(seed: number): SequencePlan[] {
  const random = createRandom(seed);
  return Array.from({ length: WINDOWS }, (_, b) => {
    const weights = Float64Array.from({ length: MODELS }, (__, m) => (m === b ? 0 : random.uniform()));
    const sum = weights.reduce((a, c) => a + c, 0);
    return { weights: weights.map((w) => w / sum), lambda: 0.3 + 0.2 * b };
  });
}

interface Visited {
  readonly sum: number;
  readonly terms: Readonly<Record<string, number>>;
  readonly gradient: Float64Array;
  readonly slopes: readonly Float64Array[];
}

/** Visits the batch in blocks of four rows. */
async function visit(
  logits: Float64Array,
  plans: readonly SequencePlan[],
  settings: Pick<FusedObjectiveRequest, 'kind' | 'mask'>,
): Promise<Visited> {
  let slopes: readonly Float64Array[] = [];
  const objective = fusedObjective({
    ...{ captures, vocabulary: VOCABULARY, lengths, temperature: T, threads: 1, learns: true, ...settings },
    weigh: () => ({
      sequences: plans,
      feedback: { weight: 0.5, value: 2 },
      learn(found) {
        slopes = found;
      },
    }),
  });
  const { visit: visitor, totals } = objective.begin(batch, { step: 1, epoch: 0 });
  const gradient = new Float64Array(logits.length);
  const rows = WINDOWS * LENGTH;
  for (let firstRow = 0; firstRow < rows; firstRow += 4) {
    const count = Math.min(4, rows - firstRow);
    const part = (of: Float64Array): Float64Array =>
      of.subarray(firstRow * VOCABULARY, (firstRow + count) * VOCABULARY);
    await visitor({ firstRow, rows: count, classes: VOCABULARY, logits: part(logits), gradient: part(gradient) });
  }
  const { sum, terms } = totals();
  return { sum, terms, gradient, slopes };
}

/** The loss by its definition, times the labels that count. */
function expected(
  logits: Float64Array,
  plans: readonly SequencePlan[],
  { kind, mask }: Pick<FusedObjectiveRequest, 'kind' | 'mask'>,
): { sum: number; fusion: number } {
  const counted = batch.labels.filter((label) => label !== IGNORED).length;
  const inMask = (b: number, t: number): boolean =>
    mask === 'attention' ? t < lengths[b] : batch.labels[b * LENGTH + t] !== IGNORED;
  let rows = 0;
  let weighted = 0;
  let clm = 0;
  let fusion = 0;
  plans.forEach(({ weights, lambda }, b) => {
    for (let t = 0; t < LENGTH; t++) {
      const row = logits.subarray((b * LENGTH + t) * VOCABULARY, (b * LENGTH + t + 1) * VOCABULARY);
      const label = batch.labels[b * LENGTH + t];
      if (label !== IGNORED) clm += lambda * labelRowLoss(row, label);
      if (!inMask(b, t)) continue;
      rows++;
      const parts = captures.map((capture) => {
        const own = capture.list(b, t);
        return own.ids.length === 0 ? captures[0].list(b, t) : own;
      });
      const value = fusionRowLoss(row, mixDistributions(parts, weights), kind);
      fusion += value;
      weighted += (1 - lambda) * value;
    }
  });
  return { sum: clm + (weighted * counted) / rows + 0.5 * 2 * counted, fusion: (fusion * counted) / rows };
}

const random = createRandom(9);
const logits = Float64Array.from({ length: WINDOWS * LENGTH * VOCABULARY }, () => 2 * random.normal());

describe('the fused objective', () => {
  for (const kind of ['ce', 'kl'] as const) {
    for (const mask of ['attention', 'labels'] as const) {
      it(`is its definition with ${kind} over ${mask}, and has its derivatives`, async () => {
        const settings = { kind, mask };
        const plans = plansOf(4);
        const found = await visit(logits, plans, settings);
        const wanted = expected(logits, plans, settings);
        expect(found.sum).toBeCloseTo(wanted.sum, 9);
        expect(found.terms.fusion).toBeCloseTo(wanted.fusion, 9);
        const step = 1e-5;
        for (let i = 0; i < logits.length; i += 7) {
          const at = (by: number): number => {
            const moved = logits.slice();
            moved[i] += by;
            return expected(moved, plans, settings).sum;
          };
          expect(found.gradient[i]).toBeCloseTo((at(step) - at(-step)) / (2 * step), 6);
        }
        plans.forEach((_, b) => {
          for (let m = 0; m < MODELS; m++) {
            if (plans[b].weights[m] === 0) {
              expect(found.slopes[b][m]).toBe(0);
              continue;
            }
            const at = (by: number): number => {
              const moved = plans.map(({ weights, lambda }) => ({ weights: weights.slice(), lambda }));
              moved[b].weights[m] += by;
              return expected(logits, moved, settings).sum;
            };
            expect(found.slopes[b][m]).toBeCloseTo((at(step) - at(-step)) / (2 * step), 5);
          }
        });
      });
    }
  }

  it('has an entropy of the target between its two losses', async () => {
    const plans = plansOf(5);
    const [ce, kl] = await Promise.all(
      (['ce', 'kl'] as const).map((kind) => visit(logits, plans, { kind, mask: 'labels' })),
    );
    let entropy = 0;
    plans.forEach(({ weights }, b) => {
      for (let t = 0; t < LENGTH; t++) {
        if (batch.labels[b * LENGTH + t] === IGNORED) continue;
        const parts = captures.map((capture) => {
          const own = capture.list(b, t);
          return own.ids.length === 0 ? captures[0].list(b, t) : own;
        });
        entropy += distributionEntropy(mixDistributions(parts, weights));
      }
    });
    expect(ce.terms.fusion - kl.terms.fusion).toBeCloseTo(entropy, 9);
  });

  it('calls logits that are no numbers a divergence of the run', async () => {
    const broken = logits.slice();
    broken[3] = Number.NaN;
    await expect(visit(broken, plansOf(4), { kind: 'ce', mask: 'labels' })).rejects.toThrow(
      /student's logits hold NaN/,
    );
  });
});
