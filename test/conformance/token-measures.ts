import { measureTokens } from '../../src/entropy/token-measures.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

const orderOf = (text: string): number => (text === 'inf' ? Number.POSITIVE_INFINITY : Number(text));

/** Values of a family of keys, `prefix_<number>`. */
function parameters(keys: readonly string[], prefix: string): number[] {
  return keys.filter((key) => key.startsWith(prefix)).map((key) => orderOf(key.slice(prefix.length)));
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [rows, columns] = shapeOf(inputs.logits, 'logits');
  const keys = keysOf(wanted);
  const topK = [...new Set([...numbers(inputs.topk ?? [], 'topk'), ...parameters(keys, 'topk_mass_')])];
  const { statistics, topMass, renyiNats, tsallis, excessSurprisalNats, hartleyNats, aggregate } = measureTokens(
    { data: float64(inputs.logits, 'logits'), dtype: 'F64', rows, columns },
    int32(inputs.targets, 'targets'),
    {
      topK,
      renyiOrders: parameters(keys, 'renyi_'),
      tsallisOrders: parameters(keys, 'tsallis_'),
      ...(inputs.n_bytes_utf8 === undefined ? {} : { bytes: number(inputs.n_bytes_utf8, 'n_bytes_utf8') }),
      ...(inputs.n_words === undefined ? {} : { words: number(inputs.n_words, 'n_words') }),
    },
  );
  const perToken: Record<string, ArrayLike<number> | undefined> = {
    nll: statistics.surprisalNats,
    entropy: statistics.entropyNats,
    varentropy: statistics.varentropyNats2,
    min_entropy: statistics.minEntropyNats,
    hartley: hartleyNats,
    margin_top1_top2: statistics.margin,
    target_rank: statistics.rank,
    normalized_entropy: statistics.normalizedEntropy,
    self_certainty_kl_uniform_p: statistics.selfCertaintyNats,
    fisher_rao_to_uniform: statistics.fisherRao,
    surprisal_minus_entropy: excessSurprisalNats,
  };
  const families: readonly (readonly [string, ReadonlyMap<number, Float64Array>])[] = [
    ['topk_mass_', topMass],
    ['renyi_', renyiNats],
    ['tsallis_', tsallis],
  ];
  const result: Record<string, unknown> = {
    aggregate: {
      n_tokens: aggregate.scored_tokens,
      total_nll_nats: aggregate.total_nll_nats,
      mean_nll_nats: aggregate.mean_nll_nats,
      perplexity: aggregate.perplexity,
      mean_entropy_nats: aggregate.mean_entropy_nats,
      mean_entropy_bits: aggregate.mean_entropy_bits,
      stderr_mean_nll: aggregate.mean_nll_nats_se,
      perplexity_stderr_delta_method: aggregate.perplexity_se,
      bits_per_byte: aggregate.bits_per_byte,
      byte_perplexity: aggregate.byte_perplexity,
      word_perplexity: aggregate.word_perplexity,
      entropy_calibration_error_nats_teacher_forced: aggregate.entropy_calibration_gap_nats,
    },
  };
  for (const key of keys) {
    const family = families.find(([prefix]) => key.startsWith(prefix));
    const values = family === undefined ? perToken[key] : family[1].get(orderOf(key.slice(family[0].length)));
    if (values !== undefined) result[key] = tensor([rows], values, key === 'target_rank' ? 'int64' : 'float64');
  }
  return result;
}
