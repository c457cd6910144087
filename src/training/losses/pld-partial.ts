import { InputError } from '../../errors.js';
import { LIST_WEIGHTS, MISSING_LABELS } from '../../kernels/plackett-luce.js';
import { choiceOf, declareLoss, numberOf, type Parameters } from './declare.js';
import { listLoss } from './plackett-luce-loss.js';

const NAME = 'pld-partial';
const FORMS = ['partial', 'truncated', 'exact'] as const;

function listLength(parameters: Parameters): number {
  const length = numberOf(NAME, parameters, 'K', { from: 1 });
  if (!Number.isInteger(length)) throw new InputError(`loss ${NAME}: K must be a whole number; it is ${length}`);
  return length;
}

/**
 * Plackett-Luce distillation on the label and the teacher's K likeliest classes, for vocabularies of language models.
 * `partial`, the likelihood of the partial ranking: the classes outside the list are in every denominator, and
 * 0 <= full - partial <= tail weight * (ln(C - m) + spread of the tail's logits). `truncated`: the list alone, with weights
 * renormalised over it; what the student puts outside is not seen. `exact`: all classes, which needs full logits.
 * `label` says what weight a label has that a stored list lacks; `tau` other than 1 takes what is not stored as one class.
 */
export const pldPartial = declareLoss({
  name: NAME,
  summary: "Plackett-Luce list loss over the label and the teacher's K likeliest classes, with their tail",
  parameters: { K: 64, form: 'partial', tau: 1, weights: 'teacher', label: 'tail-share' },
  build(parameters) {
    const form = choiceOf(NAME, parameters, 'form', FORMS);
    return listLoss({
      name: NAME,
      labelFirst: true,
      weights: choiceOf(NAME, parameters, 'weights', LIST_WEIGHTS),
      temperature: numberOf(NAME, parameters, 'tau', { above: 0 }),
      listed: form === 'exact' ? Number.POSITIVE_INFINITY : listLength(parameters),
      tail: form === 'truncated' ? 'truncated' : 'partial',
      missingLabel: choiceOf(NAME, parameters, 'label', MISSING_LABELS),
      teacher: form === 'exact' ? 'dense' : 'any',
    });
  },
});
