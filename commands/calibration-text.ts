import { InputError } from '../src/errors.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { calibrationWindows } from '../src/models/calibration-windows.js';
import type { ModelSession } from './model-session.js';
import { documentsOf, type ScoredTextOptions, windowOptions } from './scored-text.js';
import type { SharedOptions } from './shared-options.js';

/** Tokens that a model is calibrated on where `--calib-tokens` does not say. */
export const MOST_CALIBRATION_TOKENS = 65_536;

/** A text that a model is calibrated on. */
export interface CalibrationText {
  /** The model as the user named it. */
  readonly spec: string;
  readonly data: readonly string[];
  readonly options: Pick<
    SharedOptions,
    'dataFormat' | 'textSplit' | 'textField' | 'limit' | 'stride' | 'seed' | 'device'
  >;
  readonly text: ScoredTextOptions;
  /** Tokens in all; without it those of the text, up to `MOST_CALIBRATION_TOKENS`. */
  readonly tokens?: number;
  /** Tokens of a window; those of the session when absent. */
  readonly length?: number;
  readonly ledger: InputLedger;
}

/**
 * Windows of the first tokens of the text: as many as were asked for, else all up to the limit.
 * @throws InputError for a text that is shorter than asked or empty, and windows that the model cannot take
 */
export async function readCalibrationWindows(
  request: CalibrationText,
  session: ModelSession,
): Promise<{ readonly windows: Int32Array[]; readonly length: number }> {
  const { tokens, spec } = request;
  const length = request.length ?? session.context;
  const { maxPositions } = session.host.info;
  if (maxPositions !== null && length > maxPositions) {
    throw new InputError(`--calib-length ${length} is longer than the ${maxPositions} positions of ${spec}; lower it`);
  }
  if (tokens !== undefined) {
    return { windows: await calibrationWindows(calibrationTexts(request, session), { tokens, length }), length };
  }
  const texts: Int32Array[] = [];
  let found = 0;
  for await (const ids of calibrationTexts(request, session)) {
    texts.push(ids);
    found += ids.length;
    if (found >= MOST_CALIBRATION_TOKENS) break;
  }
  if (found === 0)
    throw new InputError(`${request.data.join(', ')}: no token to calibrate on: the documents are empty`);
  const most = Math.min(found, MOST_CALIBRATION_TOKENS);
  return { windows: await calibrationWindows(texts, { tokens: most, length }), length };
}

/** Token ids of the documents, each after the prefix that the model's windows have. */
async function* calibrationTexts(request: CalibrationText, session: ModelSession): AsyncGenerator<Int32Array> {
  const { options, text, data, ledger } = request;
  const { host, tokenizer, context } = session;
  const { prefixToken } = windowOptions(options, text, {
    name: request.spec,
    ...(tokenizer && { tokenizer }),
    vocabularySize: host.info.vocabularySize,
    maxPositions: host.info.maxPositions,
    context,
  });
  const subject = { ...(tokenizer && { tokenizer }), vocabularySize: host.info.vocabularySize };
  for await (const { tokens } of documentsOf(data, { ...options, shard: undefined }, text, ledger, subject)) {
    yield prefixToken === undefined ? tokens : Int32Array.of(prefixToken, ...tokens);
  }
}
