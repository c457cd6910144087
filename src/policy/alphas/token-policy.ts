import type { Stack, Token } from './grammar.js';
import { mayFollow, tokenMask } from './grammar.js';

/** Rows of logits by what the policy sees. */
export interface TokenPolicy {
  readonly vocabulary: readonly Token[];
  /** Logits of a token are the sum over the contexts of a state. */
  readonly tables: Map<string, Float64Array>;
}

/** A place at which a token was chosen. */
export interface TokenState {
  /** From the coarsest to the finest. */
  readonly contexts: readonly string[];
  /** 1 where the grammar lets the token follow. */
  readonly allowed: Uint8Array;
}

export function createTokenPolicy(vocabulary: readonly Token[]): TokenPolicy {
  return { vocabulary, tables: new Map() };
}

/** Up to this many tokens before the end, the state says how many are left. */
const NEAR_END = 4;

/**
 * What the policy sees: the stack (values with and without features, windows) and how near the end is; that and the last token;
 * that and the last two. A table a level, added up, so that what was learnt of a stack serves where the last tokens are new.
 * @param last numbers of the last two tokens, -1 for none
 */
export function stateOf(
  { vocabulary }: TokenPolicy,
  stack: Stack,
  last: readonly [number, number],
  left: number,
): TokenState {
  const mask = tokenMask(stack);
  const allowed = new Uint8Array(vocabulary.length);
  vocabulary.forEach((token, v) => {
    allowed[v] = mayFollow(mask, token) ? 1 : 0;
  });
  const items = stack.map((item) => (item.kind === 'window' ? 'w' : item.featured ? 'f' : 'c')).join('');
  const signature = `${items}/${left < NEAR_END ? left : ''}`;
  return { contexts: [signature, `${signature}/${last[1]}`, `${signature}/${last[1]}/${last[0]}`], allowed };
}

/** Log-probabilities [vocabulary] into `out`, -Infinity where the grammar forbids; gives the entropy in nats. */
export function tokenLogProbs(policy: TokenPolicy, state: TokenState, out: Float64Array): number {
  out.fill(0);
  for (const context of state.contexts) {
    const row = policy.tables.get(context);
    if (row !== undefined) for (let v = 0; v < out.length; v++) out[v] += row[v];
  }
  let highest = Number.NEGATIVE_INFINITY;
  for (let v = 0; v < out.length; v++) if (state.allowed[v] === 1 && out[v] > highest) highest = out[v];
  let sum = 0;
  for (let v = 0; v < out.length; v++) if (state.allowed[v] === 1) sum += Math.exp(out[v] - highest);
  const normaliser = highest + Math.log(sum);
  let entropy = 0;
  for (let v = 0; v < out.length; v++) {
    out[v] = state.allowed[v] === 1 ? out[v] - normaliser : Number.NEGATIVE_INFINITY;
    if (state.allowed[v] === 1) entropy -= Math.exp(out[v]) * out[v];
  }
  return Math.max(0, entropy);
}

/**
 * Adds to `gradients` the gradient by the logits of one token: `byLogProb` times d log pi(token) / dz plus `byEntropy` times
 * dH / dz_v = -p_v (ln p_v + H).
 */
export function addTokenGradient(
  gradients: Map<string, Float64Array>,
  state: TokenState,
  logProbs: Float64Array,
  entropy: number,
  token: number,
  byLogProb: number,
  byEntropy: number,
): void {
  for (const context of state.contexts) {
    let row = gradients.get(context);
    if (row === undefined) {
      row = new Float64Array(logProbs.length);
      gradients.set(context, row);
    }
    for (let v = 0; v < row.length; v++) {
      if (state.allowed[v] === 0) continue;
      const p = Math.exp(logProbs[v]);
      row[v] += byLogProb * ((v === token ? 1 : 0) - p) - byEntropy * (p > 0 ? p * (logProbs[v] + entropy) : 0);
    }
  }
}

/** Moves the tables against gradients. */
export function descendTables(policy: TokenPolicy, gradients: Map<string, Float64Array>, rate: number): void {
  for (const [context, gradient] of gradients) {
    let row = policy.tables.get(context);
    if (row === undefined) {
      row = new Float64Array(gradient.length);
      policy.tables.set(context, row);
    }
    for (let v = 0; v < row.length; v++) row[v] -= rate * gradient[v];
  }
}
