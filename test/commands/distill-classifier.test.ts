import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { onnxInputs, readOnnxModel } from '../../src/formats/onnx.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { resident, severally } from './run-surprisal.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-classifier-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const DIGITS = 'fixtures/tables/digits.csv';
const TASK = ['--data', DIGITS, '--standardize', 'all', '--quiet'];
const TRAIN = [
  'distill-pld',
  'train',
  '--student',
  'mlp:12',
  '--eval-share',
  '0.2',
  '--epochs',
  '4',
  '--learning-rate',
  '0.03',
  ...TASK,
];

describe('distill-pld train on features', () => {
  it('learns from a teacher that is trained on the spot, and writes a model that classifies', () => {
    const teacher = ['--teacher', 'train:mlp:40,dropout=0.2', '--teacher-epochs', '8', '--loss', 'pld(tau=2)'];
    const out = at('student');
    const run = resident([...TRAIN, ...teacher, '--out', out, '--report', at('t.json'), '--plot', at('t.svg')]);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('t.json')) as unknown as {
      evaluation: { before: { accuracy: number }; after: { accuracy: number; agreement: number } };
      run: { steps: number; kept: string };
      teacher: { held_out: { accuracy: number } };
      rows: object;
    };
    expect(report.rows).toEqual({ train: 244, student: 244, held_out: 56 });
    expect(report.run).toMatchObject({ steps: 16, kept: 'best' });
    expect(report.evaluation.after.accuracy).toBeGreaterThan(0.3);
    expect(report.evaluation.after.accuracy).toBeGreaterThan(report.evaluation.before.accuracy);
    expect(report.teacher.held_out.accuracy).toBeGreaterThan(0.6);
    expect(readdirSync(out).sort()).toEqual(['classes.json', 'manifest.json', 'metrics.csv', 'student.onnx']);
    const manifest = readReport(join(out, 'manifest.json'));
    validateReport(manifest, 'manifest.json');
    expect(manifest.files).toMatchObject([{ name: 'classes.json' }, { name: 'metrics.csv' }, { name: 'student.onnx' }]);
    expect(existsSync(at('.student.training'))).toBe(false);
    expect(readFileSync(at('t.svg'), 'utf8')).toContain('Held-out accuracy');

    // The student serves as a teacher, its own scaling inside.
    const model = join(out, 'student.onnx');
    const again = resident([
      ...TRAIN,
      '--teacher',
      model,
      '--loss',
      'kd(T=2)',
      '--out',
      at('b.onnx'),
      '--report',
      at('b.json'),
      ...['--grad-check', '--save-gradient-graph', at('gradients.onnx')],
    ]);
    expect(again).toMatchObject({ code: 0, stderr: '' });
    validateReport(readReport(at('b.json')), 'b.json');
    const second = readReport(at('b.json')) as unknown as typeof report;
    expect(second).toMatchObject({
      grad_check: { precision: 'f64', tensors: 4, agrees: true },
      gradient_graph: { loss: 'inside', inputs: ['features', 'labels', 'teacher'], gradients: 4 },
    });
    const inputs = onnxInputs(readOnnxModel(at('gradients.onnx'))).map(({ name }) => name);
    expect(inputs).toEqual(expect.arrayContaining(['features', 'labels', 'teacher']));
    expect(second.teacher.held_out.accuracy).toBe(report.evaluation.after.accuracy);
    expect(existsSync(at('b.onnx'))).toBe(true);
  });

  it('gives the same bytes whatever the threads', () => {
    const line = (name: string, ...more: string[]) => [
      ...TRAIN,
      ...['--loss', 'ce', '--out', at(name), '--report', at(`${name}.json`), ...more],
    ];
    const [whole, both, threads] = severally([
      line('whole', '--threads', '1'),
      line('both', '--steps', '10'),
      line('threads', '--threads', '3'),
    ]);
    expect(both.stderr).toContain('--epochs and --steps');
    expect([whole.code, threads.code]).toEqual([0, 0]);
    const model = (name: string) => readFileSync(join(at(name), 'student.onnx'));
    expect(model('threads').equals(model('whole'))).toBe(true);
  });

  it('says what is wrong', () => {
    const ended = severally([
      [...TRAIN, '--loss', 'kd', '--out', at('x')],
      [...TRAIN, '--student', 'mlp:x', '--out', at('x')],
      [...TRAIN, '--lora-rank', '4', '--loss', 'ce', '--out', at('x')],
      [...TRAIN, '--teacher', 'nothing.txt', '--out', at('x')],
      [...TRAIN, '--loss', 'ce', '--learning-rate', '1e30', '--out', at('x')],
      [...TRAIN, '--loss', 'ce', '--eval-data', DIGITS, '--out', at('x')],
      [...TRAIN, '--student', 'cnn:4', '--loss', 'ce', '--out', at('x')],
    ]);
    const words = [
      'needs a teacher',
      '"x" is no width',
      '--lora-rank has no meaning',
      'no network and no .onnx file',
      'step',
      '--eval-share',
      'reads images',
    ];
    ended.forEach(({ code, stderr }, i) => {
      expect([i, code]).toEqual([i, i === 4 ? 1 : 2]);
      expect(stderr).toContain(words[i]);
      expect(
        stderr
          .trim()
          .split('\n')
          .filter((text) => text.startsWith('error')),
      ).toHaveLength(1);
    });
  });
});

