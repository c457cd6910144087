import { InputError } from '../../errors.js';
import type { AlloyTable } from './alloy-table.js';
import type { Combinations, CoreIndex } from './exchanges.js';
import type { Expert } from './experts.js';
import { combinePair } from './simple-support.js';
import {
  alloyIndex,
  collectEvidence,
  forEachPair,
  type OwnPieces,
  pairMasses,
  pieceMass,
  type SubstitutionEvidence,
  type SubstitutionSettings,
  slotOfPair,
} from './substitution.js';

/** Sources of what is known on substitutions, with the reliability of each. */
export interface SourceSettings extends SubstitutionSettings {
  /**
   * Reliability of the data before fusion with experts, 2/3 in the paper. `once`: of the finished masses, as the parallel
   * code of the authors has it. `each`: after every piece of evidence, in the order of the rows, as their serial code.
   */
  readonly discount: { readonly factor: number; readonly mode: 'once' | 'each' };
  /** Reliability of the data by their score; 0 leaves the data out. */
  readonly dataScore: number;
}

export interface ScoredExpert {
  readonly expert: Expert;
  readonly score: number;
}

/** Pieces of evidence of every slot in the order of the rows: what discounting after every piece depends on. */
interface OrderedPieces {
  /** First piece of every slot [slots + 1]. */
  readonly starts: Int32Array;
  readonly first: Int32Array;
  readonly second: Int32Array;
  /** 0 similar, 1 dissimilar. */
  readonly side: Uint8Array;
  readonly mass: Float64Array;
}

/** Everything that predictions need: known alloys and fused masses on substitutions. */
export interface SubstitutionModel {
  readonly table: AlloyTable;
  readonly combinations: Combinations;
  readonly index: CoreIndex;
  readonly settings: SourceSettings;
  readonly evidence: SubstitutionEvidence;
  /** Masses of the experts on every slot, fused and discounted [slots, 2]. */
  readonly expertMasses?: Float64Array;
  readonly ordered?: OrderedPieces;
  /** Fused masses of similar and dissimilar of every slot [slots, 2]. */
  readonly masses: Float64Array;
  /** ln(1 - K) of Dempster's rule on the data's pieces of every slot. */
  readonly logAgreement: Float64Array;
}

function* expertPairs(experts: readonly ScoredExpert[], n: number): Generator<readonly [number, number]> {
  for (let a = 0; a < n; a++) {
    for (let b = a + 1; b < n; b++) {
      const at = a * n + b;
      if (experts.some(({ expert }) => expert.similar[at] + expert.dissimilar[at] > 0)) yield [1 + a, 1 + b];
    }
  }
}

function orderPieces(
  table: AlloyTable,
  settings: SubstitutionSettings,
  combinations: Combinations,
  index: CoreIndex,
  evidence: SubstitutionEvidence,
): OrderedPieces {
  const found: { slot: number; i: number; j: number; side: number; mass: number }[] = [];
  forEachPair(combinations, index, (a, b, t, v, core) => {
    const [i, j] = a < b ? [a, b] : [b, a];
    const sizes = { core, t: combinations.size[t], v: combinations.size[v] };
    found.push({
      ...{ slot: slotOfPair(evidence, t, v), i, j },
      side: table.labels[i] === table.labels[j] ? 0 : 1,
      mass: pieceMass(table, settings, i, j, sizes),
    });
  });
  found.sort((x, y) => x.slot - y.slot || x.i - y.i || x.j - y.j);
  const starts = new Int32Array(evidence.slots + 1);
  for (const { slot } of found) starts[slot + 1]++;
  for (let slot = 0; slot < evidence.slots; slot++) starts[slot + 1] += starts[slot];
  return {
    starts,
    first: Int32Array.from(found, ({ i }) => i),
    second: Int32Array.from(found, ({ j }) => j),
    side: Uint8Array.from(found, ({ side }) => side),
    mass: Float64Array.from(found, ({ mass }) => mass),
  };
}

