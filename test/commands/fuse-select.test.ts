import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { describe, expect, it } from 'vitest';
import { readGate } from '../../src/fusion/knowledge/gate-file.js';
import { createRandom } from '../../src/random.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const directory = temporaryFolder();
const at = (name: string): string => join(directory, name);
const random = createRandom(3);
const scores = Array.from({ length: 40 }, (_, s) => [s % 2, 1 - (s % 2), 2.5].map((gap) => 1 + gap + random.uniform()));
const table = (header: string, lines: readonly (readonly number[])[]): string =>
  `${header}\n${lines.map((cells) => cells.join(',')).join('\n')}\n`;
writeFileSync(at('scores.csv'), table('ce_a,ce_b,ce_c', scores));
writeFileSync(at('holes.csv'), `${table('ce_a,ce_b', [[1, 2]])}nan,1\n`);
writeFileSync(at('negative.csv'), table('ce_a,ce_b', [[1, -2]]));
const positions = scores.flatMap((_, s) =>
  [0, 1].map((t) => [s, 7, ...[0, 1, 2].flatMap((k) => [k === t ? 7 : k, 0.4])]),
);
writeFileSync(at('positions.csv'), table('sequence,label,argmax_0,p_0,argmax_1,p_1,argmax_2,p_2', positions));

describe('fuse select', { timeout: 60_000 }, () => {
  it('fits a gate to cross-entropies, and counts interference by the number of models', () => {
    const files = ['--out', at('out.csv'), '--report', at('report.json'), '--plot', at('plot.svg')];
    const words = ['--train-gate', at('scores.csv'), '--positions', at('positions.csv'), '--steps', '60'];
    const ended = resident(['fuse', 'select', ...words, ...files, '--gate-out', at('gate.safetensors')]);
    expect(ended).toMatchObject({ code: 0 });
    const report = readReport(at('report.json'));
    validateReport(report, 'report.json');
    expect(report).toMatchObject({
      models: ['ce_a', 'ce_b', 'ce_c'],
      sequences: 40,
      interference: [{ sources: 2 }, { sources: 3, mince: expect.any(Number) }],
    });
    const rows: Record<string, string>[] = parse(readFileSync(at('out.csv')), { columns: true });
    expect(rows).toHaveLength(40);
    for (const [s, row] of rows.entries()) {
      expect(Number(row.score_0)).toBeCloseTo(Math.exp(-scores[s][0]), 9);
      expect([0, 1, 2].reduce((sum, k) => sum + Number(row[`weight_${k}`]), 0)).toBeCloseTo(1, 6);
    }
    expect(readGate(at('gate.safetensors'), 3)).toHaveLength(5 * 9 + 4 * 3);
  });

  it.each([
    [['holes.csv'], /1 of 2 rows have a cross-entropy that is no number; pass --drop-nan/],
    [['negative.csv'], /negative.csv:2: ce_b is -2; a cross-entropy is no less than 0/],
    [['scores.csv', '--columns', 'ce_a', 'ce_d'], /there is no column "ce_d"/],
  ])('refuses %j', ([file, ...more], message) => {
    const ended = resident(['fuse', 'select', '--train-gate', at(file), ...more]);
    expect(ended).toMatchObject({ code: 2 });
    expect(ended.stderr).toMatch(message);
  });

  it('leaves rows out where it is told to', () => {
    const ended = resident([
      ...['fuse', 'select', '--train-gate', at('holes.csv'), '--drop-nan', '--steps', '2'],
      ...['--report', at('kept.json')],
    ]);
    expect(ended).toMatchObject({ code: 0 });
    expect(readReport(at('kept.json'))).toMatchObject({ sequences: 1, dropped_nan: 1 });
  });
});
