import { gatherCompSum } from '../../src/distillation/comp-sum-audit.js';
import { errorOfSurrogate, simpleErrorBound, surrogateOfError } from '../../src/distillation/comp-sum-bounds.js';
import { createLoss } from '../../src/training/losses/index.js';
import {
  finiteSetMarginChange,
  linearMarginSuprema,
  linearScores,
} from '../../src/training/losses/smooth-adversarial.js';
import type { Json } from './harness.js';
import { float64, int32, number, numbers, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

/** The table's rows are (tau, n, beta), in this order; the case's inputs name the columns alone. */
function table(): unknown {
  const taus = [0, 0.5, 1, 1.3, 1.7, 2, 3];
  const rows = taus.flatMap((tau) =>
    [2, 10].flatMap((classes) =>
      [0, 0.05, 0.25, 0.5, 0.9, 1].flatMap((beta) => {
        const value = surrogateOfError(beta, tau, classes);
        return [tau, classes, beta, value, simpleErrorBound(value, tau, classes)];
      }),
    ),
  );
  return { rows: tensor([rows.length / 5, 5], rows) };
}

function bounds(inputs: Inputs): unknown {
  const [rows, classes] = shapeOf(inputs.logits, 'logits');
  const logits = float64(inputs.logits, 'logits');
  const labels = int32(inputs.labels, 'labels');
  const conditional = 'conditional_p' in inputs ? float64(inputs.conditional_p, 'conditional_p') : undefined;
  const gatherer = gatherCompSum({ taus: numbers(inputs.taus, 'taus'), classes });
  gatherer.add({ rows, logits, labels, conditional });
  const audit = gatherer.finish();
  const byTau = audit.by_tau.map((figures) => {
    const loss = createLoss('comp-sum', { tau: figures.tau });
    const gradient = new Float64Array(rows * classes);
    const output = loss.evaluate({ rows, classes, student: logits, labels }, { logits: gradient });
    return [
      `tau_${figures.tau}`,
      {
        loss_per_row: tensor([rows], output.perRow ?? []),
        mean_loss: figures.mean_loss,
        grad_logits: tensor([rows, classes], gradient),
        conditional_risk: figures.conditional_risk,
        bayes_conditional_risk: figures.bayes_conditional_risk,
        surrogate_excess: figures.surrogate_excess,
        Gamma_exact: figures.gamma_exact,
        Gamma_upper: figures.gamma_simple,
        zero_one_excess: figures.zero_one_excess,
        bound_holds: figures.bound_holds,
        deterministic_bound_on_error: errorOfSurrogate(figures.mean_loss ?? Number.NaN, figures.tau, classes),
      },
    ];
  });
  return {
    error_on_labels: audit.error_on_labels,
    conditional_error: audit.conditional_error,
    bayes_error: audit.bayes_error,
    by_tau: Object.fromEntries(byTau),
  };
}

function smoothAdversarialLinear(inputs: Inputs): unknown {
  const [classes, width] = shapeOf(inputs.W, 'W');
  const [rows, copies] = shapeOf(inputs.perturbed_logits, 'perturbed_logits');
  const weights = float64(inputs.W, 'W');
  const labels = int32(inputs.labels, 'labels');
  const nu = number(inputs.nu, 'nu');
  const points = float64(inputs.X, 'X');
  const logits = linearScores(points, weights, float64(inputs.b, 'b'), { rows, classes, width });
  const loss = createLoss('comp-sum', { tau: number(inputs.tau, 'tau') });
  const clean = loss.evaluate({ rows, classes, student: logits, labels }).perRow ?? new Float64Array(0);
  const suprema = linearMarginSuprema(weights, classes, width, number(inputs.gamma, 'gamma'));
  const supremum = Float64Array.from(labels, (label) => suprema[label]);
  const perturbed = float64(inputs.perturbed_logits, 'perturbed_logits');
  const finite = finiteSetMarginChange(logits, perturbed, labels, { classes, copies });
  const total = clean.map((value, row) => value + nu * supremum[row]);
  return {
    clean_loss: tensor([rows], clean),
    sup_margin_change: tensor([rows], supremum),
    loss: tensor([rows], total),
    mean_loss: total.reduce((sum, value) => sum + value, 0) / rows,
    finite_set_margin_change: tensor([rows], finite),
    finite_set_loss: tensor(
      [rows],
      clean.map((value, row) => value + nu * finite[row]),
    ),
  };
}

export function run(inputs: Inputs): unknown {
  if ('columns' in inputs) return table();
  return 'W' in inputs ? smoothAdversarialLinear(inputs) : bounds(inputs);
}
