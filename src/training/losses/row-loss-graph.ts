import type { RowOperation } from '../../kernels/loss-rows.js';
import type { GraphComposer } from '../../models/graph.js';
import type { LossGraphInputs } from '../types.js';
import { logAdd } from './pld-graph.js';

const ALONG = { attributes: { axis: { int: 1 } } };

/** Log-softmax of logits / T, [rows, classes]. */
function logSoftmax(g: GraphComposer, logits: string, temperature: number): string {
  const softened = temperature === 1 ? logits : g.node('Div', [logits, g.scalar(temperature)]);
  return g.node('LogSoftmax', [softened], ALONG);
}

const sumOverClasses = (g: GraphComposer, value: string): string =>
  g.node('ReduceSum', [value, g.integers([1])], { attributes: { keepdims: { int: 0 } } });

/** sum_c exp(a_c) (a_c - b_c), [rows]. */
const divergence = (g: GraphComposer, a: string, b: string): string =>
  sumOverClasses(g, g.node('Mul', [g.node('Exp', [a]), g.node('Sub', [a, b])]));

/** -log softmax(s)[y], [rows]; rows that do not count take class 0. */
function labelLoss(g: GraphComposer, logs: string, labels: string): string {
  const safe = g.node('Max', [labels, g.integers([0], true)]);
  const places = g.node('Unsqueeze', [safe, g.integers([1])]);
  const chosen = g.node('Squeeze', [g.node('GatherElements', [logs, places], ALONG), g.integers([1])]);
  return g.node('Neg', [chosen]);
}

/** beta KL(p_t || M) + (1 - beta) KL(p_s || M), M = (1 - beta) p_s + beta p_t, of log-probabilities. */
function jensenShannon(g: GraphComposer, student: string, teacher: string, beta: number): string {
  const shifted = (logs: string, share: number): string => g.node('Add', [logs, g.scalar(Math.log(share))]);
  const mixture = logAdd(g, shifted(student, 1 - beta), shifted(teacher, beta));
  const ofTeacher = g.node('Mul', [divergence(g, teacher, mixture), g.scalar(beta)]);
  return g.node('Add', [ofTeacher, g.node('Mul', [divergence(g, student, mixture), g.scalar(1 - beta)])]);
}

/** Adds the loss of every row to a graph, [rows]: the same as `lossRows`. Logits must be finite. */
export function composeRowOperation(g: GraphComposer, operation: RowOperation, inputs: LossGraphInputs): string {
  const { student, teacher, labels } = inputs;
  switch (operation.kind) {
    case 'cross-entropy': {
      const logs = logSoftmax(g, student, 1);
      const own = labelLoss(g, logs, labels);
      if (operation.smoothing === 0) return own;
      const all = g.node('Neg', [sumOverClasses(g, logs)]);
      return g.node('Add', [
        g.node('Mul', [own, g.scalar(1 - operation.smoothing)]),
        g.node('Mul', [all, g.scalar(operation.smoothing / inputs.classes)]),
      ]);
    }
    case 'comp-sum': {
      const { tau } = operation;
      const own = labelLoss(g, logSoftmax(g, student, 1), labels);
      if (tau === 1) return own;
      const power = g.node('Exp', [g.node('Mul', [own, g.scalar(1 - tau)])]);
      return g.node('Div', [g.node('Sub', [power, g.scalar(1)]), g.scalar(1 - tau)]);
    }
    default: {
      const ofStudent = logSoftmax(g, student, operation.temperature);
      const ofTeacher = logSoftmax(g, teacher, operation.temperature);
      if (operation.kind === 'forward-kl') return divergence(g, ofTeacher, ofStudent);
      if (operation.kind === 'reverse-kl') return divergence(g, ofStudent, ofTeacher);
      if (operation.kind === 'jsd') return jensenShannon(g, ofStudent, ofTeacher, operation.beta);
      const apart = g.node('Abs', [g.node('Sub', [g.node('Exp', [ofStudent]), g.node('Exp', [ofTeacher])])]);
      return g.node('Mul', [sumOverClasses(g, apart), g.scalar(0.5)]);
    }
  }
}
