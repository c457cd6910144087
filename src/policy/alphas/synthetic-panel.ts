import { createRandom } from '../../random.js';
import type { Panel } from './panel.js';

/** A panel whose next returns have two known causes. */
export interface SyntheticPanel {
  readonly days: number;
  readonly stocks: number;
  readonly seed: number;
  /** Share of the standard deviation of a day's return that each of the two factors explains. */
  readonly strength: number;
}

/**
 * Prices whose return of the next day follows two independent signals that the panel shows: the z-score by day of the reversal
 * of the last 5 days, and that of the surprise of the volume against its 10-day mean; the rest is noise. A single formula
 * sees one of them at best.
 */
export function syntheticPanel({ days, stocks, seed, strength }: SyntheticPanel): Panel {
  const random = createRandom(seed);
  const close = new Float64Array(days * stocks);
  const volume = new Float64Array(days * stocks);
  const open = new Float64Array(days * stocks);
  const high = new Float64Array(days * stocks);
  const low = new Float64Array(days * stocks);
  const vwap = new Float64Array(days * stocks);
  const zScores = (values: Float64Array): Float64Array => {
    let mean = 0;
    for (const value of values) mean += value;
    mean /= values.length;
    let squares = 0;
    for (const value of values) squares += (value - mean) ** 2;
    const deviation = Math.sqrt(squares / values.length) || 1;
    return values.map((value) => (value - mean) / deviation);
  };
  const base = Float64Array.from({ length: stocks }, () => Math.exp(10 + random.normal()));
  const reversal = new Float64Array(stocks);
  const surprise = new Float64Array(stocks);
  for (let t = 0; t < days; t++) {
    const first = zScores(reversal);
    const second = zScores(surprise);
    for (let s = 0; s < stocks; s++) {
      const i = t * stocks + s;
      const before = t === 0 ? 20 + 80 * random.uniform() : close[i - stocks];
      const noise = Math.sqrt(Math.max(0, 1 - 2 * strength * strength));
      const move = 0.02 * (strength * first[s] + strength * second[s] + noise * random.normal());
      open[i] = before * Math.exp(0.003 * random.normal());
      close[i] = t === 0 ? before : before * Math.exp(move);
      high[i] = Math.max(open[i], close[i]) * Math.exp(0.004 * Math.abs(random.normal()));
      low[i] = Math.min(open[i], close[i]) * Math.exp(-0.004 * Math.abs(random.normal()));
      vwap[i] = (high[i] + low[i] + close[i]) / 3;
      volume[i] = base[s] * Math.exp(0.4 * random.normal());
      reversal[s] = t >= 5 ? -(close[i] / close[i - 5 * stocks] - 1) : 0;
      let mean = 0;
      for (let k = 0; k < 10; k++) mean += t >= k ? volume[i - k * stocks] : volume[i];
      surprise[s] = volume[i] / (mean / 10);
    }
  }
  return {
    dates: Array.from({ length: days }, (_, t) => String(t + 1)),
    symbols: Array.from({ length: stocks }, (_, s) => `S${String(s).padStart(4, '0')}`),
    features: ['open', 'close', 'high', 'low', 'volume', 'vwap'],
    values: [open, close, high, low, volume, vwap],
  };
}
