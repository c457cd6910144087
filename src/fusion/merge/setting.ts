import type { ParameterSetting, ParameterSettings, ScalarOrGradient } from './document.js';
import type { ParameterDeclaration, ParameterValue } from './types.js';

/** The value of a gradient at `t` in [0, 1]: numbers are interpolated, of other values the one at floor(t (n-1)) is taken. */
function atPosition(value: ScalarOrGradient, t: number): ParameterValue | undefined {
  if (!Array.isArray(value)) return value as ParameterValue;
  const gradient = value as readonly ParameterValue[];
  if (gradient.length === 0) return undefined;
  const position = t * (gradient.length - 1);
  const floor = Math.floor(position);
  const [left, right] = [gradient[floor], gradient[Math.min(floor + 1, gradient.length - 1)]];
  if (typeof left !== 'number' || typeof right !== 'number') return left;
  const fraction = position - floor;
  return (1 - fraction) * left + fraction * right;
}

const matches = (filter: string | undefined, tensor: string): boolean =>
  filter === undefined || filter === '*' || tensor.includes(filter);

/**
 * The value of a setting for a tensor: the first condition whose filter is a part of the tensor's name, and of a gradient the
 * value at position `t`.
 * @param t position of the layer in its slice, 0 to 1
 * @returns undefined when no condition matches: the next level of the configuration decides
 */
export function evaluateSetting(setting: ParameterSetting, tensor: string, t: number): ParameterValue | undefined {
  if (setting.kind === 'plain') return atPosition(setting.value, t);
  const condition = setting.conditions.find(({ filter }) => matches(filter, tensor));
  return condition === undefined ? undefined : atPosition(condition.value, t);
}

/** Position of layer `index` of a slice of `layers` layers, for gradients. */
export function gradientPosition(index: number, layers: number): number {
  return layers > 1 ? index / (layers - 1) : 1;
}

/**
 * The value of a parameter for a tensor.
 * @param levels settings from the narrowest to the widest: source, slice, module, document
 * @returns undefined without a value and without a default
 */
export function resolveParameter(
  declaration: ParameterDeclaration,
  levels: readonly ParameterSettings[],
  tensor: string,
  t: number,
): ParameterValue | undefined {
  for (const level of levels) {
    const setting = level.get(declaration.name);
    const value = setting === undefined ? undefined : evaluateSetting(setting, tensor, t);
    if (value !== undefined) return value;
  }
  return declaration.default;
}
