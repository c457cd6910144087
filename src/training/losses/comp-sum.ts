import { declareLoss, numberOf } from './declare.js';
import { kernelLoss } from './row-loss.js';

/**
 * Phi^tau(sum_{j != y} exp(s_j - s_y)) (Mao, Mohri and Zhong 2023): sum-exponential at tau 0, cross-entropy at 1,
 * generalised cross-entropy with q = tau - 1 between 1 and 2, 1 - p at 2. A row that overflows at tau < 1 has loss
 * Infinity; its gradient is not clipped either.
 */
export const compSum = declareLoss({
  name: 'comp-sum',
  summary: 'comp-sum loss of the label: 0 sum-exponential, 1 cross-entropy, 1 to 2 generalised, 2 mean absolute error',
  parameters: { tau: 1 },
  build(parameters) {
    const tau = numberOf('comp-sum', parameters, 'tau', { from: 0 });
    const operation = { kind: 'comp-sum', tau } as const;
    return kernelLoss({ name: 'comp-sum', operation, labels: true, teacher: false, allowInfinite: true });
  },
});
