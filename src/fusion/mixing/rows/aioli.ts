import { InputError } from '../../../errors.js';
import { checkLosses } from '../checked-losses.js';
import { columnSums, normaliseMatrix } from '../group-matrix.js';
import { diagonalProbes, probeMixtures, solveProbes } from '../probe-mixtures.js';
import type { Evidence, MixingMethod, MixingParameters } from '../types.js';
import { evidenceOf } from './evidence.js';
import { createWeights } from './weights.js';

/** Numbers of the authors' scripts. */
export interface AioliRecipe extends Pick<MixingParameters, 'eta' | 'ema' | 'gamma'> {
  /** Sweeps over the probes, and steps of each probe. */
  readonly sweeps: number;
  readonly probeSteps: number;
  /** Steps of a round. */
  readonly updateEvery: number;
}

/** The script whose number of groups is nearest: 2, 3 or 7. */
export function aioliRecipe(groups: number): AioliRecipe {
  if (groups <= 2) return { eta: 0.2, ema: 0.1, gamma: 0.625, sweeps: 4, probeSteps: 4, updateEvery: 250 };
  if (groups <= 4) return { eta: 0.1, ema: 0.5, gamma: 0.5, sweeps: 4, probeSteps: 6, updateEvery: 250 };
  return { eta: 1, ema: 0.1, gamma: 0.75, sweeps: 2, probeSteps: 10, updateEvery: 200 };
}

/** Drops of the losses by probe, and what repeated sweeps say of their noise. */
export interface ProbeDrops {
  /** G [k, k]: mean drop of group i behind the probe of group j. */
  readonly drops: Float64Array;
  /** Standard errors of G from sweeps that repeat; null for one sweep. */
  readonly standardErrors: Float64Array | null;
  /** Root mean square of G over that of its standard errors; null for one sweep. */
  readonly signalToNoise: number | null;
}

/**
 * G of a round: probes come one behind the other on the same model, and each is charged with the drop from the losses
 * before it to those behind it; divided by the sweeps.
 * @throws InputError for losses that are no numbers, and groups that were not probed equally often
 */
export function probeDrops(evidence: Extract<Evidence, { kind: 'probes' }>, groups: readonly string[]): ProbeDrops {
  const k = groups.length;
  const { start, probes } = evidence;
  checkLosses(start, groups, 'losses before the probes');
  const sums = new Float64Array(k * k);
  const squares = new Float64Array(k * k);
  const counts = new Int32Array(k);
  let previous = start;
  probes.forEach(({ group, losses }, index) => {
    checkLosses(losses, groups, `losses behind probe ${index} (${groups[group]})`);
    counts[group]++;
    for (let i = 0; i < k; i++) {
      const drop = previous[i] - losses[i];
      sums[i * k + group] += drop;
      squares[i * k + group] += drop * drop;
    }
    previous = losses;
  });
  const sweeps = counts[0];
  groups.forEach((name, j) => {
    if (counts[j] === 0) throw new InputError(`group ${name} was not probed in a round of ${probes.length} probes`);
    if (counts[j] !== sweeps) {
      throw new InputError(`group ${name} was probed ${counts[j]} times and ${groups[0]} ${sweeps} times in one round`);
    }
  });
  const drops = sums.map((sum) => sum / sweeps);
  if (sweeps < 2) return { drops, standardErrors: null, signalToNoise: null };
  const standardErrors = squares.map((square, e) =>
    Math.sqrt(Math.max(0, square - sweeps * drops[e] ** 2) / (sweeps * (sweeps - 1))),
  );
  const power = (of: Float64Array): number => of.reduce((sum, x) => sum + x * x, 0);
  return { drops, standardErrors, signalToNoise: Math.sqrt(power(drops) / power(standardErrors)) };
}

/**
 * Aioli (Chen, Hu, Lourie, Cho, Re; ICLR 2025): A is measured by probes in every round, A = G W^-T; normalised where wanted;
 * averaged with the rounds before, Abar_t = (1 - beta) A + beta Abar_{t-1}; then p_j ~ exp(eta sum_i Abar_ij), from the
 * proportions of before (`memory accumulate`, the paper) or from uniform (`uniform`, the authors' code with a running mean).
 */
export const aioli: MixingMethod = {
  name: 'aioli',
  summary: 'mixing matrix measured by probe mixtures in every round, exponentiated gradient',
  law: 'linear-dynamic',
  evidence: 'probes',
  parameters(groups) {
    const { eta, ema, gamma } = aioliRecipe(groups);
    return {
      eta,
      ema,
      gamma,
      memory: ema === null ? 'accumulate' : 'uniform',
      diagonal: false,
      normalise: true,
      floor: 0,
    };
  },
  create(start) {
    const { groups, parameters } = start;
    const { eta, ema, gamma, memory, diagonal, normalise } = parameters;
    if (ema !== null && !(ema >= 0 && ema < 1)) throw new InputError(`ema ${ema}: must lie in [0, 1)`);
    const k = groups.length;
    const mixtures = probeMixtures(k, gamma);
    const weights = createWeights(start);
    let mean: Float64Array | undefined;
    return {
      get proportions() {
        return weights.proportions;
      },
      update(evidence) {
        const { drops, signalToNoise } = probeDrops(evidenceOf(evidence, 'probes'), groups);
        const matrix = diagonal ? diagonalProbes(mixtures, drops) : solveProbes(mixtures, drops);
        let used = normalise ? normaliseMatrix(matrix) : matrix;
        if (ema !== null) {
          const before = mean;
          if (before) used = used.map((entry, e) => (1 - ema) * entry + ema * before[e]);
          mean = used;
        }
        const exponent = columnSums(used, k).map((sum) => eta * sum);
        const proportions = memory === 'accumulate' ? weights.multiply(exponent) : weights.restart(exponent);
        return { matrix, used, exponent, proportions, condition: mixtures.condition, signalToNoise };
      },
      result: () => weights.proportions,
    };
  },
};
