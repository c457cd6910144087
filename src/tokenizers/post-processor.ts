import { InputError } from '../errors.js';
import { asSettings, isSettings, listOf, type Settings, typeOf } from './settings.js';

/** The special tokens that stand around one sequence. */
export interface SpecialFrame {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const NO_FRAME: SpecialFrame = { before: [], after: [] };

function templateFrame(config: Settings, what: string): SpecialFrame {
  const tokens = isSettings(config.special_tokens) ? config.special_tokens : {};
  const before: number[] = [];
  const after: number[] = [];
  let sequences = 0;
  listOf(config, 'single', what).forEach((item) => {
    if (isSettings(item.Sequence)) sequences++;
    else if (isSettings(item.SpecialToken)) {
      const name = String(item.SpecialToken.id);
      const token = tokens[name];
      const ids = isSettings(token) && Array.isArray(token.ids) ? (token.ids as unknown[]) : undefined;
      if (ids === undefined || !ids.every((id) => typeof id === 'number')) {
        throw new InputError(`${what}: the special token ${name} has no ids; save the tokenizer again`);
      }
      (sequences === 0 ? before : after).push(...(ids as number[]));
    } else throw new InputError(`${what}: an item of the template is neither Sequence nor SpecialToken`);
  });
  if (sequences !== 1) throw new InputError(`${what}: the template for one text must hold it once`);
  return { before, after };
}

/** The pair `[text, id]` of Bert and Roberta processing. */
function pairId(value: unknown, what: string): number {
  if (Array.isArray(value) && typeof value[1] === 'number') return value[1];
  throw new InputError(`${what}: a special token is not a pair of text and id; save the tokenizer again`);
}

/**
 * The special tokens that a `post_processor` of tokenizer.json puts around a text; none for null. Throws InputError for
 * an unknown type.
 */
export function compilePostProcessor(value: unknown, what: string): SpecialFrame {
  if (value === null || value === undefined) return NO_FRAME;
  const config = asSettings(value, what);
  const type = typeOf(config, what);
  switch (type) {
    case 'ByteLevel':
      return NO_FRAME;
    case 'TemplateProcessing':
      return templateFrame(config, what);
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [pairId(config.cls, what)], after: [pairId(config.sep, what)] };
    case 'Sequence': {
      let frame = NO_FRAME;
      listOf(config, 'processors', what).forEach((part, i) => {
        const outer = compilePostProcessor(part, `${what}[${i}]`);
        frame = { before: [...outer.before, ...frame.before], after: [...frame.after, ...outer.after] };
      });
      return frame;
    }
    default:
      throw new InputError(`${what}: the post-processor ${type} is not supported`);
  }
}
