import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const run = (...argv: string[]) => resident(['distill-pld', 'activations', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('distill-activations'));

function reportOf(name: string) {
  const report = JSON.parse(readFileSync(out(name), 'utf8'));
  expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
  return report;
}

describe('distill-pld activations', () => {
  it('searches and trains, and learns epsilon', () => {
    const random = createRandom(1);
    const lines = ['a,b,label'];
    for (let i = 0; i < 120; i++) {
      const [a, b] = [random.normal(), random.normal()];
      lines.push(`${a},${b},${a * b > 0 ? 1 : 0}`);
    }
    writeFileSync(out('xor.csv'), `${lines.join('\n')}\n`);
    const words = ['--compare', 'relu,crrelu', '--data', out('xor.csv'), '--student', 'mlp:8', '--seeds', '2'];
    const files = ['--out', out('a.csv'), '--table', out('t.csv'), '--report', out('a.json'), '--plot', out('a.svg')];
    const ended = run(...words, '--epochs', '3', '--learning-rate', '0.01', ...files);
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const report = reportOf('a.json');
    expect(report.first_variation).toBeCloseTo(-0.0705237, 6);
    expect(report.training.runs).toHaveLength(4);
    expect(report.training.held_out_rows + report.training.training_rows).toBe(120);
    expect(report.training.activations[1].learnt['layers.0.epsilon'].mean).not.toBe(0.01);
    expect(readFileSync(out('a.csv'), 'utf8').trim().split('\n')).toHaveLength(258);
    expect(readFileSync(out('t.csv'), 'utf8')).toContain('layers.0.epsilon=');
    expect(readFileSync(out('a.svg'), 'utf8')).toContain('Accuracy of trained networks');
  });

  it('records the inputs of a block of a model', () => {
    writeFileSync(out('text.txt'), 'The quick brown fox jumps over the lazy dog.');
    const words = ['--model', 'fixtures/models/llama-sotu', '--data', out('text.txt'), '--layer', '1'];
    const ended = run(...words, '--density', 'fitted', '--base', 'sigmoid', '--report', out('m.json'));
    expect(ended.code).toBe(0);
    const report = reportOf('m.json');
    const { intermediate_size: width } = JSON.parse(readFileSync('fixtures/models/llama-sotu/config.json', 'utf8'));
    expect(report.recorded_inputs).toBeGreaterThan(0);
    expect(report.recorded_inputs % width).toBe(0);
    expect(run(...words, '--compare', 'relu').stderr).toContain('--model reads --data as text');
    expect(run(...words, '--layer', '9').stderr).toContain('blocks 0 to 3');
  });

  it('takes recorded inputs, and refuses what makes no sense', () => {
    const random = createRandom(2);
    writeFileSync(out('in.csv'), `u\n${Array.from({ length: 500 }, () => random.normal() * 2).join('\n')}\n`);
    const ended = run('--base', 'sigmoid', '--inputs', out('in.csv'), '--report', out('k.json'));
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const report = reportOf('k.json');
    expect(report.density.kind).toBe('kernel');
    expect(report.plug_in.after_nats).toBeLessThan(report.plug_in.before_nats);
    const faults: [string[], RegExp][] = [
      [['--base', 'x*sigmod(x)'], /did you mean "sigmoid"/],
      [['--density', 'kernel'], /--density kernel needs --inputs or --model/],
      [['--compare', 'rleu', '--data', out('in.csv')], /did you mean "relu"/],
      [['--epochs', '3'], /--epochs needs --compare/],
      [['--table', out('no.csv')], /--table holds trained networks/],
      [['--base', '0-x'], /increases on no stretch/],
    ];
    for (const [argv, message] of faults) {
      const { code, stderr } = run(...argv);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
  });
});
