import type { TokenBlock } from '../../rollouts/types.js';

/** Tokens shown on each side of the one that a row is of. */
const CONTEXT = 8;

/** Text of the positions [from, to) that count; empty without texts. */
export function textBetween(block: TokenBlock, textOf: (id: number) => string, from: number, to: number): string {
  const { textIds } = block;
  if (textIds === undefined) return '';
  let text = '';
  for (let i = from; i < to; i++) if (block.mask[i] !== 0) text += textOf(textIds[i]);
  return text;
}

/** Text of a token, and the same between the texts of its neighbours in the record [from, to); undefined without texts. */
export function textAround(
  block: TokenBlock,
  textOf: ((id: number) => string) | undefined,
  at: number,
  [from, to]: readonly [number, number],
): { readonly text: string; readonly context: string } | undefined {
  if (textOf === undefined || block.textIds === undefined) return undefined;
  const text = textBetween(block, textOf, at, at + 1);
  const before = textBetween(block, textOf, Math.max(from, at - CONTEXT), at);
  const after = textBetween(block, textOf, at + 1, Math.min(to, at + 1 + CONTEXT));
  return { text, context: `${before}\u27e6${text}\u27e7${after}` };
}
