import { describe, expect, it } from 'vitest';
import { InputError, RunError } from '../../src/errors.js';
import { createRandom } from '../../src/random.js';
import { createLoss } from '../../src/training/losses/index.js';
import { createObjective, type ObjectiveSource, type RowRange } from '../../src/training/objective.js';
import { type FeatureBatch, IGNORED, type LogitsBlock, type Loss, type LossInput } from '../../src/training/types.js';
import { crossEntropy } from './linear-student.js';

const CLASSES = 2;
const labels = Int32Array.from([0, IGNORED, 1, 1, 0]);
const batch: FeatureBatch = {
  features: new Float64Array(5),
  rows: 5,
  labels,
  indices: Int32Array.from([0, 1, 2, 3, 4]),
};
const progress = { step: 3, epoch: 0.5 };

/** Gives 1 a row that counts, and 1 to every entry of its gradient. */
function ones(label: string, changes: Partial<Loss> = {}, seen: LossInput[] = []): Loss {
  return {
    label,
    scope: 'row',
    reads: { teacher: 'any', labels: true, features: false },
    evaluate(input, gradients) {
      seen.push(input);
      let validRows = 0;
      for (let r = 0; r < input.rows; r++) {
        if (input.labels?.[r] === IGNORED) continue;
        validRows++;
        if (gradients === undefined) continue;
        for (let c = 0; c < CLASSES; c++) gradients.logits[r * CLASSES + c] += gradients.scale ?? 1;
      }
      return { sum: validRows, validRows, diagnostics: { rows: input.rows } };
    },
    ...changes,
  };
}

function blockOf(firstRow: number, rows: number, withGradient = true): LogitsBlock {
  const logits = new Float64Array(rows * CLASSES);
  const base = { firstRow, rows, classes: CLASSES, logits };
  return withGradient ? { ...base, gradient: new Float64Array(rows * CLASSES) } : base;
}

function sourceOf(asked: RowRange[] = []): ObjectiveSource<FeatureBatch> {
  return {
    labels: (rows) => rows.labels,
    async teacher(_, range) {
      asked.push(range);
      return { kind: 'dense', logits: new Float64Array(range.rows * CLASSES) };
    },
  };
}

