import { InputError } from '../../errors.js';
import type { ModelReference, TokenizerSettings, TokenSettings } from './types.js';

/** The tokens of one model that have a row in its embedding. */
export interface ModelVocabulary {
  readonly reference: ModelReference;
  /** Token to row, added tokens included. */
  readonly tokens: ReadonlyMap<string, number>;
  /** Rows of the model's embedding; those without a token are padding. */
  readonly rows: number;
}

/** What a model's row of a token is made of where it is not the model's own row of that token. */
export type OriginKind = 'copied' | 'averaged' | 'zero' | 'dropped';

/** A row of the report: a token of which a model's row was copied from elsewhere, averaged, invented or left behind. */
export interface TokenOrigin {
  readonly token: string;
  /** Row in the output; of a dropped token its row in the model. */
  readonly id: number;
  /** The model that takes part with this row. */
  readonly model: string;
  readonly origin: OriginKind;
  /** Whose rows they are. */
  readonly donors: readonly { readonly model: string; readonly id: number }[];
}

/** In {@link VocabularyMap.donors}: no model's row. */
export const ZERO_ROW = -1;
/** The mean of the rows that {@link VocabularyMap.means} lists. */
export const MEAN_ROW = -2;
/** A row without a token: the mean of the rows that have one. */
export const PADDING_ROW = -3;

/** How the rows of one model's vocabulary tensors on the output vocabulary are made, `[size]` each. */
export interface VocabularyMap {
  /** The model whose row it is, by index, or one of the constants above. */
  readonly donors: Int32Array;
  /** The row in that model. */
  readonly rows: Int32Array;
  /** Rows to be averaged, by output row. */
  readonly means: ReadonlyMap<number, readonly { readonly donor: number; readonly row: number }[]>;
  /** Output rows that have a token, ascending. */
  readonly tokenRows: Int32Array;
  /** Whether every row is the model's own at the same place: nothing has to be rewritten. */
  readonly identity: boolean;
}

export interface VocabularyPlan {
  /** Rows of the output's vocabulary tensors. */
  readonly size: number;
  /** In the order of the models. */
  readonly maps: readonly VocabularyMap[];
  readonly origins: readonly TokenOrigin[];
  readonly notes: readonly string[];
}

export interface VocabularyRequest {
  /** Token to row of the output. */
  readonly output: ReadonlyMap<string, number>;
  readonly models: readonly ModelVocabulary[];
  /** How many of them, from the first, are merged; the others give rows only where the settings say so. Default all. */
  readonly merged?: number;
  /** Index of the base model, whose rows come before means. */
  readonly base?: number;
  readonly settings: Pick<TokenizerSettings, 'padToMultipleOf' | 'tokens'>;
  /** Rows at least, for padding that is kept. */
  readonly leastRows?: number;
}

/** A token's row before a model is asked: one donor, several or none. */
interface DefaultRow {
  readonly kind: OriginKind;
  readonly donors: readonly { readonly donor: number; readonly row: number }[];
}

/**
 * For every model the rows of its vocabulary tensors on the output vocabulary. A model keeps its own row of a token (unless
 * the token's settings force another); a token that it lacks gets the configured source, else the only holder's row, else
 * the base's, else the mean over the holders; a token that nobody has gets zeros. Rows without a token are the model's own
 * where it has a row there that is no token of it either, else the mean of the model's rows that have a token (Hewitt 2021).
 * @throws InputError for a configured source that has no such row, or two tokens on one row
 */
export function planVocabulary(request: VocabularyRequest): VocabularyPlan {
  const { output, models, settings } = request;
  const merged = request.merged ?? models.length;
  const tokens = new Map<number, string>();
  for (const [token, id] of output) {
    const other = tokens.get(id);
    if (other !== undefined)
      throw new InputError(`the tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} share the id ${id}`);
    tokens.set(id, token);
  }
  const size = outputRows(request);
  const ids = Int32Array.from(tokens.keys()).sort();
  const defaults = new Map<number, DefaultRow>();
  const defaultRow = (token: string, id: number): DefaultRow => {
    const known = defaults.get(id) ?? rowOf(token, request);
    defaults.set(id, known);
    return known;
  };
  const origins: TokenOrigin[] = [];
  const notes: string[] = [];
  const maps = models.map((model, index) => {
    const donors = new Int32Array(size).fill(PADDING_ROW);
    const rows = new Int32Array(size);
    const means = new Map<number, DefaultRow['donors']>();
    for (const id of ids) {
      const token = tokens.get(id) ?? '';
      const own = model.tokens.get(token);
      if (own !== undefined && settings.tokens.get(token)?.force !== true) {
        donors[id] = index;
        rows[id] = own;
        continue;
      }
      const found = defaultRow(token, id);
      if (found.kind === 'averaged') {
        donors[id] = MEAN_ROW;
        means.set(id, found.donors);
      } else if (found.kind === 'zero') donors[id] = ZERO_ROW;
      else [donors[id], rows[id]] = [found.donors[0].donor, found.donors[0].row];
      // A forced row that is the model's own one after all is nothing to report.
      if (index < merged && (found.kind !== 'copied' || donors[id] !== index || rows[id] !== own))
        origins.push({
          token,
          id,
          model: model.reference.text,
          origin: found.kind,
          donors: found.donors.map(({ donor, row }) => ({ model: models[donor].reference.text, id: row })),
        });
    }
    keepOwnPadding(model, index, donors, rows);
    if (index < merged) reportDropped(model, output, origins);
    return { donors, rows, means, tokenRows: ids, identity: isIdentity(index, model.rows, donors, rows) };
  });
  const nowhere = [...defaults].filter(([, { kind, donors }]) => kind === 'zero' && donors.length === 0);
  const unasked = nowhere.filter(([id]) => settings.tokens.get(tokens.get(id) ?? '')?.source === undefined);
  if (unasked.length > 0)
    notes.push(
      `no model has a row of ${unasked.length} token(s) of the output (${listed(unasked.map(([id]) => tokens.get(id) ?? ''))}): ` +
        'their rows are zeros',
    );
  for (const [index, map] of maps.slice(0, merged).entries()) {
    const { rows, reference } = models[index];
    const padding = rows - new Set(models[index].tokens.values()).size;
    if (padding > 0 && rows > size)
      notes.push(
        `${reference.text}: ${padding} of ${rows} embedding rows have no token and are cut, the output has ${size} rows; ` +
          'keep them with --keep-padding',
      );
    const filled = map.donors.reduce((count, donor) => count + (donor === PADDING_ROW ? 1 : 0), 0);
    if (filled > 0)
      notes.push(`${reference.text}: ${filled} row(s) without a token are the mean of the ${ids.length} rows with one`);
  }
  return { size, maps, origins, notes };
}

