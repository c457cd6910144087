import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { decodeOnnxModel, encodeOnnxModel } from '../../../src/formats/onnx.js';
import { type ModelProto, TensorProto_DataType } from '../../../src/formats/onnx_pb.js';
import { graphOf, onnxTensor } from '../../../src/formats/onnx-edit.js';
import { composeGraph, type GraphComposer } from '../../../src/models/graph.js';
import { createSession, floatsOf, runSession } from '../../../src/models/sessions.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import { appendGraph, composeJointGraph } from '../../../src/training/autodiff/joint-graph.js';
import { differenceError, doubles, integers, runDifferentiated, waves } from './graph-gradients.js';

const ramp = (dims: readonly number[], phase: number) =>
  doubles(
    Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(phase + 1.7 * i)),
    dims,
  );

function model(compose: (graph: GraphComposer) => void): ModelProto {
  const graph = composeGraph('test', 'f64');
  compose(graph);
  return decodeOnnxModel(graph.encode(), 'test');
}

/** Two layers with one weight: y = tanh(x W) W^T. */
function tied(graph: GraphComposer): void {
  graph.input('x', 'f64', ['rows', 3]);
  graph.input('w', 'f64', [3, 4]);
  const hidden = graph.node('Tanh', [graph.node('MatMul', ['x', 'w'])]);
  const back = graph.node('Transpose', ['w'], { attributes: { perm: { ints: [1, 0] } } });
  graph.node('MatMul', [hidden, back], { outputs: ['y'] });
  graph.output('y', 'f64', ['rows', 3]);
}
const TIED_INPUTS = { x: ramp([2, 3], 0.4), w: ramp([3, 4], 1.1) };