describe('createObjective', () => {
  it('sums weighted terms over blocks, and asks the teacher once a block', async () => {
    const asked: RowRange[] = [];
    const seen: LossInput[] = [];
    const terms = [
      { weight: 0.25, loss: ones('a', {}, seen) },
      { weight: ({ epoch }: { epoch: number }) => epoch * 6, loss: ones('b') },
      { weight: 0, loss: ones('c') },
    ];
    const objective = createObjective(terms, sourceOf(asked));
    expect(objective.terms).toEqual(['a', 'b', 'c']);
    expect(objective.validRows(batch, 5)).toBe(4);
    const { visit, totals } = objective.begin(batch, progress);
    const blocks = [blockOf(0, 2), blockOf(2, 3)];
    for (const block of blocks) await visit(block);
    expect(totals()).toEqual({
      sum: 4 * 3.25,
      validRows: 4,
      terms: { a: 4, b: 4, c: 4 },
      diagnostics: { 'a.rows': 5, 'b.rows': 5, 'c.rows': 5 },
    });
    expect(blocks[0].gradient).toEqual(Float64Array.from([3.25, 3.25, 0, 0]));
    expect(asked.map(({ firstRow, rows }) => [firstRow, rows])).toEqual([
      [0, 2],
      [2, 3],
    ]);
    expect(seen.map((input) => [input.firstRow, [...(input.labels ?? [])]])).toEqual([
      [0, [0, IGNORED]],
      [2, [1, 1, 0]],
    ]);
  });

  it('counts every row where there are no labels, and needs no gradient', async () => {
    const objective = createObjective<FeatureBatch>([{ weight: 2, loss: ones('a') }], {
      ...sourceOf(),
      labels: () => undefined,
    });
    expect(objective.validRows(batch, 5)).toBe(5);
    const { visit, totals } = objective.begin(batch, progress);
    await visit(blockOf(0, 5, false));
    expect(totals()).toMatchObject({ sum: 10, validRows: 5 });
  });

  it('gives losses the rows of a sequence: the divergence summed over positions, over the sequences alone', async () => {
    const random = createRandom(3);
    const [student, teacher] = [0, 1].map(() => Float64Array.from({ length: 5 * CLASSES }, () => random.normal()));
    const loss = createLoss('kd', { T: 2, norm: 'sequences' });
    const objective = createObjective<FeatureBatch>([{ weight: 1, loss }], {
      ...sourceOf(),
      sequences: () => 2,
      teacher: (_, { firstRow, rows }) => ({
        kind: 'dense',
        logits: teacher.subarray(firstRow * CLASSES, (firstRow + rows) * CLASSES),
      }),
    });
    const { visit, totals } = objective.begin(batch, progress);
    const gradient = new Float64Array(5 * CLASSES);
    for (const [firstRow, rows] of [
      [0, 2],
      [2, 3],
    ]) {
      const part = (of: Float64Array): Float64Array => of.subarray(firstRow * CLASSES, (firstRow + rows) * CLASSES);
      await visit({ firstRow, rows, classes: CLASSES, logits: part(student), gradient: part(gradient) });
    }
    const softmax = (row: Float64Array): Float64Array => {
      const powers = row.map((value) => Math.exp(value / 2));
      return powers.map((value) => value / powers.reduce((sum, each) => sum + each, 0));
    };
    let divergence = 0;
    for (const row of [0, 2, 3, 4]) {
      const [p, q] = [teacher, student].map((of) => softmax(of.subarray(row * CLASSES, (row + 1) * CLASSES)));
      p.forEach((value, c) => {
        divergence += value * Math.log(value / q[c]);
        // dKL/ds = (q - p) / T; the trainer divides by the 4 rows that count, which leaves the 2 sequences.
        expect(gradient[row * CLASSES + c] / 4).toBeCloseTo((q[c] - value) / 2 / 2, 12);
      });
    }
    const { sum, validRows } = totals();
    expect(sum / validRows).toBeCloseTo(divergence / 2, 12);
    expect(loss.label).toBe('kd(T=2,norm=sequences)');
  });

  it('asks for all rows at once where a term couples them', () => {
    const coupled = ones('a', { scope: 'batch' });
    expect(createObjective([{ weight: 1, loss: ones('b') }], sourceOf()).wholeBatch).toBe(false);
    const both = [coupled, ones('b')].map((loss) => ({ weight: 1, loss }));
    expect(createObjective(both, sourceOf()).wholeBatch).toBe(true);
  });

  it('turns what a loss says of NaN logits into a failure of the run', async () => {
    const complaint: Loss = {
      ...crossEntropy,
      evaluate() {
        throw new InputError('row 3 holds NaN');
      },
    };
    const objective = createObjective([{ weight: 1, loss: complaint }], sourceOf());
    const fine = objective.begin(batch, progress).visit(blockOf(2, 3));
    await expect(fine).rejects.toThrow(InputError);
    const block = blockOf(2, 3);
    block.logits[3] = Number.NaN;
    const broken = objective.begin(batch, progress).visit(block);
    await expect(broken).rejects.toThrow(RunError);
    await expect(broken).rejects.toThrow("the student's logits hold NaN at row 3, column 1");
  });

  it('refuses terms that lack what they read', () => {
    const labelled = { labels: (rows: FeatureBatch) => rows.labels };
    expect(() => createObjective([], sourceOf())).toThrow('no loss is given');
    expect(() => createObjective([{ weight: 1, loss: ones('kd') }], labelled)).toThrow('loss kd needs a teacher');
    const features = ones('rkd', { reads: { teacher: 'none', labels: false, features: true } });
    expect(() => createObjective([{ weight: 1, loss: features }], sourceOf())).toThrow('features of a teacher');
    const twice = [ones('a'), ones('a')].map((loss) => ({ weight: 1, loss }));
    expect(() => createObjective(twice, sourceOf())).toThrow('loss a stands twice');
  });
});
