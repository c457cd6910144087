import { createDrivenSampler, planFilters, sampleRows } from '../../src/decoding/sampler.js';
import { mirostatEstimate } from '../../src/decoding/samplers/mirostat-v1.js';
import type { SamplerStep, SamplingPlan } from '../../src/decoding/types.js';
import { etaThreshold, normalizedEntropy } from '../../src/kernels/token-cuts.js';
import { filterTokens } from '../../src/kernels/token-filter.js';
import type { Json } from './harness.js';
import { float64, keysOf, number } from './tensors.js';

type Entries = { [key: string]: Json };

function entries(value: Json): Entries {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError('no object');
  return value;
}

const list = (value: Json): Json[] => {
  if (!Array.isArray(value)) throw new TypeError('no list');
  return value;
};

/** The step of a filter that a case names; its parameter has the filter's name or one of its own. */
const STEPS: Readonly<Record<string, (value: number) => SamplerStep>> = {
  top_k: (k) => ({ kind: 'top-k', k }),
  top_p: (p) => ({ kind: 'top-p', p }),
  min_p: (p) => ({ kind: 'min-p', p }),
  typical: (mass) => ({ kind: 'typical', mass }),
  epsilon: (epsilon) => ({ kind: 'epsilon', epsilon }),
  eta: (epsilon) => ({ kind: 'eta', epsilon }),
  top_n_sigma: (n) => ({ kind: 'top-n-sigma', n }),
  top_h: (alpha) => ({ kind: 'top-h', alpha, rule: 'paper' }),
};
const OWN_NAMES: Readonly<Record<string, string>> = { typical: 'typical_p', top_n_sigma: 'n_sigma' };

function filtered(logits: Float64Array, plan: SamplingPlan) {
  const { figures, kept } = filterTokens({
    logits,
    rows: 1,
    vocabulary: logits.length,
    pipelines: [planFilters(plan)],
    keep: true,
  });
  return { figures, kept: kept[0] };
}

function filterRow(row: Entries, wanted: Entries): unknown {
  const logits = float64(row.logits, 'logits');
  const temperature: SamplerStep = { kind: 'temperature', temperature: number(row.temperature, 'temperature') };
  const params = entries(row.params);
  const outcomes = keysOf(wanted.kept).map((name) => {
    const step = STEPS[name](number(params[OWN_NAMES[name] ?? name], name));
    return [name, filtered(logits, { steps: [temperature, step] })] as const;
  });
  const each = (pick: (outcome: ReturnType<typeof filtered>) => unknown) =>
    Object.fromEntries(outcomes.map(([name, outcome]) => [name, pick(outcome)]));
  const entropy = filtered(logits, { steps: [temperature] }).figures.temperedEntropyNats[0];
  return {
    H_nats: entropy,
    eta_threshold: etaThreshold(number(params.eta, 'eta'), entropy),
    kept: each(({ kept }) => kept),
    mass: each(({ figures }) => figures.keptMass[0]),
    H_q_nats: each(({ figures }) => figures.entropyAfterNats[0]),
  };
}

function mirostatTrace(steps: Json, step: SamplerStep): unknown {
  let uniform = 0;
  const sampler = createDrivenSampler({ steps: [step] }, () => () => uniform);
  return list(steps).map((entry) => {
    const logits = float64(entries(entry).logits, 'logits');
    uniform = number(entries(entry).u, 'u');
    const before = sampler.muBits();
    const estimate =
      step.kind === 'mirostat-v1' && mirostatEstimate(logits, { muBits: before, candidates: step.candidates });
    const [token] = sampleRows([sampler], logits, logits.length);
    return {
      mu_before: before,
      n_kept: token.keptCount,
      ...(estimate && { s_hat: estimate.exponent, k_real: estimate.count, k: token.keptCount }),
      token: token.token,
      surprise_bits: sampler.surpriseBits(),
      mu_after: sampler.muBits(),
    };
  });
}

function dynamicRow(row: Entries): unknown {
  const logits = float64(row.logits, 'logits');
  const { figures } = filtered(logits, {
    steps: [
      {
        kind: 'dynamic-temperature',
        temperature: number(row.temp, 'temp'),
        range: number(row.range, 'range'),
        exponent: number(row.exponent, 'exponent'),
      },
    ],
  });
  return {
    H_nats: figures.entropyNats[0],
    normalised_entropy: normalizedEntropy(figures.entropyNats[0], logits.length),
    dyn_temp: figures.temperature[0],
    H_after_nats: figures.entropyAfterNats[0],
  };
}

export function run(inputs: Entries, wanted: Json): unknown {
  if (Array.isArray(inputs.rows)) {
    const rows = list(entries(wanted).rows);
    return { rows: inputs.rows.map((row, r) => filterRow(entries(row), entries(rows[r]))) };
  }
  const adaptive = { tauBits: number(inputs.tau, 'tau'), eta: number(inputs.eta, 'eta') };
  return Object.fromEntries(
    keysOf(wanted).map((key) => {
      if (key === 'dynatemp') return [key, list(inputs[key]).map((row) => dynamicRow(entries(row)))];
      const step: SamplerStep =
        key === 'mirostat_v1'
          ? { kind: 'mirostat-v1', ...adaptive, candidates: number(inputs.m, 'm') }
          : { kind: 'mirostat-v2', ...adaptive };
      return [key, mirostatTrace(inputs[key], step)];
    }),
  );
}
