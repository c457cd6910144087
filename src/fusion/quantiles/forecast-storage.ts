import { InputError } from '../../errors.js';
import type { Floats } from '../../formats/feature-matrix.js';

/** Share of the memory limit that forecasts may take in doubles; beyond it they are held in single precision. */
const DOUBLE_SHARE = 0.25;
const SINGLE_SHARE = 0.5;

/** Bytes an element under a limit: 8 where doubles fit comfortably, else 4. @throws InputError when not even those fit */
export function bytesPerForecast(cells: number, maxMemoryBytes: number, where: string): 8 | 4 {
  if (8 * cells <= DOUBLE_SHARE * maxMemoryBytes) return 8;
  if (4 * cells <= SINGLE_SHARE * maxMemoryBytes) return 4;
  throw new InputError(
    `${where}: ${cells} forecasts take ${4 * cells} bytes in single precision, over half of --max-memory; ` +
      'raise it or use fewer rows or levels',
  );
}

/** Rows that grow: doubles at first, single precision when they become many. */
export interface ForecastRows {
  /** A new row of missing cells; its first place in `data`. */
  add(): number;
  readonly data: Floats;
  readonly rows: number;
  /** The rows, without what was reserved behind them. */
  take(): Floats;
}

export function growingRows(width: number, maxMemoryBytes: number, where: string): ForecastRows {
  let data: Floats = new Float64Array(64 * width).fill(Number.NaN);
  let rows = 0;
  return {
    get data() {
      return data;
    },
    get rows() {
      return rows;
    },
    add() {
      if ((rows + 1) * width > data.length) {
        const cells = 2 * data.length;
        // Old and new array exist side by side for a moment.
        const bytes = bytesPerForecast(Math.ceil(1.5 * data.length), maxMemoryBytes, where);
        const larger: Floats = bytes === 8 ? new Float64Array(cells) : new Float32Array(cells);
        larger.set(data);
        data = larger.fill(Number.NaN, data.length);
      }
      return width * rows++;
    },
    take: () => data.subarray(0, rows * width),
  };
}
