import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type MetricsOptions, openMetricsFile } from '../../src/training/metrics-file.js';
import type { StepRecord } from '../../src/training/types.js';

let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'surprisal-metrics-'));
  file = join(directory, 'metrics.csv');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const options: MetricsOptions = { terms: ['kd(T=4,scale=1)', 'ce'], evaluation: ['accuracy'], extra: ['seconds'] };
const record = (step: number): StepRecord => ({
  step,
  loss: step === 2 ? Number.NaN : 1 / step,
  terms: { ce: 2 / step, 'kd(T=4,scale=1)': 3 },
  learningRate: 0.1,
  gradientNorm: step === 2 ? Number.POSITIVE_INFINITY : 0.5,
  validRows: 64,
  skipped: step === 2,
});

describe('metrics file', () => {
  it('holds a row a step from the moment it is made', () => {
    const metrics = openMetricsFile(file, options);
    metrics.append(record(1), undefined, { seconds: 0.25 });
    expect(readFileSync(file, 'utf8')).toBe(
      'step,loss_nats,"kd(T=4,scale=1)_nats",ce_nats,learning_rate,gradient_norm,valid_rows,skipped,eval_loss_nats,eval_accuracy,seconds\n' +
        '1,1,3,2,0.1,0.5,64,0,,,0.25\n',
    );
    metrics.append(record(2), { loss: 0.75, figures: { accuracy: 0.5 } });
    metrics.close();
    expect(readFileSync(file, 'utf8').split('\n')[2]).toBe('2,nan,3,1,0.1,inf,64,1,0.75,0.5,');
  });

  it('is cut back to the checkpoint from which a run goes on', () => {
    const write = (steps: readonly number[], resumeAt?: number): void => {
      const metrics = openMetricsFile(file, { ...options, resumeAt });
      for (const step of steps) metrics.append(record(step));
      metrics.close();
    };
    write([1, 2, 3, 4, 5]);
    const whole = readFileSync(file, 'utf8');
    appendFileSync(file, '6,0.1,half a li');
    write([4, 5], 3);
    expect(readFileSync(file, 'utf8')).toBe(whole);
    write([1, 2, 3, 4, 5], 0);
    expect(readFileSync(file, 'utf8')).toBe(whole);
    rmSync(file);
    write([1, 2, 3, 4, 5], 0);
    expect(readFileSync(file, 'utf8')).toBe(whole);
  });

  it('replaces nothing unasked, and no file of other columns', () => {
    writeFileSync(file, 'step,other\n1,2\n');
    expect(() => openMetricsFile(file, options)).toThrow('already exists');
    expect(() => openMetricsFile(file, { ...options, resumeAt: 1 })).toThrow('columns are not those of this run');
    openMetricsFile(file, { ...options, force: true }).close();
    expect(readFileSync(file, 'utf8')).toMatch(/^step,loss_nats/);
    expect(() => openMetricsFile(join(directory, 'none', 'm.csv'), options)).toThrow('none');
    expect(existsSync(join(directory, 'none'))).toBe(false);
  });
});
