import { Tensor } from 'onnxruntime-node';
import { expect, it } from 'vitest';
import { decodeOnnxModel } from '../../../src/formats/onnx.js';
import { composeGraph } from '../../../src/models/graph.js';
import { floatsOf } from '../../../src/models/sessions.js';
import { createRandom } from '../../../src/random.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import { createLoss, LOSSES } from '../../../src/training/losses/index.js';
import { IGNORED } from '../../../src/training/types.js';
import { doubles, integers, runDifferentiated } from '../autodiff/graph-gradients.js';

const [ROWS, CLASSES] = [6, 9];
const random = createRandom(8);
const normals = (): Float64Array => Float64Array.from({ length: ROWS * CLASSES }, () => 2 * random.normal());
const [student, teacher] = [normals(), normals()];
const labels = Int32Array.of(3, 0, IGNORED, 8, 2, 3);

const cases: readonly (readonly [string, Record<string, number | string>])[] = [
  ['ce', {}],
  ['label-smoothing', { eps: 0.3 }],
  ['kd', { T: 4 }],
  ['reverse-kl', { T: 2 }],
  ['jsd', { beta: 0.3, T: 2 }],
  ['jsd', { beta: 0 }],
  ['tvd', {}],
  ['comp-sum', { tau: 0 }],
  ['comp-sum', { tau: 1.5 }],
  ['pld', { tau: 2 }],
  ['pld-partial', { K: 4 }],
];

it.each(cases)('%s %o has in a graph the values and gradients that it has outside', async (name, parameters) => {
  const loss = createLoss(name, parameters);
  const gradient = new Float64Array(ROWS * CLASSES);
  const input = { rows: ROWS, classes: CLASSES, student, labels, teacher: { kind: 'dense' as const, logits: teacher } };
  const { perRow } = loss.evaluate(input, { logits: gradient });
  const g = composeGraph('loss', 'f64');
  const inputs = {
    student: g.input('logits', 'f64', ['rows', CLASSES]),
    teacher: g.input('teacher', 'f64', ['rows', CLASSES]),
    labels: g.input('labels', 'i64', ['rows']),
    classes: CLASSES,
  };
  g.publish(loss.compose?.(g, inputs) ?? '', 'loss', ['rows']);
  const model = decodeOnnxModel(g.encode(), 'loss');
  const feeds = {
    logits: doubles([...student], [ROWS, CLASSES]),
    teacher: doubles([...teacher], [ROWS, CLASSES]),
    labels: integers([...labels]),
  };
  const made = await differentiate({ model, wanted: ['logits'], seeds: ['loss'], precision: 'f64' }, feeds);
  const counting = (output: Tensor): Tensor =>
    new Tensor(
      'float64',
      Float64Array.from(labels, (label) => (label === IGNORED ? 0 : 1)),
      output.dims,
    );
  const { outputs, gradients } = await runDifferentiated(made, feeds, counting, ['loss']);
  const own = floatsOf(outputs.loss);
  labels.forEach((label, r) => {
    if (label !== IGNORED) expect(own[r]).toBeCloseTo(perRow?.[r] ?? Number.NaN, 10);
  });
  const ownGradient = floatsOf(gradients['grad.logits']);
  for (let i = 0; i < gradient.length; i++) expect(ownGradient[i]).toBeCloseTo(gradient[i], 10);
});

it('is not offered by losses that couple rows or read features', () => {
  const composed = LOSSES.filter(({ create }) => create({}).compose !== undefined).map(({ name }) => name);
  expect(composed).toEqual([...new Set(cases.map(([name]) => name))].sort((a, b) => order(a) - order(b)));
  expect(createLoss('kd', { norm: 'sequences' }).compose).toBeUndefined();
  expect(createLoss('pld-partial', { form: 'truncated' }).compose).toBeUndefined();
});

const order = (name: string): number => LOSSES.findIndex((declaration) => declaration.name === name);
