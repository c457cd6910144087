import { didYouMean, InputError } from '../errors.js';
import { LOSSES } from '../training/losses/index.js';

/** Values of one parameter that are to be tried. */
export interface LossSweep {
  /** Only in terms of this loss; in every term that has the parameter when absent. */
  readonly loss?: string;
  readonly parameter: string;
  readonly values: readonly string[];
}

/** One member of a family of losses. */
export interface LossCandidate {
  /** What `parseLosses` reads. */
  readonly text: string;
  /** What sets it apart from the other members, such as `tau=2`; empty where the family has one. */
  readonly choice: string;
}

/**
 * Reads `tau=1,2,4` or `pld.tau=1,2,4`.
 * @throws InputError for an unknown loss, or a parameter that no loss has
 */
export function parseSweep(text: string): LossSweep {
  const match = /^(?:([A-Za-z][\w-]*)\.)?([A-Za-z][\w-]*)\s*=\s*(.+)$/.exec(text.trim());
  const values = match?.[3].split(',').map((value) => value.trim()) ?? [];
  if (!match || values.some((value) => value === '')) {
    throw new InputError(`--sweep ${text}: write parameter=value,value or loss.parameter=value,value`);
  }
  const [, loss, parameter] = match;
  const candidates = loss === undefined ? LOSSES : LOSSES.filter(({ name }) => name === loss);
  if (candidates.length === 0) {
    const names = LOSSES.map(({ name }) => name);
    throw new InputError(`--sweep ${text}: there is no loss "${loss}"${didYouMean(loss ?? '', names)}`);
  }
  const known = [...new Set(candidates.flatMap(({ parameters }) => Object.keys(parameters)))];
  if (!known.includes(parameter)) {
    throw new InputError(
      `--sweep ${text}: ${loss === undefined ? 'no loss' : `the loss "${loss}"`} has ${loss === undefined ? 'a' : 'no'} parameter "${parameter}"${didYouMean(parameter, known)}`,
    );
  }
  return { ...(loss !== undefined && { loss }), parameter, values: [...new Set(values)] };
}

const TERM = /([A-Za-z][\w-]*)(?:\s*\(([^()]*)\))?/g;

/** The text with a parameter added to every term that takes it and does not state it; undefined where none does. */
function withParameter(text: string, { loss, parameter }: LossSweep, value: string): string | undefined {
  let found = false;
  const changed = text.replace(TERM, (term: string, name: string, own: string | undefined) => {
    const declaration = LOSSES.find((candidate) => candidate.name === name);
    if (!declaration || (loss !== undefined && loss !== name) || !(parameter in declaration.parameters)) return term;
    const stated = (own ?? '').split(',').some((entry) => entry.split('=')[0].trim() === parameter);
    if (stated) return term;
    found = true;
    return `${name}(${[...(own?.trim() ? [own] : []), `${parameter}=${value}`].join(',')})`;
  });
  return found ? changed : undefined;
}

/** Members by values in braces, `pld(tau={1,2,4})` or `ce + {1,2}*dist`: the product of all braces. */
function expandBraces(candidate: LossCandidate): LossCandidate[] {
  const { text, choice } = candidate;
  const match = /\{([^{}]*)\}/.exec(text);
  if (!match) return [candidate];
  const before = text.slice(0, match.index);
  const after = text.slice(match.index + match[0].length);
  const key = /([A-Za-z][\w-]*)\s*=\s*$/.exec(before)?.[1] ?? 'weight';
  return match[1].split(',').flatMap((value) => {
    const own = `${key}=${value.trim()}`;
    return expandBraces({
      text: `${before}${value.trim()}${after}`,
      choice: choice === '' ? own : `${choice} ${own}`,
    });
  });
}

/**
 * All members of a family of losses: values in braces are expanded, and each sweep tries its values in the terms that
 * take the parameter and do not state it. A family that nothing varies has one member.
 */
export function expandLosses(text: string, sweeps: readonly LossSweep[]): LossCandidate[] {
  let members = expandBraces({ text, choice: '' });
  for (const sweep of sweeps) {
    members = members.flatMap((member) => {
      const tried = sweep.values.flatMap((value): LossCandidate[] => {
        const changed = withParameter(member.text, sweep, value);
        if (changed === undefined) return [];
        const own = `${sweep.parameter}=${value}`;
        return [{ text: changed, choice: member.choice === '' ? own : `${member.choice} ${own}` }];
      });
      return tried.length > 0 ? tried : [member];
    });
  }
  return members;
}
