import { InputError } from '../../errors.js';
import {
  dayRanks,
  type ElementwiseName,
  elementwisePanel,
  type PanelValues,
  type RollingName,
  rollingPairPanel,
  rollingPanel,
} from '../../kernels/panel-operators.js';
import { canonicalText, type Expression, formulaText, OPERATOR_CLASSES, reachOf } from './expression.js';
import type { Panel } from './panel.js';

/** Days before and behind those that are scored. */
export interface Margins {
  readonly backtrack: number;
  readonly future: number;
}

export interface EvaluatorSettings extends Margins {
  /** Bytes of values of sub-formulas that are kept for later formulas. */
  readonly cacheBytes: number;
  readonly threads?: number;
}

export interface Evaluator {
  readonly panel: Panel;
  /** Scored days. */
  readonly days: number;
  readonly stocks: number;
  readonly margins: Margins;
  /** Whether the days that a formula reads lie within the margins; a formula for which they do not scores 0. */
  inRange(expression: Expression): boolean;
  /**
   * Hands the values `[days, stocks]` of the scored days to `use`. They belong to the evaluator and are valid during the call.
   * @throws InputError for a feature that the panel lacks; RangeError for a formula that is not `inRange`
   */
  evaluate<T>(expression: Expression, use: (values: PanelValues) => T): T;
  /** A new array as the panel's values are stored. */
  allocate(length: number): PanelValues;
}

interface Entry {
  readonly values: PanelValues;
  pins: number;
}

/**
 * Evaluates formulas over all days of a panel at once. Every sub-formula is a panel of its own; those used last are kept by
 * their canonical text within `cacheBytes`. Days whose windows begin before the panel are missing.
 */
export function createEvaluator(panel: Panel, settings: EvaluatorSettings): Evaluator {
  const stocks = panel.symbols.length;
  const allDays = panel.dates.length;
  const days = allDays - settings.backtrack - settings.future;
  if (days < 1) throw new RangeError(`${allDays} days leave none within margins`);
  const shape = { days: allDays, stocks };
  const size = allDays * stocks;
  const single = panel.values[0] instanceof Float32Array;
  const allocate = (length: number): PanelValues => (single ? new Float32Array(length) : new Float64Array(length));
  const bytesEach = size * (single ? 4 : 8);
  const kept = Math.max(2, Math.floor(settings.cacheBytes / bytesEach));
  const cache = new Map<string, Entry>();
  const spare: PanelValues[] = [];
  const { threads } = settings;

  const makeRoom = (): void => {
    for (const [key, entry] of cache) {
      if (cache.size < kept) return;
      if (entry.pins > 0) continue;
      cache.delete(key);
      if (spare.length < 2) spare.push(entry.values);
    }
  };
  const withOperand = <T>(operand: Expression, use: (values: PanelValues) => T): T => {
    if (operand.kind === 'constant') return use(constantOf(operand.value));
    if (operand.kind === 'feature') return use(featureOf(operand.name));
    const key = canonicalText(operand);
    let entry = cache.get(key);
    if (entry === undefined) {
      entry = { values: compute(operand), pins: 0 };
      makeRoom();
    } else cache.delete(key);
    cache.set(key, entry);
    entry.pins++;
    try {
      return use(entry.values);
    } finally {
      entry.pins--;
    }
  };
  const constantOf = (value: number): PanelValues => Float64Array.of(value);
  const featureOf = (name: string): PanelValues => {
    const index = panel.features.indexOf(name);
    if (index < 0) throw new InputError(`the panel has no feature "${name}"; it has ${panel.features.join(', ')}`);
    return panel.values[index];
  };
  /** Rolling operators need a panel; a constant under one is written out. */
  const whole = (values: PanelValues): PanelValues =>
    values.length === 1 && size !== 1 ? allocate(size).fill(values[0]) : values;

  const compute = (expression: Expression & { kind: 'call' }): PanelValues => {
    const { operator, operands, window = 1 } = expression;
    const kind = OPERATOR_CLASSES[operator];
    return withOperand(operands[0], (x) => {
      const second = operands[1];
      if (second !== undefined) {
        return withOperand(second, (y) => {
          const out = spare.pop() ?? allocate(size);
          if (kind === 'pair')
            rollingPairPanel(operator as 'Cov' | 'Corr', whole(x), whole(y), out, shape, window, threads);
          else elementwisePanel(operator as ElementwiseName, x, y, out, threads);
          return out;
        });
      }
      const out = spare.pop() ?? allocate(size);
      if (operator === 'CSRank') crossSectionalRank(whole(x), out);
      else if (kind === 'unary') elementwisePanel(operator as ElementwiseName, x, x, out, threads);
      else if (operator === 'Ref' && window < 1) aheadOf(whole(x), -window, out);
      else rollingPanel(operator as RollingName, whole(x), out, shape, window, threads);
      return out;
    });
  };
  /** Values of later days: for targets alone. */
  const aheadOf = (x: PanelValues, distance: number, out: PanelValues): void => {
    out.fill(Number.NaN);
    if (distance < allDays) out.set(x.subarray(distance * stocks));
  };
  const crossSectionalRank = (x: PanelValues, out: PanelValues): void => {
    dayRanks(x, undefined, 'order', out, shape, threads);
    for (let t = 0; t < allDays; t++) {
      const day = out.subarray(t * stocks, (t + 1) * stocks);
      let present = 0;
      for (const rank of day) if (!Number.isNaN(rank)) present++;
      for (let s = 0; s < stocks; s++) day[s] /= present;
    }
  };

  return {
    panel,
    days,
    stocks,
    margins: settings,
    allocate,
    inRange(expression) {
      const { from, to } = reachOf(expression);
      return from >= -settings.backtrack && to <= settings.future;
    },
    evaluate(expression, use) {
      const { from, to } = reachOf(expression);
      if (from < -settings.backtrack || to > settings.future) {
        throw new RangeError(
          `${formulaText(expression)} reads ${-from} days back and ${to} ahead; the margins are ` +
            `${settings.backtrack} and ${settings.future}`,
        );
      }
      return withOperand(expression, (values) =>
        use(whole(values).subarray(settings.backtrack * stocks, (settings.backtrack + days) * stocks)),
      );
    },
  };
}
