import { entropyConstrainedMass } from '../../src/decoding/entropy-constrained-mass.js';
import { prefixEntropies, topHDiagnostics } from '../../src/decoding/top-h.js';
import type { TopHRule } from '../../src/decoding/types.js';
import { isTensor, type Json } from './harness.js';
import { float64, number } from './tensors.js';

type Entries = { [key: string]: Json };

function entries(value: Json): Entries {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError('no object');
  return value;
}

function logitsOf(value: Json): Float64Array {
  if (isTensor(value)) return float64(value, 'logits');
  if (!Array.isArray(value)) throw new TypeError('logits are no list');
  return Float64Array.from(value, (x) => (x === '-Infinity' ? Number.NEGATIVE_INFINITY : Number(x)));
}

function ruleRow(row: Entries): unknown {
  const logits = logitsOf(row.logits);
  const temperature = number(row.temperature, 'temperature');
  const alpha = number(row.alpha, 'alpha');
  const by = (rule: TopHRule) => topHDiagnostics(logits, 1, logits.length, { alpha, rule, temperature, keep: true });
  const [paper, reference, transformers] = [by('paper'), by('reference'), by('transformers')];
  return {
    H_p_nats: paper.entropyNats[0],
    threshold_nats: paper.boundNats[0],
    kept_paper: paper.kept[0],
    H_q_nats: paper.entropyAfterNats[0],
    mass: paper.keptMass[0],
    jsd_p_q_nats: paper.divergenceNats[0],
    prefix_entropies_nats: prefixEntropies(logits, { temperature, count: paper.keptCount[0] }),
    kept_repo_top100: reference.kept[0],
    kept_hf_top100: transformers.kept[0],
    repo_H_q_nats: reference.entropyAfterNats[0],
    repo_respects_bound: reference.boundHeld[0] === 1,
    hf_H_q_nats: transformers.entropyAfterNats[0],
    hf_respects_bound: transformers.boundHeld[0] === 1,
  };
}

function exactRow(row: Entries): unknown {
  const found = entropyConstrainedMass(float64(row.p, 'p'), { alpha: number(row.alpha, 'alpha') });
  return {
    greedy: found.greedy,
    greedy_mass: found.greedyMass,
    optimal: found.optimal,
    optimal_mass: found.optimalMass,
    ratio: found.ratio,
    H_p_nats: found.entropyNats,
    greedy_tail_gap_bound: found.gapBound,
    jsd_greedy: found.greedyDivergenceNats,
    jsd_optimal: found.optimalDivergenceNats,
  };
}

export function run(inputs: Entries): unknown {
  if (!Array.isArray(inputs.rows)) throw new TypeError('rows are no list');
  return { rows: inputs.rows.map((row) => ('p' in entries(row) ? exactRow : ruleRow)(entries(row))) };
}
