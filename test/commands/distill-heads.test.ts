import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['distill-pld', 'heads', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('distill-heads'));

describe('distill-pld heads', () => {
  it('distils members into heads, and writes features that probes read', () => {
    const random = createRandom(1);
    const lines = ['a,b,label'];
    for (let i = 0; i < 200; i++) {
      const [a, b] = [random.normal(), random.normal()];
      lines.push(`${a},${b},${a + b * b > 1 ? 'in' : 'out'}`);
    }
    writeFileSync(out('rows.csv'), `${lines.join('\n')}\n`);
    const words = [
      '--data',
      out('rows.csv'),
      '--members',
      '2',
      '--member',
      'mlp:6',
      '--student',
      'mlp:8',
      '--epochs',
      '20',
    ];
    const files = ['--features', out('features'), '--save-student', out('student.onnx'), '--plot', out('h.svg')];
    const ended = run(...words, '--learning-rate', '0.02', ...files, '--report', out('h.json'), '--out', out('h.csv'));
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const report = JSON.parse(readFileSync(out('h.json'), 'utf8'));
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.last_loss_nats).toBeLessThan(0.3 * report.first_loss_nats);
    expect(report.networks.map(({ network }: { network: string }) => network)).toEqual([
      'member-0',
      'member-1',
      'ensemble of members',
      'mean of student heads',
      'student head 0',
      'student head 1',
    ]);
    expect(report.features.map(({ width }: { width: number }) => width)).toEqual([8, 6, 6]);
    expect(readFileSync(out('student.onnx')).length).toBeGreaterThan(300);
    const parts = ['student', 'member-0'].map((name) => join(out('features'), name));
    const labels = [
      '--labels',
      join(out('features'), 'labels-train.npy'),
      '--test-labels',
      join(out('features'), 'labels-eval.npy'),
    ];
    const probes = resident([
      ...['analyze-entropy', 'probes', '--data', ...parts.map((part) => `${part}-train.npy`)],
      ...['--test', ...parts.map((part) => `${part}-eval.npy`), ...labels],
    ]);
    expect(probes.code).toBe(0);
    expect(probes.stdout).toContain('concatenation of 2');
  });

  it('refuses what does not fit', () => {
    const faults: [string[], RegExp][] = [
      [[], /--data is missing/],
      [['--data', out('rows.csv'), '--member-logits', 'a.npy'], /give --eval-data/],
      [['--data', out('rows.csv'), '--loss', 'kdd'], /did you mean/],
      [['--data', out('rows.csv'), '--features', out('features')], /exists; use --force/],
    ];
    for (const [argv, message] of faults) {
      const { code, stderr } = run(...argv);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
    expect(existsSync(out('none'))).toBe(false);
  });
});
