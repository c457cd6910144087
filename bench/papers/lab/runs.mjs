/** Runs of the policy laboratory for the experiments beside this folder. */
import { writeFileSync } from 'node:fs';
import { loadEngine } from '../../../dist/src/policy/lab/engines.js';
import { chartFigure } from '../../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../../dist/src/report/plots/figure.js';

/**
 * Trains every method with every seed, from the same warm start.
 * @param methods label -> { intervention, settings?, task? }
 * @returns label -> curves by seed
 */
export async function trainAll({ engine: name, steps, task: own, seeds, methods }) {
  const engine = await loadEngine(name);
  const initial = Object.fromEntries(Object.entries(engine.task).map(([key, { initial: value }]) => [key, value]));
  const results = {};
  for (const [label, { intervention, settings = {}, task = {}, steps: more }] of Object.entries(methods)) {
    results[label] = [];
    for (const seed of seeds) {
      const began = performance.now();
      const method = { label, intervention, settings };
      const sizes = { ...initial, 'probe-prompts': 0, ...own, ...task };
      const { curves } = await engine.run({ method, seed, steps: more ?? steps, task: sizes });
      console.error(`${label}, seed ${seed}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
      results[label].push(curves);
    }
  }
  return results;
}

/** Mean and standard error over seeds. */
export function meanOf(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((a, b) => a + (b - mean) ** 2, 0);
  return { mean, error: Math.sqrt(squares / (values.length - 1) / values.length) };
}

export const told = ({ mean, error }, digits = 3) => `${mean.toFixed(digits)} ± ${error.toFixed(digits)}`;

/** Mean and error of paired differences. */
export const difference = (a, b) => meanOf(a.map((value, i) => value - b[i]));

/** A claim is reproduced when the paired difference lies two standard errors beyond nothing. */
export function verdict({ mean, error }) {
  if (mean > 2 * error) return 'reproduced';
  return mean < -2 * error ? 'not reproduced (the opposite)' : 'not reproduced (no difference)';
}

/** Steps at which a curve was measured. */
export const measuredSteps = (curve) => [...curve.keys()].filter((step) => !Number.isNaN(curve[step]));

export function writeCsv(name, columns, rows) {
  const lines = [columns.join(','), ...rows.map((row) => row.join(','))];
  writeFileSync(`docs/papers/${name}.csv`, lines.map((line) => `${line}\n`).join(''));
}

export async function writeFigure(name, figure) {
  writeFileSync(`docs/papers/${name}.svg`, await plotBytes(await chartFigure(figure), `${name}.svg`));
}
