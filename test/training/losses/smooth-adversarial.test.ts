import { expect, test } from 'vitest';
import { createRandom } from '../../../src/random.js';
import { createLoss } from '../../../src/training/losses/index.js';
import { linearMarginSuprema, linearScores, marginChange } from '../../../src/training/losses/smooth-adversarial.js';

const random = createRandom(4);
const normals = (count: number): Float64Array => Float64Array.from({ length: count }, () => random.normal());

test('the gradient of pairs agrees with central differences', () => {
  const classes = 4;
  const student = normals(6 * classes);
  const labels = Int32Array.of(1, -100, 3, -100, -100, -100);
  const loss = createLoss('smooth-adversarial', { tau: 1.5, nu: 0.7 });
  const gradient = new Float64Array(student.length);
  const { validRows } = loss.evaluate({ rows: 6, classes, student, labels }, { logits: gradient, scale: 3 });
  expect(validRows).toBe(2);
  const at = (changed: Float64Array): number => 3 * loss.evaluate({ rows: 6, classes, student: changed, labels }).sum;
  student.forEach((value, i) => {
    const high = student.slice();
    const low = student.slice();
    high[i] = value + 1e-5;
    low[i] = value - 1e-5;
    expect(gradient[i]).toBeCloseTo((at(high) - at(low)) / 2e-5, 7);
  });
});

test('no step within the ball passes the supremum of linear scores, and the best direction attains it', () => {
  const [classes, width, radius] = [4, 6, 0.3];
  const weights = normals(classes * width);
  const suprema = linearMarginSuprema(weights, classes, width, radius);
  const bias = new Float64Array(classes);
  const point = normals(width);
  const shape = { rows: 1, classes, width };
  const clean = linearScores(point, weights, bias, shape);
  const changeAlong = (direction: Float64Array): number => {
    const length = Math.hypot(...direction);
    const moved = point.map((value, d) => value + (radius * direction[d]) / length);
    return marginChange(clean, 0, linearScores(moved, weights, bias, shape), 0, { classes, label: 2 });
  };
  let best = 0;
  let direction = normals(width);
  for (let trial = 0; trial < 300; trial++) {
    const next = direction.map((value) => value + 0.3 * random.normal());
    if (changeAlong(next) > changeAlong(direction)) direction = next;
    best = Math.max(best, changeAlong(direction));
  }
  expect(best).toBeLessThanOrEqual(suprema[2] * (1 + 1e-12));
  expect(best).toBeGreaterThan(0.98 * suprema[2]);
});
