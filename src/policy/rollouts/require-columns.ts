import { InputError } from '../../errors.js';
import type { Rollouts } from './types.js';

/** What a view can ask of a dump: columns of the tokens, and facts of the records. */
export type Requirement =
  | 'logProb'
  | 'oldLogProb'
  | 'referenceLogProb'
  | 'entropy'
  | 'entropyBounds'
  | 'advantage'
  | 'topTokens'
  | 'tokens'
  | 'text'
  | 'reward'
  | 'correct'
  | 'thinkEnd'
  | 'stepSpans'
  | 'difficulty'
  | 'components';

const WORDS: Readonly<Record<Requirement, string>> = {
  logProb: 'log-probabilities (logprob)',
  oldLogProb: 'log-probabilities of the policy that sampled (old_logprob)',
  referenceLogProb: 'log-probabilities of a reference policy (ref_logprob)',
  entropy: 'entropies over the whole vocabulary (entropy)',
  entropyBounds: 'bounds on the entropies (topk)',
  advantage: 'advantages or rewards (advantage, reward)',
  topTokens: 'the likeliest tokens (topk)',
  tokens: 'token ids (tokens)',
  text: 'texts of the tokens (token_text, or tokens with --model)',
  reward: 'rewards (reward)',
  correct: 'what is correct (correct, or rewards of two values)',
  thinkEnd: 'ends of thinking (think_end, or --think-marker with tokens)',
  stepSpans: 'turns (step_spans)',
  difficulty: 'difficulties (difficulty)',
  components: 'several rewards (columns of numbers)',
};

/** Whether a dump has it. */
export function hasRequirement(rollouts: Rollouts, need: Requirement): boolean {
  const { columns, index } = rollouts;
  switch (need) {
    case 'entropyBounds':
      return columns.has('entropyLower');
    case 'text':
      return columns.has('textIds') && rollouts.textOf !== undefined;
    case 'reward':
    case 'correct':
    case 'thinkEnd':
    case 'stepSpans':
    case 'difficulty':
      return index[need] !== undefined;
    case 'components':
      return (index.components?.size ?? 0) > 0;
    default:
      return columns.has(need);
  }
}

/** What each view cannot do without, as the error for another view lists it. */
const VIEWS: readonly { readonly name: string; readonly needs: readonly Requirement[] }[] = [
  { name: 'dynamics (entropy and covariance)', needs: ['logProb', 'entropy', 'advantage'] },
  { name: 'dynamics (covariance, sampled negative log-likelihood)', needs: ['logProb', 'advantage'] },
  { name: 'dynamics (entropy)', needs: ['entropy'] },
  { name: 'dynamics (bounds on the entropy)', needs: ['entropyBounds'] },
  { name: 'law (with --evaluations)', needs: ['entropy'] },
  { name: 'interventions (kl-cov, clip-cov, clip-higher)', needs: ['logProb', 'advantage'] },
  { name: 'interventions (hardness weights, recent samples)', needs: ['correct'] },
  { name: 'difficulty', needs: ['entropy', 'correct'] },
  { name: 'reward', needs: ['components'] },
];

/** The views that a dump has all for, as the end of a message. */
export function possibleViews(rollouts: Rollouts): string {
  const possible = VIEWS.filter(({ needs }) => needs.every((need) => hasRequirement(rollouts, need)));
  return `possible with it: ${possible.length > 0 ? possible.map(({ name }) => name).join(', ') : 'no view'}`;
}

/** What scoring the texts again with a model gives. */
const RESCORED: ReadonlySet<Requirement> = new Set([
  ...(['logProb', 'oldLogProb', 'entropy', 'entropyBounds', 'topTokens', 'tokens', 'text'] as const),
]);

/** Whether `--model` would give what is missing, as the end of a message. */
export const rescoringHint = (missing: readonly Requirement[]): string =>
  missing.every((need) => RESCORED.has(need)) ? '; --model re-scores it' : '';

/**
 * Holds a dump against what a view needs.
 * @param view as the message names it
 * @throws InputError that says what is missing, whether bounds stand in its place, and which views remain possible
 */
export function requireColumns(rollouts: Rollouts, needs: readonly Requirement[], view: string): void {
  const missing = needs.filter((need) => !hasRequirement(rollouts, need));
  if (missing.length === 0) return;
  const bounds = missing.includes('entropy') && hasRequirement(rollouts, 'entropyBounds');
  throw new InputError(
    `${view} needs ${missing.map((need) => WORDS[need]).join(' and ')}, which the dump lacks` +
      (bounds ? ': its top-k log-probabilities give bounds on the entropy, not the entropy' : '') +
      `; ${possibleViews(rollouts)}${rescoringHint(missing)}` +
      (rollouts.fields.length > 0 ? ` (columns: ${rollouts.fields.join(', ')}; --map field=column renames)` : ''),
  );
}
