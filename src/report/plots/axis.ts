import type { ScaleOptions } from '@observablehq/plot';
import { formatTick, linearTicks, logTicks, powerOfTwoTicks } from './numbers.js';
import { textWidth } from './text-layout.js';

export type AxisScale = 'linear' | 'log' | 'position';

/** An axis whose domain and tick labels are known before the chart is drawn, so that margins can be made to fit. */
export interface Axis {
  readonly low: number;
  readonly high: number;
  readonly options: ScaleOptions;
  /** Width in pixels of the widest tick label. */
  readonly labelWidth: number;
}

export interface AxisRequest {
  readonly scale?: AxisScale;
  readonly label: string;
  /** Fixed ends; where one is missing, the data decide. */
  readonly low?: number;
  readonly high?: number;
  /** Whether zero must be on a linear axis. */
  readonly zero?: boolean;
  /** About how many ticks. */
  readonly ticks?: number;
  /** Whether free ends move out to the next tick (default), or stay where the data end. */
  readonly nice?: boolean;
  /** Ticks at whole numbers only. */
  readonly integer?: boolean;
  readonly grid?: boolean;
}

const TICK_SIZE = 11;

/** Smallest and largest finite value that the scale can show, or undefined when there is none. */
function extent(values: Iterable<number>, positiveOnly: boolean): [number, number] | undefined {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (!Number.isFinite(value) || (positiveOnly && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : undefined;
}

/** The next of 1, 2 and 5 times a power of ten at or below a positive value, and at or above it. */
function stepBelow(value: number): number {
  const unit = Number(`1e${Math.floor(Math.log10(value) + 1e-9)}`);
  return (value >= 5 * unit ? 5 : value >= 2 * unit ? 2 : 1) * unit;
}

function stepAbove(value: number): number {
  const unit = Number(`1e${Math.floor(Math.log10(value) + 1e-9)}`);
  return (value <= unit * (1 + 1e-9) ? 1 : value <= 2 * unit ? 2 : value <= 5 * unit ? 5 : 10) * unit;
}

/**
 * An axis for `values`. `log` shows positive values only; `position` is logarithmic with powers of two as ticks, and
 * symmetric-logarithmic when position 0 occurs. Undefined when no value can be shown.
 */
export function fitAxis(request: AxisRequest, values: Iterable<number>): Axis | undefined {
  const scale = request.scale ?? 'linear';
  const found = extent(values, scale === 'log');
  if (found === undefined) return undefined;
  let low = request.low ?? found[0];
  let high = request.high ?? found[1];
  if (scale === 'linear' && request.zero === true) {
    low = Math.min(0, low);
    high = Math.max(0, high);
  }
  if (low === high) {
    if (scale === 'linear') {
      const room = Math.max(Math.abs(low) * 0.05, 1e-9);
      low -= request.low === undefined ? room : 0;
      high += room;
    } else {
      low = low > 0 ? low / 2 : 0;
      high = high > 0 ? high * 2 : 1;
    }
  }
  let ticks: number[];
  let type: ScaleOptions['type'] = 'linear';
  const most = request.ticks ?? 6;
  if (scale === 'log') {
    type = 'log';
    if (request.low === undefined && request.nice !== false) low = stepBelow(low);
    if (request.high === undefined && request.nice !== false) high = stepAbove(high);
    ticks = logTicks(low, high, most);
  } else if (scale === 'position') {
    type = low > 0 ? 'log' : 'symlog';
    ticks = low > 0 ? powerOfTwoTicks(low, high) : [0, ...powerOfTwoTicks(1, high, 8)];
  } else {
    ticks = linearTicks(low, high, most);
    // Ends of the data that were not fixed move out to a whole tick when it is near, as d3's `nice` does.
    const step = ticks.length > 1 ? ticks[1] - ticks[0] : 0;
    if (step > 0 && request.nice !== false) {
      if (request.low === undefined && low < ticks[0]) low = ticks[0] - step;
      if (request.high === undefined && high > ticks[ticks.length - 1]) high = ticks[ticks.length - 1] + step;
      ticks = linearTicks(low, high, most + 2);
    }
  }
  if (request.integer === true) ticks = ticks.filter((tick) => Number.isInteger(tick));
  return {
    low,
    high,
    options: {
      type,
      domain: [low, high],
      ticks,
      tickFormat: formatTick,
      label: request.label,
      grid: request.grid ?? true,
    },
    labelWidth: Math.max(...ticks.map((tick) => textWidth(formatTick(tick), TICK_SIZE)), 0),
  };
}

/** Left margin that fits the tick labels of a vertical axis. */
export function leftMargin(axis: Axis): number {
  return Math.ceil(axis.labelWidth) + 16;
}
