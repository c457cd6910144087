import { declareLoss, numberOf } from './declare.js';
import { kernelLoss } from './row-loss.js';

/** T^2 KL(p_t || p_s) of the softmaxes of logits / T (Hinton et al. 2015). */
export const kd = declareLoss({
  name: 'kd',
  summary: "T^2 times the forward KL divergence from the teacher's softmax to the student's",
  parameters: { T: 1 },
  build(parameters) {
    const temperature = numberOf('kd', parameters, 'T', { above: 0 });
    return kernelLoss({
      name: 'kd',
      operation: { kind: 'forward-kl', temperature },
      factor: temperature * temperature,
      labels: false,
      teacher: true,
    });
  },
});
