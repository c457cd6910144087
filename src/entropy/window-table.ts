import type { ScoringWindow } from './windows.js';

/** One window of the table that a report prints: what it fed, what it scored, its surprisal. Document coordinates. */
export interface WindowRow {
  /** First and one past the last document token of the window. */
  begin: number;
  end: number;
  prefix_tokens: number;
  /** Tokens fed before the first scored prediction, the prefix included. */
  context_tokens: number;
  /** First and last document token of that context; null when it is the prefix alone. */
  context_first: number | null;
  context_last: number | null;
  input_tokens: number;
  score_start: number;
  score_end: number;
  scored_tokens: number;
  unmasked_labels: number;
  nll_nats: number;
}

/** @param surprisalNats of the window's targets, in order */
export function windowRow(window: ScoringWindow, surprisalNats: ArrayLike<number>): WindowRow {
  let nll = 0;
  for (let i = 0; i < window.targets.length; i++) nll += surprisalNats[i];
  const contextTokens = window.scoreFrom + 1;
  const documentContext = contextTokens - window.prefixLength;
  return {
    begin: window.inputStart,
    end: window.end,
    prefix_tokens: window.prefixLength,
    context_tokens: contextTokens,
    context_first: documentContext > 0 ? window.inputStart : null,
    context_last: documentContext > 0 ? window.inputStart + documentContext - 1 : null,
    input_tokens: window.inputs.length,
    score_start: window.targetStart,
    score_end: window.targetStart + window.targets.length,
    scored_tokens: window.targets.length,
    unmasked_labels: window.validLabels,
    nll_nats: nll,
  };
}
