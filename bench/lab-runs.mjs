/** Runs of `analyze-policy lab` for the experiments of bench/papers: report and curves. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Trains `methods` (as --method takes them) and gives the report, and the curves by label and seed. */
export function trainLab(methods, ...words) {
  const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));
  try {
    const [report, out] = ['report.json', 'curves.csv'].map((name) => join(scratch, name));
    const { status } = spawnSync(
      process.execPath,
      [
        ...['bin/surprisal.js', 'analyze-policy', 'lab', '--report', report, '--out', out, '--quiet'],
        ...methods.flatMap((method) => ['--method', method]),
        ...words,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    if (status !== 0) throw new Error(`surprisal analyze-policy lab ended with ${status}`);
    return { report: JSON.parse(readFileSync(report, 'utf8')), curves: readCurves(readFileSync(out, 'utf8')) };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Label to an array of runs, each an object of columns. Labels of these experiments hold no quotes. */
function readCurves(text) {
  const [head, ...lines] = text.trimEnd().split('\n');
  const columns = head.split(',').slice(1);
  const curves = new Map();
  for (const line of lines) {
    const [, quoted, plain, rest] = /^(?:"([^"]*)"|([^,]*)),(.*)$/.exec(line);
    const runs = curves.get(quoted ?? plain) ?? new Map();
    curves.set(quoted ?? plain, runs);
    const cells = rest.split(',').map((cell) => (cell === '' ? Number.NaN : Number(cell)));
    const run = runs.get(cells[0]) ?? Object.fromEntries(columns.map((column) => [column, []]));
    runs.set(cells[0], run);
    for (const [i, column] of columns.entries()) run[column].push(cells[i]);
  }
  return new Map([...curves].map(([label, runs]) => [label, [...runs.values()]]));
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Standard error of a mean. */
export const standardError = (values) => {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1) / values.length);
};

/** `0.250 ± 0.001`. */
export const shown = (values, digits = 3) =>
  `${mean(values).toFixed(digits)} ± ${standardError(values).toFixed(digits)}`;

/** Mean over seeds of a column with its band, as a series of a line chart. */
export function bandOf(name, runs, column) {
  const x = runs[0].step;
  return {
    name,
    x,
    y: x.map((_, s) => mean(runs.map((run) => run[column][s]))),
    standardError: x.map((_, s) => standardError(runs.map((run) => run[column][s]))),
  };
}
