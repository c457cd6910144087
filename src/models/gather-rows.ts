import type { Floats, WindowGroup } from './layer-runner.js';

/** Rows [n, hidden] of the given positions of each window, in the order of the windows, into `into` where given. */
export function gatherRows(
  groups: readonly WindowGroup[],
  hiddenSize: number,
  wanted: readonly (readonly [from: number, to: number])[],
  into?: Floats,
): Floats {
  const starts: number[] = [];
  let total = 0;
  for (const [from, to] of wanted) {
    starts.push(total);
    total += to - from;
  }
  const size = total * hiddenSize;
  const fresh = (): Floats =>
    groups[0]?.stream instanceof Float64Array ? new Float64Array(size) : new Float32Array(size);
  const rows = into ? into.subarray(0, size) : fresh();
  for (const group of groups) {
    group.windows.forEach((window, b) => {
      const [from, to] = wanted[window];
      const base = b * group.length;
      rows.set(
        group.stream.subarray((base + from) * hiddenSize, (base + to) * hiddenSize),
        starts[window] * hiddenSize,
      );
    });
  }
  return rows;
}
