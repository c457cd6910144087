import type { TokenBlock } from '../rollouts/types.js';
import type { InterventionContext } from './types.js';

/** Texts of token ids that never were sampled at their position: of a tokenizer, else of where the id stands with its text. */
export interface LearnedTexts {
  learn(block: TokenBlock): void;
  of(id: number): string | undefined;
}

/** Learns from blocks that have ids beside texts. */
export function createLearnedTexts({ textOf, textOfToken }: InterventionContext): LearnedTexts {
  const texts = new Map<number, string>();
  return {
    learn({ tokens, textIds, mask }) {
      if (textOfToken !== undefined || textOf === undefined || tokens === undefined || textIds === undefined) return;
      for (let i = 0; i < tokens.length; i++)
        if (mask[i] !== 0 && !texts.has(tokens[i])) texts.set(tokens[i], textOf(textIds[i]));
    },
    of: (id) => textOfToken?.(id) ?? texts.get(id),
  };
}

/** Texts in the forms that tokenizers give to tokens that are no text: `<|im_end|>`, `</s>`, `[PAD]`. */
export function looksSpecial(text: string): boolean {
  return /^(?:<\|.*\|>|<\/?(?:s|eos|bos|pad|unk|mask|sep|cls|end_of_turn|start_of_turn)>|\[(?:PAD|EOS|BOS|SEP|CLS|UNK|MASK)\])$/u.test(
    text.trim(),
  );
}
