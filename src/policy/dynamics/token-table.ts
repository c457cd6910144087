import {
  countTokens,
  covarianceSummands,
  entropyChangeSummands,
  type TokenTables,
} from '../../kernels/policy-tokens.js';
import { selectLargest, type ValueStream } from '../../linalg/streamed-selection.js';
import type { RolloutStep, Rollouts, TokenBlock } from '../rollouts/types.js';
import type { HeldStep } from './held-step.js';

/** What the tokens of the table are the largest in. */
export const TOKEN_SCORES = ['entropy', 'nll', 'cov', 'omega'] as const;
export type TokenScore = (typeof TOKEN_SCORES)[number];

export interface TokenTableSettings {
  readonly score: TokenScore;
  /** Tokens of the table. */
  readonly top: number;
  /** Tokens of context on either side. */
  readonly context: number;
  readonly exactLimit: number;
  readonly threads?: number;
}

/** One token of the table; what the dump cannot say is NaN, -1 or empty. */
export interface TopToken {
  readonly score: number;
  readonly step: number;
  readonly record: number;
  /** Id of the response, or the number of the record. */
  readonly response: string;
  readonly position: number;
  readonly tokenId: number;
  readonly text: string;
  readonly before: string;
  readonly after: string;
  readonly entropy: number;
  readonly logProb: number;
  readonly advantage: number;
}

/** A token of one step before its text is looked up. */
interface Candidate extends Omit<TopToken, 'text' | 'before' | 'after' | 'response'> {
  /** Place in the step, by which equal scores stand in the order of the dump. */
  readonly order: number;
  readonly textId: number;
  readonly before: Int32Array;
  readonly after: Int32Array;
}

/** Means over the step that covariances are centred at. */
export interface StepMeans {
  readonly logProb: number;
  readonly advantage: number;
}

function need(column: Float64Array | undefined, name: string): Float64Array {
  if (column === undefined) throw new RangeError(`a block lacks ${name}`);
  return column;
}

/** Scores of a block, one a token: its entropy, -ln pi, summand of the covariance, or |Omega|; nats. */
function scoresOf(block: TokenBlock, score: TokenScore, means: StepMeans, threads: number | undefined): Float64Array {
  const { mask } = block;
  if (score === 'entropy') return need(block.entropy ?? block.entropyLower, 'entropy');
  const logProb = need(block.logProb, 'logprob');
  if (score === 'nll') return logProb.map((value) => -value);
  const advantage = need(block.advantage, 'advantage');
  const scores = new Float64Array(mask.length);
  if (score === 'cov') {
    covarianceSummands({ logProb, advantage, mask }, means, scores, threads);
    return scores;
  }
  const entropy = need(block.entropy, 'entropy');
  const oldLogProb = need(block.oldLogProb, 'old_logprob');
  entropyChangeSummands({ logProb, oldLogProb, entropy, advantage, mask }, scores, threads);
  return scores.map(Math.abs);
}

function neighbours(block: TokenBlock, record: number, token: number, context: number): [Int32Array, Int32Array] {
  const ids = block.textIds ?? block.tokens ?? new Int32Array(0);
  const from = Math.max(block.offsets[record], token - context);
  const to = Math.min(block.offsets[record + 1], token + context + 1);
  return [ids.slice(from, token), ids.slice(token + 1, to)];
}

/** The record of a block that a token belongs to. */
function recordAt(offsets: Int32Array, token: number): number {
  let [low, high] = [0, offsets.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (offsets[middle] <= token) low = middle;
    else high = middle;
  }
  return low;
}

/** The largest tokens of one step, at most `top`: of equal scores the first ones. */
function largestOfStep(step: RolloutStep, settings: TokenTableSettings, means: StepMeans): Candidate[] {
  const { score, top, context, threads, exactLimit } = settings;
  const stream: ValueStream = {
    count: step.counted,
    each(take) {
      for (const block of step.blocks({ transient: true })) take(scoresOf(block, score, means, threads), block.mask);
    },
  };
  const options = { exactLimit, name: score, ...(threads !== undefined && { threads }) };
  const [{ threshold, ties }] = selectLargest(stream, [Math.min(top, step.counted)], options);
  const found: Candidate[] = [];
  let tiesLeft = ties;
  for (const block of step.blocks({ transient: true })) {
    const scores = scoresOf(block, score, means, threads);
    for (let i = 0; i < scores.length; i++) {
      if (!(scores[i] >= threshold) || block.mask[i] === 0) continue;
      if (scores[i] === threshold && tiesLeft-- <= 0) continue;
      const r = recordAt(block.offsets, i);
      const [before, after] = neighbours(block, r, i, context);
      found.push({
        score: scores[i],
        step: step.step,
        record: block.records[r],
        position: i - block.offsets[r],
        order: block.firstToken + i,
        tokenId: block.tokens?.[i] ?? -1,
        textId: block.textIds?.[i] ?? -1,
        before,
        after,
        entropy: (block.entropy ?? block.entropyLower)?.[i] ?? Number.NaN,
        logProb: block.logProb?.[i] ?? Number.NaN,
        advantage: block.advantage?.[i] ?? Number.NaN,
      });
    }
  }
  return found;
}

