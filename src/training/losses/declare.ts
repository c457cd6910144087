import { didYouMean, InputError } from '../../errors.js';
import type { Loss, LossDeclaration } from '../types.js';

export type Parameters = Readonly<Record<string, number | string>>;

interface Plan {
  readonly name: string;
  readonly summary: string;
  /** Parameters with their defaults. */
  readonly parameters: Parameters;
  /** The loss without its label, from checked parameters. */
  build(parameters: Parameters): Omit<Loss, 'label'>;
}

/** `name`, or `name(a=1,b=x)` with the parameters that are not default. */
export function lossLabel(name: string, parameters: Parameters, defaults: Parameters): string {
  const written = Object.keys(defaults)
    .filter((key) => parameters[key] !== defaults[key])
    .map((key) => `${key}=${parameters[key]}`);
  return written.length === 0 ? name : `${name}(${written.join(',')})`;
}

/** Declaration of a loss: fills in defaults and refuses parameters that it does not have. */
export function declareLoss({ name, summary, parameters: defaults, build }: Plan): LossDeclaration {
  return {
    name,
    summary,
    parameters: defaults,
    create(given) {
      for (const key of Object.keys(given)) {
        if (key in defaults) continue;
        const known = Object.keys(defaults);
        const list = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`;
        throw new InputError(`loss ${name} has no parameter "${key}" (${list})${didYouMean(key, known)}`);
      }
      const parameters = { ...defaults, ...given };
      return { label: lossLabel(name, parameters, defaults), ...build(parameters) };
    },
  };
}

interface Range {
  readonly above?: number;
  readonly from?: number;
  readonly to?: number;
  readonly below?: number;
}

function rangeText({ above, from, to, below }: Range): string {
  const parts = [
    above === undefined ? '' : `above ${above}`,
    from === undefined ? '' : `at least ${from}`,
    to === undefined ? '' : `at most ${to}`,
    below === undefined ? '' : `below ${below}`,
  ];
  return parts.filter((part) => part !== '').join(' and ');
}

/** @throws InputError naming loss and parameter when it is no finite number of the range */
export function numberOf(loss: string, parameters: Parameters, key: string, range: Range = {}): number {
  const value = parameters[key];
  const { above = Number.NEGATIVE_INFINITY, from = above, to = Number.POSITIVE_INFINITY, below = to } = range;
  const inside =
    typeof value === 'number' &&
    Number.isFinite(value) &&
    value >= from &&
    value <= to &&
    (range.above === undefined || value > above) &&
    (range.below === undefined || value < below);
  if (!inside) {
    const allowed = `a number ${rangeText(range)}`.trimEnd();
    throw new InputError(`loss ${loss}: ${key} must be ${allowed}; it is ${value}`);
  }
  return value;
}

/** @throws InputError naming loss, parameter and choices */
export function choiceOf<Choice extends string>(
  loss: string,
  parameters: Parameters,
  key: string,
  choices: readonly Choice[],
): Choice {
  const value = String(parameters[key]);
  const found = choices.find((choice) => choice === value);
  if (found === undefined) {
    throw new InputError(
      `loss ${loss}: ${key} must be ${choices.join(' or ')}; it is ${value}${didYouMean(value, choices)}`,
    );
  }
  return found;
}
