import { alloyTable, allRows, elementSets } from '../../src/fusion/evidence/alloy-table.js';
import { combinationName, combinationsOf } from '../../src/fusion/evidence/exchanges.js';
import { expertMasses } from '../../src/fusion/evidence/experts.js';
import { namesOfSet } from '../../src/fusion/evidence/focal-sets.js';
import { type Predictions, predictSets, uniformPrior } from '../../src/fusion/evidence/predict.js';
import type { Version } from '../../src/fusion/evidence/substitution.js';
import { type SubstitutionModel, substitutionModel } from '../../src/fusion/evidence/substitution-model.js';
import type { Json } from './harness.js';
import { keysOf, number } from './tensors.js';

const DATA_RELIABILITY = 2 / 3;

const texts = (value: Json): string[] => (value as Json[]).map(String);
const setsOf = (value: Json) => texts(value).map((name) => ({ set: namesOfSet(name), where: name }));

function expertsOf(inputs: { [key: string]: Json }, elements: readonly string[]) {
  const given = (inputs.experts ?? []) as { name: string; answers: string[][] }[];
  const scores = (inputs.scores ?? {}) as { [name: string]: number };
  const experts = expertMasses(
    elements,
    given.map(({ name, answers }) => ({
      name,
      answers: answers.map(([first, second, canJudge, similarity]) => ({
        ...{ first, second, where: name },
        judgement: { kind: 'answers', canJudge, similarity } as const,
      })),
    })),
  );
  return experts.map((expert) => ({ expert, score: scores[expert.name] ?? 1 }));
}

/** Pairs of combinations with evidence, in the order of the combinations' numbers or of their names. */
function pairsOf({ evidence }: SubstitutionModel, by: 'number' | 'name') {
  const pairs = Array.from({ length: evidence.slots }, (_, slot) => {
    const [a, b] = [evidence.first[slot], evidence.second[slot]];
    const names = [a, b].map((c) => combinationName(evidence.combinations, c));
    return { slot, numbers: [a, b], names: by === 'name' ? names.sort() : names };
  });
  const before = (x: string[], y: string[]): number => (x[0] < y[0] || (x[0] === y[0] && x[1] < y[1]) ? -1 : 1);
  return by === 'number'
    ? pairs.sort((x, y) => x.numbers[0] - y.numbers[0] || x.numbers[1] - y.numbers[1])
    : pairs.sort((x, y) => before(x.names, y.names));
}

const massRows = (model: SubstitutionModel) =>
  pairsOf(model, 'number').map(({ slot, names }) => {
    const [similar, dissimilar] = model.masses.subarray(2 * slot, 2 * slot + 2);
    return [...names, similar, dissimilar, 1 - similar - dissimilar];
  });

const candidateRows = ({ masses, unknown }: Predictions) =>
  Array.from(unknown, (rest, i) => [masses[2 * i], masses[2 * i + 1], rest]);

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const elements = texts(inputs.elements).sort();
  const labels = texts(inputs.labels);
  const weights = inputs.weights === undefined || inputs.weights === null ? undefined : (inputs.weights as number[]);
  const rows = setsOf(inputs.alloys).map((alloy, i) => ({
    ...alloy,
    label: labels[i],
    ...(weights !== undefined && { weight: weights[i] }),
  }));
  const table = alloyTable(elements, rows, 'High');
  const combinations = combinationsOf(elements, number(inputs.max_substitution_size, 'max_substitution_size'));
  const experts = expertsOf(inputs, elements);
  const scores = inputs.scores as { [name: string]: number } | undefined;
  const settings = {
    alpha: number(inputs.alpha, 'alpha'),
    version: (inputs.version ?? 'v1') as Version,
    dataScore: scores?.dataset ?? 1,
  };
  const candidates = elementSets(elements, setsOf(inputs.candidates));
  const modelOf = (mode: 'once' | 'each'): SubstitutionModel =>
    substitutionModel(
      table,
      combinations,
      allRows(table),
      { ...settings, discount: { factor: experts.length > 0 ? DATA_RELIABILITY : 1, mode } },
      experts,
    );
  const predicted = (mode: 'once' | 'each'): Predictions =>
    predictSets(modelOf(mode), candidates, { prior: uniformPrior(2) });
  const probabilityOfHigh = ({ probabilities }: Predictions) => probabilities.filter((_, i) => i % 2 === 0);
  const named: Readonly<Record<string, () => unknown>> = {
    substitution_masses: () => massRows(modelOf('once')),
    evidence_counts: () => {
      const model = modelOf('once');
      const { similar, dissimilar } = model.evidence;
      return pairsOf(model, 'name').map(({ slot, names }) => [...names, similar[slot], dissimilar[slot]]);
    },
    candidate_masses: () => candidateRows(predicted('once')),
    prob_high: () => probabilityOfHigh(predicted('once')),
  };
  const byMode: Readonly<Record<string, (mode: 'once' | 'each') => unknown>> = {
    combined_substitution_masses: (mode) => massRows(modelOf(mode)),
    substitution_masses: (mode) => massRows(modelOf(mode)),
    candidate_masses: (mode) => candidateRows(predicted(mode)),
    prob_high: (mode) => probabilityOfHigh(predicted(mode)),
  };
  return Object.fromEntries(
    keysOf(wanted).map((key) => {
      const [, name, mode] = /^(.+)_discount_(once|each)$/.exec(key) ?? [];
      return [key, name === undefined ? named[key]?.() : byMode[name]?.(mode as 'once' | 'each')];
    }),
  );
}
