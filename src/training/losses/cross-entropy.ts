import { declareLoss, numberOf } from './declare.js';
import { kernelLoss } from './row-loss.js';

/** -log softmax(s)[y]. */
export const crossEntropy = declareLoss({
  name: 'ce',
  summary: 'cross-entropy with the labels',
  parameters: {},
  build: () =>
    kernelLoss({ name: 'ce', operation: { kind: 'cross-entropy', smoothing: 0 }, labels: true, teacher: false }),
});

/** Cross-entropy with the target (1 - eps) onehot(y) + eps / C (Szegedy et al. 2016). */
export const labelSmoothing = declareLoss({
  name: 'label-smoothing',
  summary: 'cross-entropy with labels smoothed by eps',
  parameters: { eps: 0.1 },
  build(parameters) {
    const smoothing = numberOf('label-smoothing', parameters, 'eps', { from: 0, to: 1 });
    const operation = { kind: 'cross-entropy', smoothing } as const;
    return kernelLoss({ name: 'label-smoothing', operation, labels: true, teacher: false });
  },
});