describe('distill-pld compare', () => {
  const COMPARE = [
    ...['distill-pld', 'compare', '--student', 'mlp:8', '--epochs', '3', '--seeds', '3', '--held-out-share', '0.2'],
    ...['--teacher', 'train:mlp:40', '--teacher-epochs', '8', ...TASK],
  ];

  it('compares losses by seeds, the values chosen on rows that are not reported', () => {
    const losses = ['--losses', 'ce', 'PLD: pld', 'listmle', '--sweep', 'pld.tau=1,4', '--choose', 'nll'];
    const files = ['--out', at('c.csv'), '--report', at('c.json'), '--table', at('ct.csv'), '--plot', at('c.svg')];
    const run = resident([...COMPARE, ...losses, ...files, '--threads', '2']);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('c.json')) as unknown as {
      losses: {
        name: string;
        loss: string;
        test: Record<string, { mean: number; standard_error: number }>;
        difference: Record<string, { mean: number }> | null;
        members: { loss: string; chosen: boolean; held_out: Record<string, { mean: number }> }[];
      }[];
      task: object;
    };
    expect(report.task).toMatchObject({ student_rows: 188, held_out_rows: 56, test_rows: 56, classes: 10 });
    expect(report.losses.map(({ name }) => name)).toEqual(['ce', 'PLD', 'listmle']);
    const [ce, pld] = report.losses;
    const [first, second] = pld.members;
    expect([first.loss, second.loss]).toEqual(['pld(tau=1)', 'pld(tau=4)']);
    const better = first.held_out.nll_nats.mean <= second.held_out.nll_nats.mean ? first : second;
    expect(better.chosen).toBe(true);
    expect(pld.loss).toBe(better.loss);
    expect(ce.difference).toBeNull();
    expect(pld.difference?.accuracy.mean).toBeCloseTo(pld.test.accuracy.mean - ce.test.accuracy.mean, 12);
    const table = readFileSync(at('ct.csv'), 'utf8').trim().split('\n');
    expect(table).toHaveLength(1 + 3 * 4);
    expect(readFileSync(at('c.svg'), 'utf8')).toContain('Test accuracy');

    // One thread gives the same bytes.
    const again = resident([...COMPARE, ...losses, '--report', at('d.json'), '--threads', '1']);
    expect(again.code).toBe(0);
    expect(readFileSync(at('d.json'), 'utf8')).toBe(readFileSync(at('c.json'), 'utf8'));
  });

  it('says what is wrong', () => {
    const ended = severally([
      ['distill-pld', 'compare', '--student', 'mlp:8', '--losses', 'pld', ...TASK],
      [...COMPARE, '--losses', 'ce', 'ce'],
      [...COMPARE, '--losses', 'ce', '--sweep', 'taus=1'],
      [...COMPARE, '--losses', 'ce', '--held-out-share', '1.5'],
      [...COMPARE, '--losses', 'ce', '--reference', 'pld'],
    ]);
    const words = ['needs a teacher', 'stands twice', 'did you mean "tau"', 'above 0 and below 1', '--reference pld'];
    ended.forEach(({ code, stderr }, i) => {
      expect([i, code]).toEqual([i, 2]);
      expect(stderr).toContain(words[i]);
    });
  });
});
