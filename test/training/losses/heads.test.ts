import { describe, expect, it } from 'vitest';
import { distilHeads } from '../../../src/probes/distillation.js';
import { createRandom } from '../../../src/random.js';
import { headsLoss } from '../../../src/training/losses/heads.js';
import { createLoss } from '../../../src/training/losses/index.js';

describe('a loss by head', () => {
  const [rows, heads, classes] = [6, 3, 4];
  const random = createRandom(2);
  const drawn = (): Float64Array => Float64Array.from({ length: rows * heads * classes }, () => 2 * random.normal());
  const student = drawn();
  const teacher = drawn();
  const head = (source: Float64Array, m: number): Float64Array =>
    Float64Array.from({ length: rows * classes }, (_, i) => {
      return source[(Math.floor(i / classes) * heads + m) * classes + (i % classes)];
    });

  it('is the distilled concatenation with kd, gradients included', () => {
    const tau = 2.5;
    const loss = headsLoss(createLoss('kd', { T: tau }), heads);
    const gradient = new Float64Array(student.length);
    const input = { rows, classes: heads * classes, student, teacher: { kind: 'dense' as const, logits: teacher } };
    const found = loss.evaluate(input, { logits: gradient, scale: 0.5 });
    const each = [0, 1, 2].map((m) => ({ teacher: head(teacher, m), student: head(student, m) }));
    const expected = distilHeads(
      each.map((one) => one.teacher),
      each.map((one) => one.student),
      rows,
      classes,
      tau,
    );
    expect(found.sum / rows).toBeCloseTo(expected.totalNats, 12);
    expect(found.validRows).toBe(rows);
    expect(found.perRow?.reduce((sum, value) => sum + value, 0)).toBeCloseTo(found.sum, 12);
    for (let m = 0; m < heads; m++) {
      for (const [i, value] of head(gradient, m).entries()) {
        expect(value).toBeCloseTo(0.5 * rows * expected.heads[m].gradient[i], 12);
      }
    }
  });

  it('leaves ignored rows out and wants whole heads', () => {
    const loss = headsLoss(createLoss('ce'), heads);
    const labels = Int32Array.from({ length: rows }, (_, r) => (r === 2 ? -100 : r % classes));
    const found = loss.evaluate({ rows, classes: heads * classes, student, labels });
    expect(found.validRows).toBe(rows - 1);
    expect(found.perRow?.[2]).toBe(0);
    expect(() => headsLoss(createLoss('ce'), 5).evaluate({ rows, classes: 12, student, labels })).toThrow(RangeError);
  });
});
