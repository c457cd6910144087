import { InputError } from '../errors.js';
import type { ActivationQuantization } from '../models/activation-quantization.js';
import { gainLevels } from './gain-levels.js';

/** Clip of 4-bit codes when none is given (QuaRot's usual choice); 8-bit codes are not clipped. */
const CLIP_OF_4_BITS = 0.9;
/** Width of the row whose gains the levels are made for: their law hardly changes above some hundreds. */
const LEVEL_COLUMNS = 4096;
const LARGEST_GROUP = 1024;

function fail(text: string): never {
  throw new InputError(
    `--activations ${text}: expected none, int8[:CLIP][:rotated], int4[:CLIP][:rotated] or ` +
      'pvq:GROUP:PULSES:GAINBITS[:rotated], for example int8, int4:0.9:rotated or pvq:16:48:4:rotated',
  );
}

/**
 * Reads `--activations`: `int8` (clip 1), `int4` (clip 0.9), both with another clip in (0, 1] as `int4:0.95`; or
 * `pvq:D:K:BITS`, with Lloyd's levels of the gain of groups of D in rotated rows; `:rotated` at the end rotates.
 * @returns undefined for `none`
 * @throws InputError for everything else
 */
export function parseActivations(text: string): ActivationQuantization | undefined {
  if (text === 'none') return undefined;
  const parts = text.split(':');
  const rotated = parts.at(-1) === 'rotated';
  if (rotated) parts.pop();
  const [kind, ...values] = parts;
  const numbers = values.map((value) => (/^\d+(\.\d+)?$/.test(value) ? Number(value) : fail(text)));
  if (kind === 'int8' || kind === 'int4') {
    const bits = kind === 'int8' ? 8 : 4;
    const clip = numbers[0] ?? (bits === 8 ? 1 : CLIP_OF_4_BITS);
    if (numbers.length > 1 || !(clip > 0 && clip <= 1)) fail(text);
    return { kind: 'int', bits, clip, rotated };
  }
  const [groupLength, pulses, gainBits] = numbers;
  if (kind !== 'pvq' || numbers.length !== 3 || !numbers.every(Number.isInteger)) return fail(text);
  if (groupLength < 1 || groupLength > LARGEST_GROUP || pulses < 1 || pulses > 4096 || gainBits > 8) fail(text);
  // Relative to the norm of the row, a group of D in n has the root mean square sqrt(D / n): the unit of the levels here.
  const columns = Math.max(LEVEL_COLUMNS, 8 * groupLength);
  const unit = Math.sqrt(groupLength / columns);
  const levels = Array.from(gainLevels('lloyd', groupLength, columns, 2 ** gainBits), (level) => level / unit);
  return { kind: 'pvq', groupLength, pulses, levels, rotated };
}

/** What `parseActivations` reads: for reports. */
export function describeActivations(activations: ActivationQuantization | undefined): string {
  if (!activations) return 'none';
  const rotated = activations.rotated ? ':rotated' : '';
  if (activations.kind === 'int') return `int${activations.bits}:${activations.clip}${rotated}`;
  const { groupLength, pulses, levels } = activations;
  return `pvq:${groupLength}:${pulses}:${Math.log2(levels.length)}${rotated}`;
}
