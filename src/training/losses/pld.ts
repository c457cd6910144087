import { LIST_WEIGHTS } from '../../kernels/plackett-luce.js';
import { choiceOf, declareLoss, numberOf } from './declare.js';
import { listLoss } from './plackett-luce-loss.js';

/**
 * Plackett-Luce distillation: L = sum_k w_k (A_k - u_k) over all classes, the label first and the others in the teacher's
 * order, weighted by softmax(t / tau) (Bassam et al., 2025, arXiv 2506.12542). Gradient exp(u_m + c_m) - w_m, c_m the
 * log-sum-exp of log w_k - A_k up to rank m.
 */
export const pld = declareLoss({
  name: 'pld',
  summary: 'Plackett-Luce list loss over all classes, label first, ranks weighted by the teacher',
  parameters: { tau: 1, weights: 'teacher' },
  build: (parameters) =>
    listLoss({
      name: 'pld',
      labelFirst: true,
      weights: choiceOf('pld', parameters, 'weights', LIST_WEIGHTS),
      temperature: numberOf('pld', parameters, 'tau', { above: 0 }),
      listed: Number.POSITIVE_INFINITY,
      tail: 'partial',
      missingLabel: 'error',
      teacher: 'dense',
    }),
});
