import { didYouMean, InputError } from '../errors.js';
import { checkSamplingPlan } from './sampler.js';
import type { SamplerParameter } from './samplers/method.js';
import { SAMPLER_NAMES, samplerOf } from './samplers/registry.js';
import type { SamplerStep, SamplingPlan } from './types.js';

const GREEDY = 'greedy';
/** The text of a plan without steps. */
const NONE = 'none';

/**
 * A plan from text: steps between commas, in the order in which they act; the parameters of a step after `=`, between
 * colons, in their order or by name: `temperature=0.8,top-p=0.9`, `top-h=0.4:transformers`, `mirostat-v2=tau=3`. A bare name
 * takes the method's defaults. `greedy` takes the most probable token left; `none` is a plan without steps.
 * @throws InputError naming the step that is unknown or out of range
 */
export function parseSamplingPlan(text: string): SamplingPlan {
  if (text.trim() === NONE) return { steps: [] };
  const words = text.split(',').map((word) => word.trim());
  if (text.trim() === '') throw new InputError(`no sampler; expected a list of ${listed()}, or ${GREEDY}`);
  const greedy = words.includes(GREEDY);
  const steps = words.filter((word) => word !== GREEDY).map(parseStep);
  const plan: SamplingPlan = { steps, ...(greedy && { greedy }) };
  checkSamplingPlan(plan);
  return plan;
}

const listed = (): string => SAMPLER_NAMES.join(', ');

function parseStep(text: string): SamplerStep {
  const [name, ...rest] = text.split('=');
  const kind = SAMPLER_NAMES.find((known) => known === name.trim());
  if (kind === undefined) {
    throw new InputError(
      `unknown sampler ${JSON.stringify(name.trim())}${didYouMean(name.trim(), [...SAMPLER_NAMES, GREEDY])}` +
        `; known are ${listed()}, ${GREEDY}`,
    );
  }
  const { parameters, keys } = samplerOf(kind);
  const given = new Map<string, string>();
  if (rest.length > 0) {
    rest
      .join('=')
      .split(':')
      .forEach((part, position) => {
        const [label, value] = part.includes('=') ? part.split('=', 2) : [parameters[position]?.name, part];
        const known = parameters.find((parameter) => parameter.name === label?.trim());
        if (known === undefined) {
          const names = parameters.map((parameter) => parameter.name);
          throw new InputError(`${text}: ${kind} takes ${names.join(':')}${label ? didYouMean(label, names) : ''}`);
        }
        if (given.has(known.name)) throw new InputError(`${text}: ${known.name} is given twice`);
        given.set(known.name, value.trim());
      });
  }
  const entries = parameters.map((parameter, k) => [
    keys[k],
    parameterValue(kind, text, parameter, given.get(parameter.name)),
  ]);
  // The keys are those that the method declares for this kind; values are checked with the plan.
  return { kind, ...Object.fromEntries(entries) } as SamplerStep;
}

function parameterValue(
  kind: string,
  text: string,
  parameter: SamplerParameter,
  given: string | undefined,
): number | string {
  if (given === undefined) {
    if (parameter.default !== undefined) return parameter.default;
    throw new InputError(
      `${text}: ${kind} needs ${parameter.name}${'range' in parameter ? `, ${parameter.range}` : ''}`,
    );
  }
  if ('words' in parameter) return given;
  const value = given === '' ? Number.NaN : Number(given);
  if (Number.isNaN(value))
    throw new InputError(`${text}: ${parameter.name} is ${JSON.stringify(given)}; expected ${parameter.range}`);
  return value;
}

/** The text of a plan, with every parameter; `parseSamplingPlan` gives the plan back. */
export function formatSamplingPlan(plan: SamplingPlan): string {
  const steps = plan.steps.map((step) => {
    const { keys } = samplerOf(step.kind);
    return `${step.kind}=${keys.map((key) => String(step[key as keyof SamplerStep])).join(':')}`;
  });
  return [...steps, ...(plan.greedy ? [GREEDY] : [])].join(',') || NONE;
}
