import { declareLoss } from './declare.js';
import { listLoss } from './plackett-luce-loss.js';

/** Position-aware ListMLE (Lan et al., 2014): ListMLE with weight 2^(C - k) - 1 at rank k; at most 1,024 classes. */
export const pListMle = declareLoss({
  name: 'p-listmle',
  summary: "ListMLE with weights 2^(C - k) - 1 of the ranks, in the teacher's order",
  parameters: {},
  build: () =>
    listLoss({
      name: 'p-listmle',
      labelFirst: false,
      weights: 'position',
      temperature: 1,
      listed: Number.POSITIVE_INFINITY,
      tail: 'partial',
      missingLabel: 'error',
      teacher: 'dense',
    }),
});
