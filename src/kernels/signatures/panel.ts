/**
 * Operators on panels [days, stocks] of f32 or f64; x, y and out are of one type. See `../panel-operators.ts` for what each
 * does; codes are the positions of the names there.
 */
export interface PanelKernels {
  panelRolling(
    code: number,
    x: Float32Array | Float64Array,
    y: Float32Array | Float64Array | null,
    out: Float32Array | Float64Array,
    days: number,
    stocks: number,
    window: number,
    threads: number,
  ): void;
  /** A null operand is the constant behind it. */
  panelElementwise(
    code: number,
    x: Float32Array | Float64Array | null,
    constantX: number,
    y: Float32Array | Float64Array | null,
    constantY: number,
    out: Float32Array | Float64Array,
    threads: number,
  ): void;
  panelNormalise(
    x: Float32Array | Float64Array,
    z: Float32Array | Float64Array,
    deviations: Float64Array,
    days: number,
    stocks: number,
    threads: number,
  ): void;
  panelDayProducts(
    a: Float32Array | Float64Array,
    b: Float32Array | Float64Array,
    out: Float64Array,
    days: number,
    stocks: number,
    threads: number,
  ): void;
  /** `out` [days, 4]: number of pairs, squares of x, of y, products. */
  panelDayMoments(
    x: Float32Array | Float64Array,
    y: Float32Array | Float64Array,
    out: Float64Array,
    days: number,
    stocks: number,
    threads: number,
  ): void;
  panelDayRanks(
    x: Float32Array | Float64Array,
    beside: Float32Array | Float64Array | null,
    average: number,
    out: Float32Array | Float64Array,
    days: number,
    stocks: number,
    threads: number,
  ): void;
}