describe('differentiation of a graph', () => {
  it('adds up the gradients of a weight that is used twice', async () => {
    expect(await differenceError({ compose: tied, inputs: TIED_INPUTS, wanted: ['w', 'x'] })).toBeLessThan(1e-8);
  });

  it('gives the same with everything saved and with nothing saved', async () => {
    const request = { model: model(tied), wanted: ['w'], seeds: ['y'], precision: 'f64' } as const;
    const saving = await differentiate(request, TIED_INPUTS);
    const computing = await differentiate({ ...request, recompute: true }, TIED_INPUTS);
    expect(saving.saved.map(({ name }) => name)).toHaveLength(1);
    expect(computing.saved).toEqual([]);
    const [a, b] = [
      await runDifferentiated(saving, TIED_INPUTS, waves, ['y']),
      await runDifferentiated(computing, TIED_INPUTS, waves, ['y']),
    ];
    expect(Array.from(floatsOf(a.gradients['grad.w']))).toEqual(Array.from(floatsOf(b.gradients['grad.w'])));
  });

  it('takes batches of other sizes than the example, 1 and 0 among them', async () => {
    const compose = (graph: GraphComposer): void => {
      graph.input('x', 'f64', ['rows', 3]);
      graph.input('b', 'f64', [3]);
      graph.node('Mul', ['x', 'b'], { outputs: ['y'] });
      graph.output('y', 'f64', ['rows', 3]);
    };
    const b = ramp([3], 0.2);
    const request = { model: model(compose), wanted: ['b', 'x'], seeds: ['y'], precision: 'f64' } as const;
    const made = await differentiate(request, { x: ramp([2, 3], 0.4), b });
    for (const rows of [0, 1, 5]) {
      const x = ramp([rows, 3], 0.9);
      const { gradients } = await runDifferentiated(made, { x, b }, waves, ['y']);
      const expected = [0, 1, 2].map((j) =>
        Array.from({ length: rows }, (_, i) => Math.cos(1 + 2 * (3 * i + j)) * floatsOf(x)[3 * i + j]).reduce(
          (sum, term) => sum + term,
          0,
        ),
      );
      floatsOf(gradients['grad.b']).forEach((value, j) => {
        expect(value).toBeCloseTo(expected[j], 12);
      });
      expect(gradients['grad.x'].dims).toEqual([rows, 3]);
    }
  });

  it('writes nothing for what is frozen, and tells what no seed depends on', async () => {
    const compose = (graph: GraphComposer): void => {
      graph.input('x', 'f64', ['rows', 3]);
      for (const [name, dims] of [
        ['w', [3, 4]],
        ['v', [4, 2]],
        ['idle', [2]],
      ] as const)
        graph.input(name, 'f64', dims);
      graph.node('MatMul', [graph.node('Tanh', [graph.node('MatMul', ['x', 'w'])]), 'v'], { outputs: ['y'] });
      graph.node('Neg', ['idle'], { outputs: ['z'] });
      graph.output('y', 'f64', ['rows', 2]);
      graph.output('z', 'f64', [2]);
    };
    const inputs = { x: ramp([2, 3], 0.1), w: ramp([3, 4], 0.2), v: ramp([4, 2], 0.3), idle: ramp([2], 0) };
    const made = await differentiate(
      { model: model(compose), wanted: ['v', 'idle'], seeds: ['y'], precision: 'f64' },
      inputs,
    );
    expect(made.unreached).toEqual(['idle']);
    expect(graphOf(made.backward).node.map(({ opType }) => opType)).toEqual(['Gemm']);
    expect(graphOf(made.backward).output.map(({ name }) => name)).toEqual(['grad.v']);
  });

  it('moves trained initializers to the inputs and widens a single-precision graph', async () => {
    const graph = composeGraph('single', 'f32');
    graph.input('x', 'f32', ['rows', 2]);
    graph.node('Mul', [graph.node('MatMul', ['x', 'w']), graph.scalar(0.5)], { outputs: ['y'] });
    graph.output('y', 'f32', ['rows', 2]);
    const single = decodeOnnxModel(graph.encode(), 'single');
    const bytes = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);
    graphOf(single).initializer.push(onnxTensor('w', TensorProto_DataType.FLOAT, [2, 2], bytes));
    const x = new Tensor('float32', Float32Array.of(1, -1, 2, 0.5), [2, 2]);
    const made = await differentiate({ model: single, wanted: ['w'], seeds: ['y'], precision: 'f64' }, { x });
    const inputs = { x: doubles([1, -1, 2, 0.5], [2, 2]), w: doubles([1, 2, 3, 4], [2, 2]) };
    const ones = (like: Tensor): Tensor => doubles(new Array(like.size).fill(1), like.dims);
    const { gradients, outputs } = await runDifferentiated(made, inputs, ones, ['y']);
    expect(Array.from(floatsOf(outputs.y))).toEqual([-1, -1, 1.75, 3]);
    expect(Array.from(floatsOf(gradients['grad.w']))).toEqual([1.5, 1.5, -0.25, -0.25]);
    expect(graphOf(made.forward).initializer.map(({ name }) => name)).not.toContain('w');
  });

  it('shares the gradient among equal maxima', async () => {
    const made = await differentiate(
      {
        model: model((graph) => {
          for (const name of ['a', 'b']) graph.input(name, 'f64', ['n']);
          graph.node('Max', ['a', 'b'], { outputs: ['y'] });
          graph.output('y', 'f64');
        }),
        wanted: ['a', 'b'],
        seeds: ['y'],
        precision: 'f64',
      },
      { a: doubles([1, 2]), b: doubles([1, 3]) },
    );
    const ones = (like: Tensor): Tensor => doubles(new Array(like.size).fill(1), like.dims);
    const { gradients } = await runDifferentiated(made, { a: doubles([1, 2]), b: doubles([1, 3]) }, ones, ['y']);
    expect(Array.from(floatsOf(gradients['grad.a']))).toEqual([0.5, 0]);
    expect(Array.from(floatsOf(gradients['grad.b']))).toEqual([0.5, 1]);
  });

  it('passes the gradient of chosen branches and of clipped values', async () => {
    const error = await differenceError({
      compose(graph) {
        for (const name of ['a', 'b']) graph.input(name, 'f64', ['n', 'm']);
        graph.input('low', 'f64', []);
        const chosen = graph.node('Where', [graph.node('Greater', ['a', graph.scalar(0)]), 'a', 'b']);
        graph.node('Clip', [chosen, 'low'], { outputs: ['y'] });
        graph.output('y', 'f64');
      },
      inputs: { a: ramp([2, 3], 0.4), b: ramp([2, 3], 1.4), low: doubles([0.2], []) },
      wanted: ['a', 'b', 'low'],
    });
    expect(error).toBeLessThan(1e-8);
  });
});

