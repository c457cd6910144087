import type { HeldOutErrors } from './held-out-job.js';
import { type Estimate, outputErrors } from './output-error.js';

/** Errors of a merged layer's outputs on the inputs of the original model, relative to ||y||_F; errors count tokens. */
export type ErrorRecord = {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly tokens: number;
  readonly relative_error: number;
  readonly relative_error_se: number;
  /** The part of merged or missing experts under the original routing, and what the new router adds; null where unknown. */
  readonly expert_error: number | null;
  readonly expert_error_se: number | null;
  readonly routing_error: number | null;
  readonly routing_error_se: number | null;
  /** total^2 = expert^2 + routing^2 + this. */
  readonly cross_term: number | null;
  /** Share of tokens whose set of running experts differs from that under the original routing. */
  readonly changed_tokens_share: number | null;
  readonly changed_tokens_share_se: number | null;
  /** Mean KL of the groups' gate masses, original routing against new. */
  readonly gate_kl_nats: number | null;
  readonly gate_kl_nats_se: number | null;
  /** Mean share of the router's weight that went to dropped experts. */
  readonly lost_weight_share: number | null;
};

/** Figures of one layer of one subject. */
export function errorRecord(layer: number, { sums, split }: HeldOutErrors): ErrorRecord {
  const errors = outputErrors(sums);
  const pair = <K extends string>(name: K, { value, standardError }: Estimate) =>
    ({ [name]: split ? value : null, [`${name}_se`]: split ? standardError : null }) as Record<
      K | `${K}_se`,
      number | null
    >;
  return {
    layer,
    tokens: errors.tokens,
    relative_error: errors.total.value,
    relative_error_se: errors.total.standardError,
    ...pair('expert_error', errors.experts),
    ...pair('routing_error', errors.routing),
    cross_term: split ? errors.cross : null,
    ...pair('changed_tokens_share', errors.changedShare),
    ...pair('gate_kl_nats', errors.divergenceNats),
    lost_weight_share: split ? errors.lostShare : null,
  };
}
