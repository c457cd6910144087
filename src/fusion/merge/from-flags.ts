import { didYouMean, InputError } from '../../errors.js';
import { declarationsOf, parameterValue, parseDtype } from './config-values.js';
import {
  type Conditional,
  type DocumentModel,
  type MergeDocument,
  modelReference,
  type ParameterSetting,
  type ScalarOrGradient,
} from './document.js';
import { mergeMethod } from './methods/registry.js';
import type { MergeMethod, ParameterDeclaration } from './types.js';

/** A merge as options of a command line give it. */
export interface MergeFlags {
  /** `--method`. */
  readonly method: string;
  /** `--base`. */
  readonly base?: string;
  /** `--model`, `--models`. */
  readonly models: readonly string[];
  /** Values by parameter (`--weight 0.5 0.3`): one for each of the models, in their order, or one for all. */
  readonly perModel?: Readonly<Record<string, readonly string[]>>;
  /** `--parameter name=value`, `name@filter=value`; a value of numbers with commas between them is a gradient. */
  readonly parameters?: readonly string[];
  readonly dtype?: string;
  readonly outDtype?: string;
  /** `union`, `base` or a model. */
  readonly tokenizerSource?: string;
  readonly padToMultipleOf?: number;
  readonly chatTemplate?: string;
}

function declarationOf(method: MergeMethod, name: string, option: string): ParameterDeclaration {
  const declarations = declarationsOf(method);
  const declaration = declarations.get(name);
  if (declaration !== undefined) return declaration;
  const names = [...declarations.keys()];
  const list = names.length === 0 ? 'it has none' : `its parameters: ${names.join(', ')}`;
  throw new InputError(`${option}: ${method.name} has no parameter "${name}"${didYouMean(name, names)}; ${list}`);
}

function valueOfText(text: string, declaration: ParameterDeclaration, where: string): ScalarOrGradient {
  const values = text.split(',').map((part) => parameterValue(part.trim(), declaration, where));
  return values.length === 1 ? values[0] : values;
}

/** `name@filter=value`, in the order of the command line. */
function tensorParameters(method: MergeMethod, texts: readonly string[]): Map<string, ParameterSetting> {
  const conditions = new Map<string, Conditional[]>();
  for (const text of texts) {
    const match = /^([^=@]+)(?:@([^=]*))?=(.*)$/s.exec(text);
    if (match === null) throw new InputError(`--parameter ${text}: name=value or name@filter=value is needed`);
    const [, name, filter, value] = match;
    const option = `--parameter ${text}`;
    const declaration = declarationOf(method, name, option);
    const condition = { value: valueOfText(value, declaration, `${option}: "${name}"`) };
    const known = conditions.get(name) ?? [];
    conditions.set(name, known);
    known.push(filter === undefined ? condition : { ...condition, filter });
  }
  return new Map(
    [...conditions].map(([name, list]): [string, ParameterSetting] => {
      const [first] = list;
      const plain = list.length === 1 && first.filter === undefined;
      return [name, plain ? { kind: 'plain', value: first.value } : { kind: 'conditions', conditions: list }];
    }),
  );
}

function modelParameters(method: MergeMethod, flags: MergeFlags, index: number): Map<string, ParameterSetting> {
  const settings = new Map<string, ParameterSetting>();
  for (const [name, values] of Object.entries(flags.perModel ?? {})) {
    const option = `--${name}`;
    const declaration = method.perModel.find((candidate) => candidate.name === name);
    if (declaration === undefined) {
      const names = method.perModel.map((candidate) => candidate.name);
      throw new InputError(`${option}: ${method.name} has no "${name}" of a model${didYouMean(name, names)}`);
    }
    if (values.length !== 1 && values.length !== flags.models.length)
      throw new InputError(`${option}: ${values.length} values for ${flags.models.length} models; one, or one a model`);
    const text = values[values.length === 1 ? 0 : index];
    settings.set(name, { kind: 'plain', value: valueOfText(text, declaration, `${option} ${text}`) });
  }
  return settings;
}

/**
 * The document that options of a command line describe, as if a configuration of `models` had been written.
 * @throws InputError for an unknown method, parameter or element type, and for values that do not go with the models
 */
export function documentFromFlags(flags: MergeFlags): MergeDocument {
  const method = mergeMethod(flags.method);
  if (flags.models.length === 0) throw new InputError('--model: at least one model is needed');
  const models = flags.models.map(
    (text, i): DocumentModel => ({
      reference: modelReference(text, '--model'),
      parameters: modelParameters(method, flags, i),
      place: `--model ${text}`,
    }),
  );
  const { base, dtype, outDtype, tokenizerSource: source, padToMultipleOf, chatTemplate } = flags;
  const named = source === undefined || source === 'union' || source === 'base';
  if (source === undefined && padToMultipleOf !== undefined)
    throw new InputError('--pad-to-multiple-of: pads the vocabulary of --tokenizer-source, which is not given');
  return {
    place: 'options',
    method,
    content: { kind: 'models', models },
    parameters: tensorParameters(method, flags.parameters ?? []),
    notes: [],
    ...(base === undefined ? {} : { base: modelReference(base, '--base') }),
    ...(dtype === undefined ? {} : { dtype: parseDtype(dtype, '--dtype') }),
    ...(outDtype === undefined ? {} : { outDtype: parseDtype(outDtype, '--out-dtype') }),
    ...(source === undefined
      ? {}
      : {
          tokenizer: {
            source: named ? source : modelReference(source, '--tokenizer-source'),
            tokens: new Map(),
            ...(padToMultipleOf === undefined ? {} : { padToMultipleOf }),
          },
        }),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  };
}
