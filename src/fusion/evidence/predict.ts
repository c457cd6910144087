import { InputError } from '../../errors.js';
import { type ElementSets, nameAt } from './alloy-table.js';
import { forEachDeletion } from './exchanges.js';
import { setSize } from './focal-sets.js';
import { combineSupports, combineTwoSided, MOST_TWO_SIDED } from './simple-support.js';
import { likeness, noPieces, type OwnPieces, pieceMass, slotOfPair } from './substitution.js';
import { type SubstitutionModel, slotMasses } from './substitution-model.js';

/** Analogies that are named for every candidate. */
export const STRONGEST = 3;

export interface PredictionSettings {
  /** How mass on several labels is shared among them [labels]; sums to 1. Equal shares are the pignistic probability. */
  readonly prior: Float64Array;
}

/** Predictions of n candidates with K labels. */
export interface Predictions {
  /** Masses of the labels [n, K]; what is missing to 1 is on more than one. */
  readonly masses: Float64Array;
  readonly unknown: Float64Array;
  readonly probabilities: Float64Array;
  /** Label with most mass; the last of the names where none has more. */
  readonly labels: Int32Array;
  /** Analogies that gave evidence. */
  readonly evidence: Int32Array;
  /** ln(1 - K) of Dempster's rule over the analogies. */
  readonly logAgreement: Float64Array;
  /** Rows of the strongest analogies by the mass that they give to their label [n, 3], -1 where there are fewer. */
  readonly strongest: Int32Array;
  /** Combinations that go and come: t of the known alloy for v of the candidate [n, 3]. */
  readonly removed: Int32Array;
  readonly added: Int32Array;
  readonly strength: Float64Array;
}

/** Equal shares. */
export const uniformPrior = (labels: number): Float64Array => new Float64Array(labels).fill(1 / labels);

/** Sums of logarithms over the analogies of one candidate. */
interface LabelSums {
  readonly single: Float64Array;
  readonly without: Float64Array;
  readonly frame: Float64Array;
}

/** What depends on the version: masses of a piece on its label and on the others. */
function pieceScale(model: SubstitutionModel): (row: number, core: number, t: number, v: number) => number {
  const { version, alpha } = model.settings;
  const { weights } = model.table;
  if (version === 'v1') return () => 1;
  if (version === 'v2') return () => alpha;
  return (row, core, t, v) => {
    const weight = version === 'v5' && weights !== undefined ? weights[row] : 1;
    return likeness(core, t, v) * alpha * weight;
  };
}

/** Entries of the index that can become a candidate, in a fixed order. */
type AnalogyTaker = (row: number, t: number, v: number, core: number, slot: number) => void;

function forEachAnalogy(model: SubstitutionModel, low: number, high: number, take: AnalogyTaker): void {
  const { combinations, index, evidence } = model;
  forEachDeletion(combinations, low, high, (coreLow, coreHigh, v) => {
    const core = index.cores.find(coreLow, coreHigh);
    if (core < 0) return;
    const [l, h] = [combinations.low[v], combinations.high[v]];
    const size = setSize(coreLow, coreHigh);
    for (let p = index.starts[core]; p < index.starts[core + 1]; p++) {
      const t = index.removed[p];
      if ((combinations.low[t] & l) !== 0 || (combinations.high[t] & h) !== 0 || (t === 0 && v === 0)) continue;
      const slot = slotOfPair(evidence, t, v);
      if (slot >= 0) take(index.rows[p], t, v, size, slot);
    }
  });
}

/** Known alloys with the very set of a candidate. */
function sameRows({ index }: SubstitutionModel, low: number, high: number): number[] {
  const core = index.cores.find(low, high);
  if (core < 0) return [];
  const rows: number[] = [];
  for (let p = index.starts[core]; p < index.starts[core + 1]; p++)
    if (index.removed[p] === 0) rows.push(index.rows[p]);
  return rows;
}

/** Pieces of evidence that the rows of one candidate gave, by slot. */
interface OwnEvidence {
  /** Notes the pieces of a candidate's rows. */
  note(rows: readonly number[], low: number, high: number): void;
  /** Masses of a slot without them, at `out[0]` and `out[1]`; false where they have no piece there. */
  masses(slot: number, out: Float64Array): boolean;
}

