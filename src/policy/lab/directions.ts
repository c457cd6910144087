import type { RunLaws } from './laws.js';
import { type MethodRuns, ratioOfMeans, type SeedMean, seedMean } from './summary.js';
import type { LabRun } from './types.js';

/** A claim about means over seeds, what was measured, and whether it held. */
export interface Direction {
  readonly method: string;
  readonly claim: string;
  readonly measured: SeedMean;
  readonly threshold: number;
  readonly relation: 'at least' | 'at most';
  readonly held: boolean;
}

type JudgedRun = LabRun & { readonly laws: RunLaws | string };
type Judged = MethodRuns<JudgedRun>;

/** Step at which interventions are told from the plain rule by entropy, and the one where the plain rule has settled. */
const ENTROPY_STEP = 50;
const PLATEAU_STEP = 200;
/** How many times the plain rule's entropy an intervention keeps at `ENTROPY_STEP` (spec 12). */
const ENTROPY_RATIO: Readonly<Record<string, number>> = {
  'clip-cov': 2,
  'kl-cov': 2,
  steer: 2,
  'targeted-entropy': 1.5,
};
/** Interventions that lift the plateau, and one that delays the collapse without lifting it. */
const LIFTING = ['kl-cov', 'clip-cov', 'targeted-entropy'];
const NOT_LIFTING = ['steer'];
const LIFT = 0.1;
const CEILING_TOLERANCE = 0.02;

const judged = (measured: SeedMean, relation: Direction['relation'], threshold: number) => ({
  measured,
  threshold,
  relation,
  held: relation === 'at least' ? measured.mean >= threshold : measured.mean <= threshold,
});

function entropyDirection(method: Judged, plain: Judged, ratio: number): Direction {
  const at = ({ runs }: Judged) => runs.map(({ curves }) => curves.entropy[ENTROPY_STEP]);
  return {
    method: method.label,
    claim: `entropy at step ${ENTROPY_STEP} as a multiple of the plain rule's`,
    ...judged(ratioOfMeans(at(method), at(plain)), 'at least', ratio),
  };
}

function successDirection(method: Judged, plain: Judged, last: number, lifts: boolean): Direction {
  const gains = method.runs.map(({ curves }, i) => curves.success[last] - plain.runs[i].curves.success[last]);
  return {
    method: method.label,
    claim: `success at step ${last} less the plain rule's${lifts ? '' : ' (the known negative result: no lift)'}`,
    ...judged(seedMean(gains), lifts ? 'at least' : 'at most', LIFT),
  };
}

function ceilingDirection(plain: Judged): Direction | undefined {
  const ceilings: number[] = [];
  for (const { laws } of plain.runs) {
    if (typeof laws !== 'string' && laws.early !== undefined) ceilings.push(laws.early.fit.ceiling);
  }
  if (ceilings.length < plain.runs.length) return undefined;
  const distance = Math.abs(
    seedMean(ceilings).mean - seedMean(plain.runs.map(({ curves }) => curves.success[PLATEAU_STEP])).mean,
  );
  const differences = plain.runs.map(({ curves }, i) => ceilings[i] - curves.success[PLATEAU_STEP]);
  const measured = { mean: distance, standardError: seedMean(differences).standardError };
  return {
    method: plain.label,
    claim: `distance of the ceiling predicted early from the success at step ${PLATEAU_STEP}`,
    ...judged(measured, 'at most', CEILING_TOLERANCE),
  };
}

/**
 * The directions that the shared lock is known for (spec 12), as far as methods and steps of a run allow. Means over seeds
 * decide; standard errors are those of differences on paired seeds.
 * @param last the step at which success is compared
 */
export function directionsOf(methods: readonly Judged[], plain: Judged, last: number): Direction[] {
  const found: Direction[] = [];
  for (const method of methods) {
    const { intervention } = method.runs[0].method;
    const ratio = ENTROPY_RATIO[intervention];
    if (ratio !== undefined && last >= ENTROPY_STEP) found.push(entropyDirection(method, plain, ratio));
    if (last < PLATEAU_STEP) continue;
    if (LIFTING.includes(intervention)) found.push(successDirection(method, plain, last, true));
    if (NOT_LIFTING.includes(intervention)) found.push(successDirection(method, plain, last, false));
  }
  const ceiling = last >= PLATEAU_STEP ? ceilingDirection(plain) : undefined;
  return ceiling === undefined ? found : [...found, ceiling];
}