/** Collects the largest tokens over all steps. */
export interface TokenTable {
  add(step: RolloutStep, means: StepMeans): void;
  /** Largest first; of equal scores the first of the dump. */
  rows(): TopToken[];
}

export function createTokenTable(rollouts: Rollouts, settings: TokenTableSettings): TokenTable {
  let kept: Candidate[] = [];
  const textOf = (id: number): string => (id < 0 ? '' : (rollouts.textOf?.(id) ?? String(id)));
  const joined = (ids: Int32Array): string => Array.from(ids, textOf).join(rollouts.textOf === undefined ? ' ' : '');
  return {
    add(step, means) {
      if (step.counted === 0 || settings.top === 0) return;
      kept = [...kept, ...largestOfStep(step, settings, means)]
        .sort((a, b) => b.score - a.score || a.step - b.step || a.order - b.order)
        .slice(0, settings.top);
    },
    rows: () =>
      kept.map(({ order: _order, textId, before, after, ...token }) => ({
        ...token,
        response: rollouts.index.responseIds?.[token.record] ?? String(token.record),
        text: textOf(textId >= 0 ? textId : token.tokenId),
        before: joined(before),
        after: joined(after),
      })),
  };
}

/** How often a token stands among those of the highest entropies, and among all. */
export interface TokenFrequency {
  readonly text: string;
  readonly high: number;
  readonly all: number;
  /** Mean entropy where it is among the highest, nats. */
  readonly meanEntropy: number;
}

/** Counts of tokens by text. */
export interface TokenCounts {
  /** Adds a step whose highest entropies are those of at least `threshold`; from its held tokens, where they are at hand. */
  add(step: RolloutStep, threshold: number, held?: HeldStep): void;
  /** The most frequent of the highest entropies, `most` of them; of equal counts by text. */
  rows(most: number): TokenFrequency[];
  /** Tokens among the highest, all steps together. */
  high(): number;
}

const emptyTables = (ids: number): TokenTables => ({
  counts: new Float64Array(2 * ids),
  entropies: new Float64Array(ids),
});

function grown({ counts, entropies }: TokenTables): TokenTables {
  const wider = emptyTables(4 * entropies.length);
  wider.counts.set(counts);
  wider.entropies.set(entropies);
  return wider;
}

/** The ids of the most frequent tokens, where every id is a text of its own: those of equal counts at the end all of them. */
function frequentIds({ counts, entropies }: TokenTables, most: number): number[] {
  const high = entropies.map((_, id) => counts[2 * id + 1]).filter((count) => count > 0);
  const least = most < high.length ? high.sort()[high.length - Math.max(1, most)] : 1;
  const ids: number[] = [];
  for (let id = 0; id < entropies.length; id++) if (counts[2 * id + 1] >= least) ids.push(id);
  return ids;
}

function usedIds({ counts, entropies }: TokenTables): number[] {
  const ids: number[] = [];
  for (let id = 0; id < entropies.length; id++) if (counts[2 * id + 1] > 0) ids.push(id);
  return ids;
}

export function createTokenCounts(rollouts: Rollouts): TokenCounts {
  let tables = emptyTables(1 << 12);
  const { textOf } = rollouts;
  const addBlock = (ids: Int32Array, entropy: Float64Array, mask: Uint8Array | undefined, threshold: number): void => {
    while (!countTokens(ids, entropy, mask, threshold, tables)) tables = grown(tables);
  };
  return {
    add(step, threshold, held) {
      if (held?.ids !== undefined && held.entropy !== undefined) {
        addBlock(held.ids, held.entropy, undefined, threshold);
        return;
      }
      for (const block of step.blocks({ transient: true })) {
        const ids = block.textIds ?? block.tokens;
        const entropy = block.entropy ?? block.entropyLower;
        if (ids !== undefined && entropy !== undefined) addBlock(ids, entropy, block.mask, threshold);
      }
    },
    rows(most) {
      const { counts, entropies } = tables;
      // Several ids may have one text.
      const byText = new Map<string, { high: number; all: number; entropy: number }>();
      for (const id of textOf === undefined ? frequentIds(tables, most) : usedIds(tables)) {
        const text = textOf?.(id) ?? String(id);
        const count = byText.get(text) ?? { high: 0, all: 0, entropy: 0 };
        byText.set(text, count);
        count.all += counts[2 * id];
        count.high += counts[2 * id + 1];
        count.entropy += entropies[id];
      }
      return [...byText]
        .map(([text, count]) => ({ text, high: count.high, all: count.all, meanEntropy: count.entropy / count.high }))
        .sort((a, b) => b.high - a.high || (a.text < b.text ? -1 : 1))
        .slice(0, most);
    },
    high() {
      let sum = 0;
      for (let id = 0; id < tables.entropies.length; id++) sum += tables.counts[2 * id + 1];
      return sum;
    },
  };
}

/** What a score needs of a dump. */
export function scoreNeeds(score: TokenScore): readonly ('logProb' | 'oldLogProb' | 'entropy' | 'advantage')[] {
  if (score === 'entropy') return ['entropy'];
  if (score === 'nll') return ['logProb'];
  return score === 'cov' ? ['logProb', 'advantage'] : ['logProb', 'oldLogProb', 'entropy', 'advantage'];
}
