import type { RolloutIndex, RolloutStep, TokenBlock } from '../../src/policy/rollouts/types.js';
import { createRandom } from '../../src/random.js';

/** A step of random records, as one block and as blocks of one or two records, with what stands under the mask NaN. */
export interface RandomStep {
  readonly step: RolloutStep;
  /** The same tokens in blocks of `blockRecords`. */
  readonly pieces: RolloutStep;
  readonly block: TokenBlock;
  readonly index: RolloutIndex;
}

export interface RandomStepOptions {
  readonly seed: number;
  readonly records?: number;
  readonly longest?: number;
  readonly groupSize?: number;
  readonly vocabulary?: number;
  readonly onPolicy?: boolean;
  /** Log-probabilities and advantages rounded to this many decimals, so that covariances tie. */
  readonly decimals?: number;
}

const rounded = (value: number, decimals: number | undefined): number =>
  decimals === undefined ? value : Math.round(value * 10 ** decimals) / 10 ** decimals;

export function randomStep({
  seed,
  records = 6,
  longest = 9,
  groupSize = 3,
  vocabulary = 7,
  onPolicy = false,
  decimals,
}: RandomStepOptions): RandomStep {
  const random = createRandom(seed);
  const offsets = new Int32Array(records + 1);
  for (let r = 0; r < records; r++) offsets[r + 1] = offsets[r] + 2 + random.integer(longest - 1);
  const tokens = offsets[records];
  const column = () => new Float64Array(tokens).fill(Number.NaN);
  const [logProb, oldLogProb, entropy, advantage] = [column(), column(), column(), column()];
  const mask = new Uint8Array(tokens);
  const ids = new Int32Array(tokens * vocabulary).fill(-1);
  const logProbs = new Float64Array(tokens * vocabulary).fill(Number.NEGATIVE_INFINITY);
  for (let r = 0; r < records; r++) {
    const recordAdvantage = rounded(random.normal(), decimals);
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      mask[i] = i === offsets[r] || random.uniform() < 0.85 ? 1 : 0;
      const logits = Array.from({ length: vocabulary }, () => 1.5 * random.normal());
      const total = Math.log(logits.reduce((sum, z) => sum + Math.exp(z), 0));
      const old = logits.map((z) => z + (onPolicy ? 0 : 0.4 * random.normal()));
      const oldTotal = Math.log(old.reduce((sum, z) => sum + Math.exp(z), 0));
      const token = random.integer(vocabulary);
      if (mask[i] === 0) continue;
      logProb[i] = rounded(logits[token] - total, decimals);
      oldLogProb[i] = onPolicy ? logProb[i] : rounded(old[token] - oldTotal, decimals);
      entropy[i] = -logits.reduce((sum, z) => sum + Math.exp(z - total) * (z - total), 0);
      advantage[i] = recordAdvantage;
      const order = logits.map((_, v) => v).sort((a, b) => logits[b] - logits[a]);
      order.forEach((v, j) => {
        ids[i * vocabulary + j] = v;
        logProbs[i * vocabulary + j] = logits[v] - total;
      });
    }
  }
  const numbers = Int32Array.from({ length: records }, (_, r) => r);
  const blockOf = (from: number, to: number): TokenBlock => {
    const [first, last] = [offsets[from], offsets[to]];
    return {
      records: numbers.subarray(from, to),
      offsets: offsets.subarray(from, to + 1).map((offset) => offset - first),
      firstToken: first,
      mask: mask.subarray(first, last),
      logProb: logProb.subarray(first, last),
      oldLogProb: oldLogProb.subarray(first, last),
      entropy: entropy.subarray(first, last),
      advantage: advantage.subarray(first, last),
      topTokens: {
        k: vocabulary,
        ids: ids.subarray(first * vocabulary, last * vocabulary),
        logProbs: logProbs.subarray(first * vocabulary, last * vocabulary),
      },
    };
  };
  const counted = Int32Array.from(numbers, (r) =>
    mask.subarray(offsets[r], offsets[r + 1]).reduce((sum, one) => sum + one, 0),
  );
  const stepOf = (blocks: readonly TokenBlock[]): RolloutStep => ({
    step: 4,
    records: numbers,
    tokens,
    counted: counted.reduce((sum, one) => sum + one, 0),
    blocks: () => blocks,
  });
  const block = blockOf(0, records);
  const pieces: TokenBlock[] = [];
  for (let from = 0; from < records; ) {
    const to = Math.min(records, from + 1 + random.integer(2));
    pieces.push(blockOf(from, to));
    from = to;
  }
  const index: RolloutIndex = {
    records,
    step: new Float64Array(records).fill(4),
    group: numbers.map((r) => r % Math.ceil(records / groupSize)),
    groups: Math.ceil(records / groupSize),
    promptIds: Array.from({ length: Math.ceil(records / groupSize) }, (_, g) => `prompt ${g}`),
    length: Int32Array.from(numbers, (r) => offsets[r + 1] - offsets[r]),
    counted,
  };
  return { step: stepOf([block]), pieces: stepOf(pieces), block, index };
}
