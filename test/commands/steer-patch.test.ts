import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);

describe('surprisal steer patch', () => {
  it('writes a graph whose proof holds, and a report of its schema', () => {
    const report = out('report.json');
    const { code, stdout, stderr } = surprisal([
      ...['steer', 'patch', '--onnx', 'fixtures/onnx/genai.onnx', '--layer', '-1,1', '--expose', 'last'],
      ...['--out', out('patched.onnx'), '--report', report],
    ]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toContain('zero steering bit-identical');
    const read = readReport(report) as unknown as {
      blocks: number;
      layers: { steering: string; output: string }[];
      proof: { zero_steering: { bit_identical: boolean } };
    };
    expect(read.blocks).toBe(2);
    expect(read.layers.map(({ steering, output }) => [steering, output])).toEqual([
      ['steer.-1', 'residual.-1'],
      ['steer.1', 'residual.1'],
    ]);
    expect(read.proof.zero_steering.bit_identical).toBe(true);
    expect(readdirSync(folder).filter((name) => name.includes('witness'))).toEqual([]);
  });

  it('puts constant vectors in, and refuses those of another width', () => {
    const vector = out('v.json');
    const directions = { '1': Array.from({ length: 32 }, (_, i) => Math.sin(i)) };
    writeFileSync(vector, JSON.stringify({ model_type: 'llama', directions, explained_variances: {} }));
    const svec = vector.replace('.json', '.svec');
    writeFileSync(svec, readFileSync(vector));
    const argv = ['steer', 'patch', '--onnx', 'fixtures/onnx/genai.onnx', '--mode', 'constant', '--out'];
    const done = surprisal([...argv, out('constant.onnx'), '--vector', `${svec}:0.5`]);
    expect(done.stderr).toBe('');
    expect(done.stdout).toContain('constant = fed vector');
    directions['1'].pop();
    writeFileSync(svec, JSON.stringify({ model_type: 'llama', directions, explained_variances: {} }));
    const refused = surprisal([...argv, out('other.onnx'), '--vector', svec]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('made for another model');
    expect(existsSync(out('other.onnx'))).toBe(false);
  });
});
