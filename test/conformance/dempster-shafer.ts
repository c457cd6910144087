import { InputError } from '../../src/errors.js';
import { createFrame, firstElements, setName } from '../../src/fusion/evidence/focal-sets.js';
import { credibilities, jousselmeDistances } from '../../src/fusion/evidence/jousselme.js';
import {
  discounted,
  type MassFunction,
  massFunction,
  mixture,
  namedMasses,
  type Source,
} from '../../src/fusion/evidence/mass-function.js';
import { conflictOf, measureSets, pignistic, uncertaintyOf } from '../../src/fusion/evidence/measures.js';
import { averageMasses } from '../../src/fusion/evidence/rules/murphy.js';
import { ruleNamed } from '../../src/fusion/evidence/rules.js';
import type { Json } from './harness.js';
import { keysOf, number, tensor } from './tensors.js';

const RULE_OF: Readonly<Record<string, string>> = {
  dempster: 'dempster',
  smets_unnormalized: 'smets',
  yager_nary: 'yager',
  yager_sequential: 'yager-sequential',
  dubois_prade_sequential: 'dubois-prade',
  pcr5_sequential: 'pcr5',
  disjunctive: 'disjunctive',
  murphy: 'murphy',
  weighted_average_combined: 'weighted-average',
};

const plainMasses = (masses: MassFunction): Record<string, number> => Object.fromEntries(namedMasses(masses));

function readSources(inputs: { [key: string]: Json }): Source[] {
  const frame = createFrame((inputs.frame as Json[]).map(String));
  const reliability = Array.isArray(inputs.reliability) ? inputs.reliability : undefined;
  return (inputs.masses as { [set: string]: Json }[]).map((given, s) => {
    const name = `source ${s + 1}`;
    const entries = Object.entries(given).map(([set, mass]) => ({ set, mass: number(mass, set) }));
    const masses = massFunction(frame, name, entries);
    return { name, masses: reliability ? discounted(masses, number(reliability[s], 'reliability')) : masses };
  });
}

/** Measures of the Dempster result over all subsets but the empty one, by name. */
function subsetMeasures(masses: MassFunction): Record<string, unknown> {
  const { elements } = masses.frame;
  const count = 2 ** elements.length - 1;
  const low = Int32Array.from({ length: count }, (_, i) => i + 1);
  const measures = measureSets(masses, low, new Int32Array(count));
  const named = (values: Float64Array) =>
    Object.fromEntries(Array.from(values, (value, i) => [setName(elements, low[i], 0), value]));
  const { dengBits, dengNats, nonspecificityBits, pignisticEntropyBits } = uncertaintyOf(masses);
  return {
    belief: named(measures.belief),
    plausibility: named(measures.plausibility),
    commonality: named(measures.commonality),
    pignistic: Object.fromEntries(
      Array.from(pignistic(masses), (p, e) => [
        setName(elements, firstElements(e + 1).low & ~firstElements(e).low, 0),
        p,
      ]),
    ),
    deng_entropy_bits: dengBits,
    deng_entropy_nats: dengNats,
    nonspecificity_bits: nonspecificityBits,
    pignistic_entropy_bits: pignisticEntropyBits,
  };
}

/** The sets that the case lists, of all that there are. */
function onlyAsked(values: unknown, asked: Json): unknown {
  if (values === undefined || asked === null) return values;
  const bySet = values as Record<string, number>;
  return Object.fromEntries(keysOf(asked).map((set) => [set, bySet[set]]));
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const sources = readSources(inputs);
  const all = sources.map(({ masses }) => masses);
  const untrimmed = (masses: MassFunction): MassFunction => masses;
  const combined = (name: string): MassFunction | string => {
    try {
      return ruleNamed(name).combine(sources, untrimmed);
    } catch (error) {
      if (error instanceof InputError && error.message.startsWith('total conflict')) return 'error: total conflict';
      throw error;
    }
  };
  const dempster = combined('dempster');
  const conflict = conflictOf(sources);
  const named: Record<string, unknown> = {
    ...(typeof dempster !== 'string' && subsetMeasures(dempster)),
    conflict_per_step: conflict.perStep,
    total_conflict_K: conflict.total,
    weight_of_conflict: conflict.weightNats,
    murphy_average: plainMasses(averageMasses(sources)),
    jousselme_distance: tensor([all.length, all.length], jousselmeDistances(all)),
    credibility: credibilities(all),
    weighted_average: plainMasses(mixture(all, credibilities(all))),
    deng_entropy_inputs_bits: all.map((masses) => uncertaintyOf(masses).dengBits),
  };
  const asked = wanted as { [key: string]: Json };
  return Object.fromEntries(
    keysOf(wanted).map((key) => {
      if (['belief', 'plausibility', 'commonality'].includes(key)) return [key, onlyAsked(named[key], asked[key])];
      if (!(key in RULE_OF)) return [key, named[key]];
      const result = key === 'dempster' ? dempster : combined(RULE_OF[key]);
      return [key, typeof result === 'string' ? result : plainMasses(result)];
    }),
  );
}