const KINDS = ['similar', 'dissimilar', 'logSimilar', 'logDissimilar', 'certainSimilar', 'certainDissimilar'] as const;

function ownEvidence(model: SubstitutionModel): OwnEvidence {
  const { table, settings, combinations, evidence } = model;
  const { slots, logs } = evidence;
  const sums = KINDS.slice(0, logs === undefined ? 2 : KINDS.length).map(() => new Float64Array(slots));
  // A slot's sums hold for the candidate whose number stands here.
  const stamp = new Int32Array(slots);
  let current = 0;
  let own: ReadonlySet<number> = new Set();
  // One piece less on either side is what nearly every alloy leaves behind: such masses are found once.
  const cached = [0, 1].map(() => new Float64Array(2 * slots).fill(Number.NaN));
  return {
    note(rows, low, high) {
      current++;
      own = new Set(rows);
      forEachAnalogy(model, low, high, (known, t, v, core, slot) => {
        if (stamp[slot] !== current) {
          stamp[slot] = current;
          for (const values of sums) values[slot] = 0;
        }
        for (const row of rows) {
          const side = table.labels[row] === table.labels[known] ? 0 : 1;
          sums[side][slot]++;
          if (logs === undefined) continue;
          const sizes = { core, t: combinations.size[t], v: combinations.size[v] };
          const mass = pieceMass(table, settings, row, known, sizes);
          if (mass >= 1) sums[4 + side][slot]++;
          else sums[2 + side][slot] += Math.log1p(-mass);
        }
      });
    },
    masses(slot, out) {
      if (stamp[slot] !== current || current === 0) return false;
      const common = logs === undefined && model.ordered === undefined && sums[0][slot] + sums[1][slot] === 1;
      const known = cached[sums[0][slot] === 1 ? 0 : 1];
      if (common && !Number.isNaN(known[2 * slot])) {
        out[0] = known[2 * slot];
        out[1] = known[2 * slot + 1];
        return true;
      }
      const pieces: OwnPieces = noPieces();
      sums.forEach((values, kind) => {
        pieces[KINDS[kind]] = values[slot];
      });
      slotMasses(model, slot, out, 0, { pieces, rows: own });
      if (common) known.set(out, 2 * slot);
      return true;
    },
  };
}

/**
 * Predicts labels of candidates from known alloys that become them by a substitution (Ha et al. 2025): every such alloy
 * gives mass to its own label as far as what goes is similar to what comes. All pieces are combined in closed form, so
 * neither their order nor their number matters. A candidate that is known is predicted from the others alone: neither its
 * rows nor the evidence that they gave on substitutions are used.
 * @throws InputError naming the candidate where certain pieces contradict each other, or for more than 12 labels with a
 *   version that has evidence against labels
 */
export function predictSets(model: SubstitutionModel, sets: ElementSets, settings: PredictionSettings): Predictions {
  const n = sets.low.length;
  const k = model.table.labelNames.length;
  const twoSided = model.settings.version !== 'v1';
  if (twoSided && k > MOST_TWO_SIDED) {
    throw new InputError(`${k} labels; ${model.settings.version} takes at most ${MOST_TWO_SIDED}; use --variant v1`);
  }
  const result: Predictions = {
    masses: new Float64Array(n * k),
    unknown: new Float64Array(n),
    probabilities: new Float64Array(n * k),
    labels: new Int32Array(n),
    evidence: new Int32Array(n),
    logAgreement: new Float64Array(n),
    strongest: new Int32Array(n * STRONGEST).fill(-1),
    removed: new Int32Array(n * STRONGEST).fill(-1),
    added: new Int32Array(n * STRONGEST).fill(-1),
    strength: new Float64Array(n * STRONGEST),
  };
  const sums: LabelSums = { single: new Float64Array(k), without: new Float64Array(k), frame: new Float64Array(k) };
  const combined = new Float64Array(twoSided ? 2 ** k : k + 1);
  const sum = analogySummer(model, sums);
  for (let i = 0; i < n; i++) {
    sum(sets, i, result);
    const agreement = twoSided ? combineTwoSided(sums, combined) : combineSupports(sums.frame, combined);
    if (agreement === Number.NEGATIVE_INFINITY) {
      throw new InputError(
        `total conflict at ${nameAt(sets, i)}: certain analogies speak for different labels; use --alpha below 1`,
      );
    }
    result.logAgreement[i] = agreement;
    decide(result, i, combined, twoSided, settings.prior);
  }
  return result;
}

