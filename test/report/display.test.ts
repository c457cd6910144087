import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createAtomicFile } from '../../src/formats/atomic.js';
import { createProgress, progressLine } from '../../src/report/progress.js';
import { shownNumber, summaryTable } from '../../src/report/summary-table.js';
import { createTimings } from '../../src/report/timings.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();

describe('summaryTable', () => {
  it('aligns texts to the left and numbers to the right', () => {
    const table = summaryTable(
      ['name', 'value', 'note'],
      [
        ['perplexity', 20.512345678, 'a'],
        ['日本', 1234567, ''],
        ['x', undefined, 'bc'],
      ],
    );
    expect(table).toBe(
      'name          value  note\nperplexity  20.5123  a\n日本        1234567\nx                    bc\n',
    );
    expect(summaryTable(['', ''], [['a', 1]])).toBe('a  1\n');
  });

  it('shows six digits', () => {
    expect([1 / 3, 1e-9, 123456789, 0.1234567e9 + 0.5, Number.NaN, Number.NEGATIVE_INFINITY].map(shownNumber)).toEqual([
      '0.333333',
      '1e-9',
      '123456789',
      '123457000',
      'nan',
      '-inf',
    ]);
  });
});

describe('progress', () => {
  it('tells rate and time left', () => {
    expect(progressLine(50, 200, 10, 'tokens', 'layer 3')).toBe(
      ' 25%  50 of 200 tokens  5 tokens/s  30s left  layer 3',
    );
    expect(progressLine(2_500_000, 1e9, 10, 'tokens', '')).toBe(
      '  0%  2.50M of 1.00G tokens  250k tokens/s  1h06m left',
    );
    expect(progressLine(7, undefined, 0, 'documents', '')).toBe('7 documents');
  });

  it('writes nothing where there is no terminal, or when quiet', async () => {
    let written = '';
    const write = (text: string): boolean => {
      written += text;
      return true;
    };
    const stream = { isTTY: false, write };
    for (const options of [
      { stream, quiet: false },
      { stream: { ...stream, isTTY: true }, quiet: true },
    ]) {
      const progress = await createProgress({ ...options, unit: 'tokens', total: 3, now: () => 0 });
      progress.update(2);
      progress.stop();
    }
    expect(written).toBe('');
  });
});

describe('timings', () => {
  it('adds stages up by the given clock', () => {
    let now = 0;
    const timings = createTimings(() => now);
    for (const [stage, milliseconds] of [
      ['load', 1000],
      ['score', 3000],
      ['load', 500],
    ] as const) {
      timings.begin(stage);
      now += milliseconds;
    }
    timings.count('tokens', 90);
    const path = join(folder, 'timings.json');
    const file = createAtomicFile(path);
    timings.write(file, 'analyze-entropy tokens', { threads: 2 });
    file.commit();
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({
      total_seconds: 4.5,
      stages: [
        { name: 'load', seconds: 1.5 },
        { name: 'score', seconds: 3 },
      ],
      rates: { tokens_per_second: 20 },
      host: { threads: 2 },
    });
  });
});
