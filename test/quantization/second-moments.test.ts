import { describe, expect, it } from 'vitest';
import { createMomentSums, panelBytes, panelsOf } from '../../src/quantization/second-moments.js';
import { createRandom } from '../../src/random.js';

const PANEL_ROWS = 70;
const COLUMNS = PANEL_ROWS + 33;
const ROWS = 700;
const random = createRandom(3);
const DATA = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());

function summed(panels: ReturnType<typeof panelsOf>, pieces: readonly number[], threads: number): Float64Array[] {
  const sums = createMomentSums(COLUMNS, panels, { blockRows: 512, precision: 'f32', threads });
  let from = 0;
  for (const count of pieces) {
    sums.add(DATA.subarray(from * COLUMNS, (from + count) * COLUMNS), count);
    from += count;
  }
  expect(sums.rows).toBe(ROWS);
  return sums.finish('F64').map(({ packed }) => Float64Array.from(packed));
}

describe('second moments by panels', () => {
  const panels = panelsOf(COLUMNS, PANEL_ROWS);

  it('cover the lower triangle', () => {
    expect(panels).toEqual([
      { from: 0, to: PANEL_ROWS },
      { from: PANEL_ROWS, to: COLUMNS },
    ]);
    expect(panelBytes(panels[1], 'F32')).toBe(33 * COLUMNS * 12);
  });

  it('are 2 / N times the sums of products', () => {
    const [top, bottom] = summed(panels, [ROWS], 2);
    for (const [i, j] of [
      [0, 0],
      [17, 5],
      [PANEL_ROWS - 1, PANEL_ROWS - 1],
      [PANEL_ROWS, 0],
      [PANEL_ROWS + 3, PANEL_ROWS + 2],
      [COLUMNS - 1, 40],
      [COLUMNS - 1, COLUMNS - 1],
    ]) {
      let sum = 0;
      for (let r = 0; r < ROWS; r++) sum += DATA[r * COLUMNS + i] * DATA[r * COLUMNS + j];
      const at = (i * (i + 1)) / 2 + j;
      const found = i < PANEL_ROWS ? top[at] : bottom[at - (PANEL_ROWS * (PANEL_ROWS + 1)) / 2];
      expect(Math.abs(found - (2 * sum) / ROWS), `${i}, ${j}`).toBeLessThan(1e-5);
    }
  });

  it('are the same bits for any pieces, panels and threads', () => {
    const whole = summed(panels, [ROWS], 2);
    expect(summed(panels, [1, 510, 3, 150, 36], 1)).toEqual(whole);
    expect(summed([panels[1]], [200, 500], 1)).toEqual([whole[1]]);
  });
});