/** A function that adds up the logarithms of a candidate's analogies and notes the strongest. */
function analogySummer(model: SubstitutionModel, sums: LabelSums) {
  const { labels } = model.table;
  const { size } = model.combinations;
  const twoSided = model.settings.version !== 'v1';
  const scale = pieceScale(model);
  const changed = new Float64Array(2);
  const own = ownEvidence(model);
  return (sets: ElementSets, i: number, result: Predictions): void => {
    const [low, high] = [sets.low[i], sets.high[i]];
    for (const values of [sums.single, sums.without, sums.frame]) values.fill(0);
    const same = sameRows(model, low, high);
    const leaveOut = same.length > 0;
    if (leaveOut) own.note(same, low, high);
    let count = 0;
    forEachAnalogy(model, low, high, (row, t, v, core, slot) => {
      let similar = model.masses[2 * slot];
      let dissimilar = model.masses[2 * slot + 1];
      if (leaveOut && own.masses(slot, changed)) {
        similar = changed[0];
        dissimilar = changed[1];
      }
      if (similar === 0 && dissimilar === 0) return;
      count++;
      const factor = scale(row, core, size[t], size[v]);
      const label = labels[row];
      const support = factor * similar;
      noteStrongest(result, i, row, t, v, support);
      if (!twoSided) {
        sums.frame[label] += Math.log1p(-support);
        return;
      }
      const against = factor * dissimilar;
      sums.single[label] += Math.log1p(-against);
      sums.without[label] += Math.log1p(-support);
      // Rounding can lift the sum of both above 1 by a last bit.
      sums.frame[label] += Math.log1p(-Math.min(1, support + against));
    });
    result.evidence[i] = count;
  };
}

function noteStrongest(result: Predictions, i: number, row: number, t: number, v: number, support: number): void {
  const { strongest, removed, added, strength } = result;
  const end = (i + 1) * STRONGEST;
  if (support <= strength[end - 1]) return;
  let at = end - 1;
  while (at > i * STRONGEST && support > strength[at - 1]) {
    for (const values of [strongest, removed, added, strength]) values[at] = values[at - 1];
    at--;
  }
  strongest[at] = row;
  removed[at] = t;
  added[at] = v;
  strength[at] = support;
}

/** Shares the masses among the labels and chooses one. */
function decide(result: Predictions, i: number, combined: Float64Array, bySets: boolean, prior: Float64Array): void {
  const k = prior.length;
  let singles = 0;
  for (let l = 0; l < k; l++) {
    const mass = combined[bySets ? 1 << l : l];
    result.masses[i * k + l] = mass;
    result.probabilities[i * k + l] = mass;
    singles += mass;
  }
  result.unknown[i] = bySets ? Math.max(0, 1 - singles) : combined[k];
  const share = (holds: (l: number) => boolean, mass: number): void => {
    let total = 0;
    let members = 0;
    for (let l = 0; l < k; l++) {
      if (!holds(l)) continue;
      total += prior[l];
      members++;
    }
    for (let l = 0; l < k; l++) {
      if (holds(l)) result.probabilities[i * k + l] += mass * (total > 0 ? prior[l] / total : 1 / members);
    }
  };
  if (!bySets) share(() => true, combined[k]);
  else {
    for (let set = 3; set < combined.length; set++) {
      if ((set & (set - 1)) !== 0 && combined[set] > 0) share((l) => ((set >> l) & 1) === 1, combined[set]);
    }
  }
  let best = k - 1;
  for (let l = 0; l < k - 1; l++) {
    const [mass, most] = [result.masses[i * k + l], result.masses[i * k + best]];
    if (mass > most) best = l;
  }
  result.labels[i] = best;
}
