import { choiceOf, declareLoss } from './declare.js';
import { listLoss } from './plackett-luce-loss.js';

/**
 * ListMLE (Xia et al., 2008): sum_k (A_k - u_k) in the teacher's descending order, with no rule for the label. Labels, where
 * there are any, only say which rows count. `over=positions` divides by the number of classes, as some libraries do.
 */
export const listMle = declareLoss({
  name: 'listmle',
  summary: "ListMLE over all classes in the teacher's order, every rank alike",
  parameters: { over: 'sum' },
  build: (parameters) =>
    listLoss({
      name: 'listmle',
      labelFirst: false,
      weights: 'uniform',
      temperature: 1,
      listed: Number.POSITIVE_INFINITY,
      tail: 'partial',
      missingLabel: 'error',
      teacher: 'dense',
      averagePositions: choiceOf('listmle', parameters, 'over', ['sum', 'positions']) === 'positions',
    }),
});
