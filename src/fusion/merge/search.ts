import { InputError } from '../../errors.js';
import { nelderMeadSearch } from '../../linalg/nelder-mead.js';
import { type Box, startCrossEntropy } from '../../optimization/cross-entropy-method.js';
import { gaussianLaw } from '../../optimization/sampling-law.js';
import { createRandom } from '../../random.js';
import { contentsOf, type DocumentModel, type MergeDocument, type ParameterSetting } from './document.js';
import type { ParameterDeclaration } from './types.js';

/** `cocktail` takes weights from the models' own losses, without a search; `none` judges the configuration as it is. */
export const SEARCH_METHODS = ['cem', 'nelder-mead', 'cocktail', 'none'] as const;
export type SearchMethod = (typeof SEARCH_METHODS)[number];

export interface SearchSettings {
  readonly method: SearchMethod;
  /** Names of numeric parameters; empty: those that the method requires. */
  readonly parameters: readonly string[];
  /** Nodes of a gradient over the layers; 1: one value for all layers. */
  readonly groups: number;
  /** Candidates at most. */
  readonly evaluations: number;
  readonly negativeWeights: boolean;
  /** Of the softmax over the models' losses (`cocktail`), in nats. */
  readonly temperature: number;
  readonly seed: number;
}

/** One number of a candidate. */
export interface SearchVariable {
  readonly parameter: string;
  /** Whose it is; absent: of the tensor. */
  readonly model?: string;
  /** Node of the gradient, from 0. */
  readonly group: number;
  readonly low: number;
  readonly high: number;
  readonly start: number;
}

/** Densities below this have no result for small tensors. */
const LEAST_DENSITY = 0.02;

/**
 * The numbers that a search varies.
 * @throws InputError for configurations of slices and modules, and names that are no numeric parameters of the method
 */
export function searchVariables(document: MergeDocument, settings: SearchSettings): SearchVariable[] {
  const { method } = document;
  if (settings.method === 'none') return [];
  const models = documentModels(document).filter(({ reference }) => reference.text !== document.base?.text);
  const numeric = ({ kind }: ParameterDeclaration): boolean => kind === 'number';
  const required = [...method.perModel, ...method.global].filter((each) => each.required && numeric(each));
  const names = settings.parameters.length > 0 ? settings.parameters : required.map(({ name }) => name);
  const known = [...method.perModel, ...method.global].filter(numeric).map(({ name }) => name);
  if (names.length === 0)
    throw new InputError(
      `--search: ${method.name} requires no number; name what is searched by --search-parameters: ${known.join(', ') || 'it has none'}`,
    );
  return names.flatMap((name): SearchVariable[] => {
    const own = method.perModel.find((each) => each.name === name && numeric(each));
    const whole = method.global.find((each) => each.name === name && numeric(each));
    const declaration = own ?? whole;
    if (declaration === undefined)
      throw new InputError(
        `--search-parameters ${name}: no numeric parameter of ${method.name}; known: ${known.join(', ')}`,
      );
    const [low, high] = rangeOf(declaration, settings.negativeWeights);
    const groups = Array.from({ length: settings.groups }, (_, group) => group);
    if (own === undefined) {
      const start = startOf(document.parameters.get(name), declaration, 1);
      return groups.map((group) => ({ parameter: name, group, low, high, start: clamp(start, low, high) }));
    }
    return models.flatMap(({ reference, parameters }) => {
      const start = startOf(parameters.get(name) ?? document.parameters.get(name), declaration, models.length);
      const variable = { parameter: name, model: reference.text, low, high, start: clamp(start, low, high) };
      return groups.map((group) => ({ ...variable, group }));
    });
  });
}

function documentModels(document: MergeDocument): readonly DocumentModel[] {
  const [content, ...others] = contentsOf(document);
  if (content.kind !== 'models' || others.length > 0)
    throw new InputError('--search works on configurations of whole models (models:), not on slices and modules');
  return content.models;
}

const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

function rangeOf(
  { name, minimum, maximum, default: usual }: ParameterDeclaration,
  negative: boolean,
): [number, number] {
  if (name === 'weight') return [negative ? -1 : 0, 1.5];
  if (name === 'density' || name === 'select_topk') return [LEAST_DENSITY, 1];
  if (name === 't') return [0, 1];
  const high = maximum ?? 2 * Math.max(1e-6, typeof usual === 'number' ? Math.abs(usual) : 1);
  return [minimum ?? 0, high];
}

