import { addComparison, compareLogits, createComparison, summarizeComparison } from '../../src/entropy/compare.js';
import { quantilesOf } from '../../src/linalg/quantile-sketch.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [rows, vocabulary] = shapeOf(inputs.base_logits, 'base_logits');
  const tokens = compareLogits(
    float64(inputs.base_logits, 'base_logits'),
    float64(inputs.test_logits, 'test_logits'),
    vocabulary,
    int32(inputs.targets, 'targets'),
  );
  const statistics = createComparison();
  addComparison(statistics, 0, tokens);
  const summary = summarizeComparison(statistics, { seed: 0 });
  const named: Record<string, unknown> = {
    ppl_q: summary.candidate_perplexity,
    ppl_q_unc: summary.candidate_perplexity_se,
    ppl_base: summary.base_perplexity,
    ppl_base_unc: summary.base_perplexity_se,
    cor_ln_ppl: summary.ln_perplexity_correlation,
    ln_ppl_ratio: summary.ln_perplexity_ratio,
    ln_ppl_ratio_unc: summary.ln_perplexity_ratio_se,
    ppl_ratio: summary.perplexity_ratio,
    ppl_ratio_unc: summary.perplexity_ratio_se,
    ppl_diff: summary.perplexity_difference,
    ppl_diff_unc: summary.perplexity_difference_se,
    mean_kld: summary.mean_kl_nats,
    mean_kld_unc: summary.mean_kl_nats_se,
    mean_dp: summary.mean_delta_p,
    mean_dp_unc: summary.mean_delta_p_se,
    rms_dp: summary.rms_delta_p,
    rms_dp_unc: summary.rms_delta_p_se,
    same_top: summary.top1_agreement,
    same_top_unc: summary.top1_agreement_se,
    mean_kld_16bit_base: summary.mean_kl_16bit_base_nats,
    reverse_mean_kld: summary.mean_reverse_kl_nats,
    mean_js: summary.mean_js_nats,
    kld_per_token: tensor([rows], tokens.klNats),
    dp_per_token: tensor([rows], tokens.deltaProbability),
    js_per_token: tensor([rows], tokens.jensenShannonNats),
  };
  const fractions: Record<string, number> = { max: 100, median: 50, min: 0 };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const quantile = /^(?:p(\d+(?:\.\d+)?)|(max|median|min))_(kld|dp)$/.exec(key);
    if (quantile !== null) {
      const percent = quantile[1] === undefined ? fractions[quantile[2]] : Number(quantile[1]);
      const sketch = quantile[3] === 'kld' ? statistics.kl : statistics.deltaProbability;
      result[key] = quantilesOf(sketch, [percent / 100])[0];
    } else if (key in named) result[key] = named[key];
  }
  return result;
}