/** Highest id + 1, at least `leastRows`, and a multiple of what was asked for. */
function outputRows({ output, settings, leastRows = 0 }: VocabularyRequest): number {
  let rows = leastRows;
  for (const id of output.values()) rows = Math.max(rows, id + 1);
  const multiple = settings.padToMultipleOf ?? 1;
  if (!Number.isInteger(multiple) || multiple < 1)
    throw new InputError(`pad_to_multiple_of is ${multiple}; it must be a whole number of at least 1`);
  return Math.ceil(rows / multiple) * multiple;
}

/** The row of a token for models that lack it or must give up their own. */
function rowOf(token: string, { models, merged, settings, base }: VocabularyRequest): DefaultRow {
  const configured = settings.tokens.get(token);
  if (configured?.source !== undefined) return configuredRow(token, configured.source, models);
  const donors = models.slice(0, merged).flatMap((model, donor) => {
    const row = model.tokens.get(token);
    return row === undefined ? [] : [{ donor, row }];
  });
  if (donors.length === 0) return { kind: 'zero', donors };
  const ofBase = donors.find(({ donor }) => donor === base);
  if (donors.length === 1) return { kind: 'copied', donors };
  return ofBase === undefined ? { kind: 'averaged', donors } : { kind: 'copied', donors: [ofBase] };
}

function configuredRow(
  token: string,
  source: NonNullable<TokenSettings['source']>,
  models: readonly ModelVocabulary[],
): DefaultRow {
  if (source.kind === 'zero') return { kind: 'zero', donors: [] };
  const what = `tokenizer.tokens: ${JSON.stringify(token)}`;
  const donor = models.findIndex(({ reference }) => reference.text === source.model.text);
  if (donor < 0)
    throw new InputError(
      `${what} takes its row from ${source.model.text}, which is none of the models: ` +
        models.map(({ reference }) => reference.text).join(', '),
    );
  const model = models[donor];
  if (source.kind === 'model_token' && source.tokenId !== undefined) {
    if (!(Number.isInteger(source.tokenId) && source.tokenId >= 0 && source.tokenId < model.rows))
      throw new InputError(
        `${what}: token_id ${source.tokenId} is not in 0 .. ${model.rows - 1} of ${source.model.text}`,
      );
    return { kind: 'copied', donors: [{ donor, row: source.tokenId }] };
  }
  const wanted = source.kind === 'model_token' ? (source.token ?? token) : token;
  const row = model.tokens.get(wanted);
  if (row === undefined)
    throw new InputError(
      `${what}: ${source.model.text} has no token ${JSON.stringify(wanted)}; write it as the vocabulary does ` +
        '(a leading space is Ġ or ▁), or give token_id',
    );
  return { kind: 'copied', donors: [{ donor, row }] };
}

/** Rows without a token stay the model's own where they are no token of the model either. */
function keepOwnPadding(model: ModelVocabulary, index: number, donors: Int32Array, rows: Int32Array): void {
  const taken = new Set(model.tokens.values());
  const last = Math.min(donors.length, model.rows);
  for (let id = 0; id < last; id++) {
    if (donors[id] !== PADDING_ROW || taken.has(id)) continue;
    donors[id] = index;
    rows[id] = id;
  }
}

function reportDropped(model: ModelVocabulary, output: ReadonlyMap<string, number>, origins: TokenOrigin[]): void {
  for (const [token, id] of model.tokens)
    if (!output.has(token)) origins.push({ token, id, model: model.reference.text, origin: 'dropped', donors: [] });
}

function isIdentity(index: number, modelRows: number, donors: Int32Array, rows: Int32Array): boolean {
  return modelRows === donors.length && donors.every((donor, id) => donor === index && rows[id] === id);
}

/** The first few of many, for a sentence; all of them are in the report. */
export function listed(tokens: readonly string[], most = 5): string {
  const shown = tokens.slice(0, most).map((token) => JSON.stringify(token));
  return tokens.length > most ? `${shown.join(', ')}, ...` : shown.join(', ');
}