/**
 * Fuses the sources' masses on every substitution.
 * @param rows rows of the table that are known
 * @param experts with the reliability of each
 * @throws InputError as `collectEvidence`, and where sources are in total conflict
 */
export function substitutionModel(
  table: AlloyTable,
  combinations: Combinations,
  rows: Int32Array,
  settings: SourceSettings,
  experts: readonly ScoredExpert[],
): SubstitutionModel {
  const index = alloyIndex(combinations, table, rows);
  const n = combinations.elements.length;
  const evidence = collectEvidence(table, combinations, index, settings, expertPairs(experts, n));
  const each = settings.discount.mode === 'each' && settings.dataScore > 0 && settings.discount.factor < 1;
  const model = {
    ...{ table, combinations, index, settings, evidence },
    ...(experts.length > 0 && { expertMasses: fuseExperts(evidence, experts, n) }),
    ...(each && { ordered: orderPieces(table, settings, combinations, index, evidence) }),
    masses: new Float64Array(2 * evidence.slots),
    logAgreement: new Float64Array(evidence.slots),
  };
  for (let slot = 0; slot < evidence.slots; slot++) {
    model.logAgreement[slot] = slotMasses(model, slot, model.masses, 2 * slot);
  }
  return model;
}

function fuseExperts(evidence: SubstitutionEvidence, experts: readonly ScoredExpert[], n: number): Float64Array {
  const fused = new Float64Array(2 * evidence.slots);
  for (let slot = 0; slot < evidence.slots; slot++) {
    const [a, b] = [evidence.first[slot] - 1, evidence.second[slot] - 1];
    if (a < 0 || b >= n) continue;
    const at = a * n + b;
    for (const { expert, score } of experts) {
      combinePair(fused, 2 * slot, score * expert.similar[at], score * expert.dissimilar[at]);
    }
    if (Number.isNaN(fused[2 * slot])) {
      const [x, y] = [evidence.combinations.elements[a], evidence.combinations.elements[b]];
      throw new InputError(
        `total conflict of experts on ${x} and ${y}: certain answers contradict; lower their masses`,
      );
    }
  }
  return fused;
}

const three = new Float64Array(3);

/**
 * Fused masses of similar and dissimilar of a slot, at `out[at]` and `out[at + 1]`.
 * @param own pieces to leave out, and (for ordered pieces) the rows that they come from
 * @returns ln(1 - conflict) of the data's pieces
 */
export function slotMasses(
  { evidence, settings, ordered, expertMasses }: Omit<SubstitutionModel, 'masses' | 'logAgreement'>,
  slot: number,
  out: Float64Array,
  at: number,
  own?: { readonly pieces: OwnPieces; readonly rows: ReadonlySet<number> },
): number {
  const { discount, dataScore } = settings;
  let logAgreement = 0;
  out[at] = 0;
  out[at + 1] = 0;
  if (dataScore > 0) {
    logAgreement = pairMasses(evidence, settings, slot, three, own?.pieces);
    if (ordered === undefined) {
      out[at] = three[0] * discount.factor * dataScore;
      out[at + 1] = three[1] * discount.factor * dataScore;
    } else {
      for (let p = ordered.starts[slot]; p < ordered.starts[slot + 1]; p++) {
        if (own?.rows.has(ordered.first[p]) || own?.rows.has(ordered.second[p])) continue;
        const mass = ordered.mass[p];
        combinePair(out, at, ordered.side[p] === 0 ? mass : 0, ordered.side[p] === 0 ? 0 : mass);
        out[at] *= discount.factor;
        out[at + 1] *= discount.factor;
      }
      out[at] *= dataScore;
      out[at + 1] *= dataScore;
    }
  }
  if (expertMasses !== undefined) combinePair(out, at, expertMasses[2 * slot], expertMasses[2 * slot + 1]);
  if (Number.isNaN(out[at])) {
    throw new InputError('total conflict of the data and the experts on a substitution; lower their masses');
  }
  return logAgreement;
}