describe('operators without a gradient', () => {
  const rounding = (graph: GraphComposer): void => {
    graph.input('x', 'f64', ['n']);
    graph.node('Round', [graph.node('Mul', ['x', 'x'])], { outputs: ['r'] });
    graph.node('Floor', ['r'], { outputs: ['f'] });
    graph.node('Neg', ['f'], { outputs: ['y'] });
    graph.output('y', 'f64');
  };
  const request = { wanted: ['x'], seeds: ['y'], precision: 'f64' } as const;
  it('are all named, with their operator set and the path from the loss', async () => {
    const refused = differentiate({ ...request, model: model(rounding) }, { x: doubles([1, 2]) });
    await expect(refused).rejects.toThrow('2 operators have no gradient here');
    await expect(refused).rejects.toThrow(
      /Round "n1_Round" of operator set 23 .*y <- Neg "n3_Neg" <- Floor "n2_Floor" <- Round/,
    );
  });
  it('do no harm off the path', async () => {
    const compose = (graph: GraphComposer): void => {
      graph.input('x', 'f64', ['n']);
      graph.input('other', 'f64', ['n']);
      graph.node('Add', ['x', graph.node('Round', ['other'])], { outputs: ['y'] });
      graph.output('y', 'f64');
    };
    const made = await differentiate(
      { ...request, model: model(compose) },
      { x: doubles([1, 2]), other: doubles([1, 2]) },
    );
    expect(made.unreached).toEqual([]);
  });
  it('pass the gradient on where a straight-through estimate is asked for', async () => {
    const made = await differentiate(
      { ...request, model: model(rounding), straightThrough: true },
      { x: doubles([1.2, 2.6]) },
    );
    const ones = (like: Tensor): Tensor => doubles(new Array(like.size).fill(1), like.dims);
    const { gradients } = await runDifferentiated(made, { x: doubles([1.2, 2.6]) }, ones, ['y']);
    expect(Array.from(floatsOf(gradients['grad.x']))).toEqual([-2.4, -5.2]);
  });
  it('name unknown seeds and wanted tensors', async () => {
    const own = { ...request, model: model(rounding) };
    await expect(differentiate({ ...own, seeds: ['yy'] }, {})).rejects.toThrow('no output "yy"; did you mean "y"?');
    await expect(differentiate({ ...own, wanted: ['q'] }, {})).rejects.toThrow('no input or initializer "q"');
    await expect(differentiate(own, {})).rejects.toThrow('the graph reads "x", of which the example holds nothing');
  });
});

describe('forward and backward pass as one model', () => {
  /** -log softmax(logits)[label], the mean over rows. */
  const crossEntropy = model((graph) => {
    graph.input('scores', 'f64', ['rows', 3]);
    graph.input('labels', 'i64', ['rows']);
    const logProbs = graph.node('LogSoftmax', ['scores'], { attributes: { axis: { int: -1 } } });
    const column = graph.node('Unsqueeze', ['labels', graph.integers([1])]);
    const picked = graph.node('GatherElements', [logProbs, column], { attributes: { axis: { int: 1 } } });
    const mean = graph.node('ReduceMean', [picked], { attributes: { keepdims: { int: 0 } } });
    graph.node('Neg', [mean], { outputs: ['loss'] });
    graph.output('loss', 'f64', []);
  });

  it('with the loss in the graph', async () => {
    const joined = appendGraph(model(tied), crossEntropy, { scores: 'y' });
    const labels = integers([2, 0]);
    const inputs = { ...TIED_INPUTS, labels };
    const joint = await composeJointGraph(
      { model: joined, wanted: ['w'], precision: 'f64', from: { loss: 'loss' }, norm: true },
      inputs,
    );
    const session = await createSession(encodeOnnxModel(joint), { threads: 1, device: 'cpu', arena: false });
    const run = async (w: Tensor) =>
      (await runSession(session, { ...inputs, w }, { loss: null, 'grad.w': null, grad_norm: null })) as Record<
        string,
        Tensor
      >;
    const found = await run(TIED_INPUTS.w);
    const gradient = floatsOf(found['grad.w']);
    for (const at of [0, 5, 11]) {
      const moved = async (step: number): Promise<number> => {
        const values = Float64Array.from(floatsOf(TIED_INPUTS.w));
        values[at] += step;
        return floatsOf((await run(new Tensor('float64', values, [3, 4]))).loss)[0];
      };
      expect(gradient[at]).toBeCloseTo(((await moved(1e-5)) - (await moved(-1e-5))) / 2e-5, 8);
    }
    expect(floatsOf(found.grad_norm)[0]).toBeCloseTo(Math.hypot(...gradient), 12);
    await session.release();
  });

  it('with cotangents as inputs, and weights as defaults', async () => {
    const stored = model((graph) => {
      graph.input('x', 'f64', ['rows', 2]);
      graph.node('MatMul', ['x', 'w'], { outputs: ['y'] });
      graph.output('y', 'f64', ['rows', 1]);
    });
    const bytes = new Uint8Array(Float64Array.of(3, 4).buffer);
    graphOf(stored).initializer.push(onnxTensor('w', TensorProto_DataType.DOUBLE, [2, 1], bytes));
    const x = doubles([1, 2], [1, 2]);
    const joint = await composeJointGraph(
      { model: stored, wanted: ['w'], precision: 'f64', from: { seeds: ['y'] } },
      { x: doubles([1, 2, 3, 4], [2, 2]) },
    );
    const session = await createSession(encodeOnnxModel(joint), { threads: 1, device: 'cpu', arena: false });
    const feeds = { x, 'grad.y': doubles([10], [1, 1]) };
    const found = (await runSession(session, feeds, { y: null, 'grad.w': null })) as Record<string, Tensor>;
    expect(floatsOf(found.y)[0]).toBe(11);
    expect(Array.from(floatsOf(found['grad.w']))).toEqual([10, 20]);
    await session.release();
  });
});