/** The number that the configuration writes, else the default, else a fair share. */
function startOf(setting: ParameterSetting | undefined, declaration: ParameterDeclaration, models: number): number {
  if (setting?.kind === 'plain' && typeof setting.value === 'number') return setting.value;
  if (typeof declaration.default === 'number') return declaration.default;
  return declaration.name === 't' ? 0.5 : 1 / models;
}

/** The configuration with the numbers of a point. */
export function candidateDocument(
  document: MergeDocument,
  variables: readonly SearchVariable[],
  point: ArrayLike<number>,
): MergeDocument {
  const settingsOf = (model: string | undefined): Map<string, ParameterSetting> => {
    const values = new Map<string, number[]>();
    for (const [i, variable] of variables.entries())
      if (variable.model === model)
        values.set(variable.parameter, [...(values.get(variable.parameter) ?? []), point[i]]);
    return new Map(
      [...values].map(([name, list]) => [name, { kind: 'plain', value: list.length === 1 ? list[0] : list }]),
    );
  };
  const models = documentModels(document).map((model) => ({
    ...model,
    parameters: new Map([...model.parameters, ...settingsOf(model.reference.text)]),
  }));
  return {
    ...document,
    content: { kind: 'models', models },
    parameters: new Map([...document.parameters, ...settingsOf(undefined)]),
  };
}

/** Points to be scored, as questions and answers; smaller scores are better. */
export type SearchProcess = Generator<Float64Array, { readonly converged: boolean }, number>;

/** Random numbers of the search are a stream of their own. */
const SEARCH_STREAM = 1;
/** Rounds that the cross-entropy method divides its evaluations into. */
const ROUNDS = 10;

/** The search over a box from the variables' starts. The first point is the start itself. */
export function searchPoints(variables: readonly SearchVariable[], settings: SearchSettings): SearchProcess {
  return settings.method === 'nelder-mead'
    ? simplexPoints(variables, settings)
    : crossEntropyPoints(variables, settings);
}

function* simplexPoints(variables: readonly SearchVariable[], { evaluations }: SearchSettings): SearchProcess {
  const start = Float64Array.from(variables, (variable) => variable.start);
  const step = Float64Array.from(variables, ({ low, high, start: at }) => {
    const edge = 0.15 * (high - low);
    return at + edge <= high ? edge : -edge;
  });
  const options = { step, maxEvaluations: evaluations, valueTolerance: 1e-5, pointTolerance: 1e-3, adaptive: true };
  const search = nelderMeadSearch(start, options);
  let next = search.next();
  while (!next.done) {
    // Points outside the box count as the nearest one inside and a toll, which leads the simplex back.
    let toll = 0;
    const inside = next.value.map((value, i) => {
      const { low, high } = variables[i];
      const kept = clamp(value, low, high);
      toll += ((value - kept) / (high - low)) ** 2;
      return kept;
    });
    next = search.next((yield inside) + toll);
  }
  return { converged: next.value.converged };
}

function* crossEntropyPoints(variables: readonly SearchVariable[], settings: SearchSettings): SearchProcess {
  const start = Float64Array.from(variables, (variable) => variable.start);
  yield start;
  const box: Box = {
    low: Float64Array.from(variables, ({ low }) => low),
    high: Float64Array.from(variables, ({ high }) => high),
  };
  const samples = Math.max(4, Math.floor((settings.evaluations - 1) / ROUNDS));
  const search = startCrossEntropy({
    law: gaussianLaw(
      start,
      Float64Array.from(variables, ({ low, high }) => (high - low) / 3),
    ),
    box,
    samples,
    eliteShare: 0.25,
    maxRounds: Math.max(1, Math.floor((settings.evaluations - 1) / samples)),
  });
  const random = createRandom(settings.seed).fork(SEARCH_STREAM);
  while (!search.done) {
    const points = search.ask(random);
    const scores: number[] = [];
    for (let at = 0; at < points.length; at += variables.length)
      scores.push(-(yield points.slice(at, at + variables.length)));
    search.tell(scores);
  }
  return { converged: search.result().converged };
}

/** Softmax of the negative losses: weights of LM-Cocktail (Xiao et al. 2023), in the order of the models. */
export function cocktailWeights(losses: readonly number[], temperature: number): number[] {
  const best = Math.min(...losses);
  const shares = losses.map((loss) => Math.exp(-(loss - best) / temperature));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}
