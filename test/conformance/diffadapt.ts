import { DIFFICULTIES, labelThresholds, proxyLabels } from '../../src/policy/difficulty/labels.js';
import { crossEntropyNats, predictedClasses, probeLogits, softmaxRows } from '../../src/policy/difficulty/probe.js';
import { budgetOf, STRATEGIES } from '../../src/policy/difficulty/strategies.js';
import { uCurve } from '../../src/policy/difficulty/u-curve.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  return 'level' in inputs ? curve(inputs) : probe(inputs);
}

function curve(inputs: { [key: string]: Json }): unknown {
  const found = uCurve(float64(inputs.level, 'level'), float64(inputs.entropy, 'entropy'));
  return {
    level_mean: tensor([found.meanNats.length], found.meanNats),
    quad: [...found.quadratic],
    argmin_level: found.argminLevel,
    vertex: found.vertex,
    drop_from_first: found.dropFromFirst,
    rise_to_last: found.riseToLast,
    is_u_shaped: found.looksUShaped,
  };
}

function probe(inputs: { [key: string]: Json }): unknown {
  const accuracy = float64(inputs.accuracy, 'accuracy');
  const entropy = float64(inputs.entropy, 'entropy');
  const given = Object.fromEntries(
    ['alpha', 'beta', 'gamma'].flatMap((name) => (name in inputs ? [[name, number(inputs[name], name)]] : [])),
  );
  const labels = proxyLabels(accuracy, entropy, labelThresholds(accuracy, entropy, given));
  const [rows, features] = shapeOf(inputs.hidden, 'hidden');
  const [hidden] = shapeOf(inputs.b1, 'b1');
  const [classes] = shapeOf(inputs.b2, 'b2');
  const weights = {
    w1: float64(inputs.W1, 'W1'),
    b1: float64(inputs.b1, 'b1'),
    w2: float64(inputs.W2, 'W2'),
    b2: float64(inputs.b2, 'b2'),
  };
  const logits = probeLogits({ features, hidden, classes, ...weights }, float64(inputs.hidden, 'hidden'), rows);
  const probs = softmaxRows(logits, classes);
  const predicted = Array.from(predictedClasses(probs, classes), (c) => DIFFICULTIES[c]);
  const most = number(inputs.max_tokens, 'max_tokens');
  return {
    labels: Array.from(labels, (c) => DIFFICULTIES[c]),
    logits: tensor([rows, classes], logits),
    probs: tensor([rows, classes], probs),
    cross_entropy: crossEntropyNats(probs, labels, classes),
    predicted,
    strategy: predicted.map((name) => ({
      temperature: STRATEGIES[name].temperature,
      max_tokens: budgetOf(STRATEGIES[name], most),
    })),
  };
}
