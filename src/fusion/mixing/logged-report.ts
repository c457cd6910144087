import type { Figure } from '../../report/plots/figure.js';
import { divergenceFromUniform, entropyNats } from './exponentiated-gradient.js';
import type { LoggedResult } from './logged-run.js';
import { roundPanels } from './mix-plot.js';
import { type RoundBody, roundBodies } from './round-report.js';
import type { MixerStart, MixingMethod } from './types.js';

/** Schema of the report of a method on logged losses. */
export const LOGGED_SCHEMA = 'fuse-mix-losses';

/** Body of the report. */
export interface LoggedBody {
  readonly method: string;
  readonly law: MixingMethod['law'];
  readonly groups: readonly string[];
  readonly updates: number;
  /** What the method recommends. */
  readonly proportions: ArrayLike<number>;
  readonly entropy_p_nats: number;
  readonly kl_p_uniform_nats: number;
  readonly cond_w: number | null;
  readonly mean_signal_to_noise: number | null;
  readonly rounds: readonly RoundBody[];
  readonly warnings: readonly string[];
}

/** What a method made of logged losses, as its report says it. */
export function loggedBody(method: MixingMethod, start: MixerStart, result: LoggedResult): LoggedBody {
  const { rounds, proportions } = result;
  const updates = rounds.flatMap(({ update }) => (update ? [update] : []));
  const ratios = updates.flatMap(({ signalToNoise }) => (signalToNoise === null ? [] : [signalToNoise]));
  const weak = ratios.filter((ratio) => ratio < 1).length;
  return {
    method: method.name,
    law: method.law,
    groups: start.groups,
    updates: updates.length,
    proportions,
    entropy_p_nats: entropyNats(proportions),
    kl_p_uniform_nats: divergenceFromUniform(proportions),
    cond_w: updates[0]?.condition ?? null,
    mean_signal_to_noise: ratios.length === 0 ? null : ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length,
    rounds: roundBodies(start.groups.length, rounds, false),
    warnings:
      weak === 0
        ? []
        : [`in ${weak} of ${ratios.length} rounds the drops of the losses are smaller than their noise between sweeps`],
  };
}

export async function loggedFigure(body: LoggedBody, subtitle: string): Promise<Figure> {
  return {
    title: `Data mixing: ${body.method}`,
    subtitle,
    headline: [
      { label: 'Updates', value: body.updates },
      { label: 'Entropy of p', value: body.entropy_p_nats, unit: 'nats' },
      { label: 'KL(p || uniform)', value: body.kl_p_uniform_nats, unit: 'nats' },
      ...(body.cond_w === null ? [] : [{ label: 'cond(W)', value: body.cond_w }]),
      ...(body.mean_signal_to_noise === null ? [] : [{ label: 'Signal / noise', value: body.mean_signal_to_noise }]),
    ],
    panels: await roundPanels(body.groups, body.rounds, body.rounds.length),
    sections: [],
  };
}
