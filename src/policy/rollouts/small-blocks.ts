import type { RolloutStep, TokenBlock, TopTokens } from './types.js';

/** Tokens of a small block, unless a single record has more: its columns stay in the processor's cache. */
const SMALL_TOKENS = 1 << 14;
/** Steps up to this many tokens keep their blocks, and what is computed of them, from one pass to the next. */
const KEPT_TOKENS = 1 << 20;

/** What has been computed of blocks whose arrays do not change. */
const computed = new WeakMap<TokenBlock, Map<unknown, unknown>>();

/**
 * What `compute` makes of a block. Blocks of {@link smallBlocks} keep it as long as they live; that of others, whose arrays may
 * be written again, is made anew every time.
 * @param key tells apart what is computed, by identity
 */
export function ofBlock<T>(block: TokenBlock, key: unknown, compute: (block: TokenBlock) => T): T {
  const kept = computed.get(block);
  if (kept === undefined) return compute(block);
  if (kept.has(key)) return kept.get(key) as T;
  const value = compute(block);
  kept.set(key, value);
  return value;
}

type Flat = Float64Array | Int32Array | Uint8Array;

function topPart({ k, ids, logProbs }: TopTokens, from: number, to: number): TopTokens {
  return { k, ids: ids.subarray(from * k, to * k), logProbs: logProbs.subarray(from * k, to * k) };
}

/** Records [first, last) of a block; arrays are views. */
function partOf(block: TokenBlock, first: number, last: number): TokenBlock {
  const { records, offsets, firstToken, mask, topTokens, ...columns } = block;
  const from = offsets[first];
  const to = offsets[last];
  const parts = Object.entries(columns).map(([name, values]: [string, Flat | undefined]) => [
    name,
    values?.subarray(from, to),
  ]);
  return {
    ...(Object.fromEntries(parts.filter(([, values]) => values !== undefined)) as typeof columns),
    records: records.subarray(first, last),
    offsets: offsets.slice(first, last + 1).map((at) => at - from),
    firstToken: firstToken + from,
    mask: mask.subarray(from, to),
    ...(topTokens && { topTokens: topPart(topTokens, from, to) }),
  };
}

function* cut(blocks: Iterable<TokenBlock>): Generator<TokenBlock, void, undefined> {
  for (const block of blocks) {
    const { offsets } = block;
    const records = block.records.length;
    for (let first = 0; first < records; ) {
      let last = first + 1;
      while (last < records && offsets[last + 1] - offsets[first] <= SMALL_TOKENS) last++;
      const part = partOf(block, first, last);
      computed.set(part, new Map());
      yield part;
      first = last;
    }
  }
}

/**
 * A step in small blocks of whole records, for many passes by many methods: what is computed of a block by {@link ofBlock} is
 * shared by them. The arrays of the step must not change. Up to a number of tokens the blocks themselves are kept.
 */
export function smallBlocks(step: RolloutStep): RolloutStep {
  if (step.tokens > KEPT_TOKENS) return { ...step, blocks: () => cut(step.blocks()) };
  let kept: readonly TokenBlock[] | undefined;
  return {
    ...step,
    blocks() {
      kept ??= [...cut(step.blocks())];
      return kept;
    },
  };
}
