/** How numbers are written on axes, in legends and in tables: the same text on every machine, whatever its locale. */

function grouped(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, ',');
}

/**
 * A number for reading: integers below 1e15 with thousands separators, others with `digits` significant digits,
 * exponents outside 1e-3..1e6; `inf`, `-inf` and `nan` as in the reports.
 */
export function formatNumber(value: number, digits = 4): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (value === 0) return '0';
  const sign = value < 0 ? '\u2212' : '';
  const size = Math.abs(value);
  if (Number.isInteger(size) && size < 1e15) return sign + grouped(String(size));
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split('e');
    return `${sign}${mantissa.replace(/\.?0+$/, '')}e${exponent.replace('+', '').replace('-', '\u2212')}`;
  }
  const text = size.toPrecision(digits);
  const [whole, fraction] = Number(text) >= 10 ** digits ? [String(Math.round(size))] : text.split('.');
  return sign + grouped(whole) + (fraction === undefined ? '' : `.${fraction}`);
}

/** A tick label: as short as it can be without losing the value. */
export function formatTick(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && Number.isFinite(value) && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, exponent] = size.toExponential(2).split('e');
    const short = mantissa.replace(/\.?0+$/, '');
    return `${value < 0 ? '\u2212' : ''}${short}e${exponent.replace('+', '').replace('-', '\u2212')}`;
  }
  const text = formatNumber(value);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** Ticks of a logarithmic axis on [low, high]: decades, thinned to `most`; 1-2-5 steps where the axis is short. */
export function logTicks(low: number, high: number, most = 8): number[] {
  if (!(low > 0) || !(high >= low) || !Number.isFinite(high)) return [];
  const first = Math.floor(Math.log10(low) + 1e-9);
  const last = Math.ceil(Math.log10(high) - 1e-9);
  const decade = (exponent: number): number => Number(`1e${exponent}`);
  const inside = (value: number): boolean => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9);
  const decades: number[] = [];
  for (let e = first; e <= last; e++) if (inside(decade(e))) decades.push(decade(e));
  if (decades.length < 3) {
    const fine: number[] = [];
    for (let e = first; e <= last; e++) {
      for (const step of [1, 2, 5]) {
        const value = Number(`${step}e${e}`);
        if (inside(value)) fine.push(value);
      }
    }
    if (fine.length >= 2) return fine;
    return low === high ? [low] : [low, high];
  }
  const stride = Math.ceil(decades.length / most);
  return decades.filter((_, i) => i % stride === 0);
}

/** Powers of two on [low, high], thinned to `most`: the ticks of a context position. */
export function powerOfTwoTicks(low: number, high: number, most = 9): number[] {
  const ticks: number[] = [];
  for (let value = 1; value <= high * (1 + 1e-9) && value < 2 ** 52; value *= 2) if (value >= low) ticks.push(value);
  if (ticks.length < 2) return low === high ? [low] : [low, high];
  const stride = Math.ceil(ticks.length / most);
  return ticks.filter((_, i) => i % stride === 0);
}

/** Every k-th of `count` category indices, so that at most `most` labels stand on an axis; the first always does. */
export function thinnedIndices(count: number, most: number): number[] {
  const steps = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100];
  const needed = Math.max(1, Math.ceil(count / Math.max(1, most)));
  const stride = steps.find((step) => step >= needed) ?? needed;
  const indices: number[] = [];
  for (let i = 0; i < count; i += stride) indices.push(i);
  return indices;
}

/** Ticks at multiples of 1, 2 or 5 times a power of ten within [low, high]; about `most` of them. */
export function linearTicks(low: number, high: number, most = 6): number[] {
  if (!(high > low) || !Number.isFinite(low) || !Number.isFinite(high)) return low === high ? [low] : [];
  const rough = (high - low) / Math.max(1, most);
  const exponent = Math.floor(Math.log10(rough) + 1e-9);
  const unit = Number(`1e${exponent}`);
  const factor = [1, 2, 5, 10].find((candidate) => candidate * unit >= rough * (1 - 1e-9)) ?? 10;
  // Multiples are formed from integers, so that 3 * 0.1 is 0.3 and not 0.30000000000000004.
  const scaleUp = exponent < 0 ? Number(`1e${-exponent}`) : 1;
  const step = exponent < 0 ? factor : factor * unit;
  const slack = 1e-9 * (high - low) * scaleUp;
  const ticks: number[] = [];
  for (let k = Math.ceil((low * scaleUp - slack) / step); k * step <= high * scaleUp + slack; k++) {
    ticks.push((k * step) / scaleUp + 0);
  }
  return ticks;
}
