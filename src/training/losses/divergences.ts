import { declareLoss, numberOf } from './declare.js';
import { kernelLoss } from './row-loss.js';

/** KL(p_s || p_t) (MiniLLM's token-level form at T = 1). */
export const reverseKl = declareLoss({
  name: 'reverse-kl',
  summary: "KL divergence from the student's softmax at T to the teacher's",
  parameters: { T: 1 },
  build(parameters) {
    const temperature = numberOf('reverse-kl', parameters, 'T', { above: 0 });
    const operation = { kind: 'reverse-kl', temperature } as const;
    return kernelLoss({ name: 'reverse-kl', operation, labels: false, teacher: true });
  },
});

/**
 * beta KL(p_t || M) + (1 - beta) KL(p_s || M) with M = (1 - beta) p_s + beta p_t (GKD, Agarwal et al. 2024). At the ends,
 * where the formula tends to 0, it is KL(p_t || p_s) for beta = 0 and KL(p_s || p_t) for beta = 1.
 */
export const jsd = declareLoss({
  name: 'jsd',
  summary: 'generalised Jensen-Shannon divergence; beta 0 is forward and 1 reverse KL',
  parameters: { beta: 0.5, T: 1 },
  build(parameters) {
    const temperature = numberOf('jsd', parameters, 'T', { above: 0 });
    const beta = numberOf('jsd', parameters, 'beta', { from: 0, to: 1 });
    const plan = { name: 'jsd', labels: false, teacher: true };
    if (beta === 0) return kernelLoss({ ...plan, operation: { kind: 'forward-kl', temperature } });
    if (beta === 1) return kernelLoss({ ...plan, operation: { kind: 'reverse-kl', temperature } });
    return kernelLoss({ ...plan, operation: { kind: 'jsd', temperature, beta } });
  },
});

/** sum |p_s - p_t| / 2. */
export const totalVariation = declareLoss({
  name: 'tvd',
  summary: 'total variation distance of the softmaxes at T',
  parameters: { T: 1 },
  build(parameters) {
    const temperature = numberOf('tvd', parameters, 'T', { above: 0 });
    const operation = { kind: 'total-variation', temperature } as const;
    return kernelLoss({ name: 'tvd', operation, labels: false, teacher: true });
  },
});
