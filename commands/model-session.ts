import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest } from '../src/formats/inputs.js';
import { type EngineHost, startEngine } from '../src/models/engine-host.js';
import { openModelTokenizer } from '../src/models/model-tokenizer.js';
import { checkVocabulary, type Tokenizer } from '../src/tokenizers/tokenizer.js';
import { closeBeforeExit } from './edge-run.js';
import { parseChoice } from './edge-values.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import type { SharedOptions } from './shared-options.js';

export type Precision = 'f32' | 'f64';

/** Longest window when `--context` is not given. */
export const DEFAULT_CONTEXT = 2048;

/** Flags of `--precision`, which every command that runs a model has. */
export const PRECISION_OPTION = [
  '--precision <type>',
  'arithmetic of the forward pass (f32, f64) (default f32)',
] as const;

export function parsePrecision(text: unknown): Precision {
  return text === undefined ? 'f32' : parseChoice('--precision', String(text), ['f32', 'f64'] as const);
}

/** A model in its worker thread, its tokenizer, and what a report says of it. */
export interface ModelSession {
  readonly host: EngineHost;
  /** Absent when the data are token ids and the model has no tokenizer. */
  readonly tokenizer?: Tokenizer;
  /** Tokens of a window: `--context`, or the smaller of the model's and 2,048. */
  readonly context: number;
  /** Digests of the model's files, under the name that the user gave. */
  digests(): Promise<InputDigest[]>;
  close(): Promise<void>;
}

export type ModelSessionOptions = Pick<SharedOptions, 'threads' | 'maxMemory' | 'device' | 'context'> & {
  readonly precision: Precision;
  /** Memory that the analysis itself needs beside the engine. */
  readonly reserveBytes?: number;
};

/**
 * Opens `--model` (or a base or candidate) in a worker thread.
 * @throws InputError when it is not there, not supported, does not fit `--max-memory`, or its tokenizer disagrees
 */
export async function openModelSession(spec: string, options: ModelSessionOptions): Promise<ModelSession> {
  noticeSlowKernels();
  const location = resolveModelPath(spec, process.env);
  const tokenizer = tryTokenizer(location.path);
  const host = await startEngine(location.path, {
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
    device: options.device,
    precision: options.precision,
    context: options.context ?? DEFAULT_CONTEXT,
    ...(options.reserveBytes !== undefined && { reserveBytes: options.reserveBytes }),
  });
  const closed = closeBeforeExit(() => host.close());
  const limit = host.info.maxPositions ?? DEFAULT_CONTEXT;
  const context = options.context ?? Math.min(limit, DEFAULT_CONTEXT);
  try {
    if (host.info.maxPositions !== null && context > host.info.maxPositions) {
      throw new InputError(
        `--context ${context} is longer than the ${host.info.maxPositions} positions of ${spec}; lower it`,
      );
    }
    if (tokenizer) checkVocabulary(tokenizer, host.info.vocabularySize, `${spec}: the tokenizer`);
  } catch (error) {
    closed();
    await host.close();
    throw error;
  }
  return {
    host,
    ...(tokenizer && { tokenizer }),
    context,
    digests: async () => (await modelDigests(spec, location.path)).digests,
    async close() {
      closed();
      await host.close();
    },
  };
}

/** A model may come without tokenizer when the data are token ids; the complaint waits until text is met. */
function tryTokenizer(path: string): Tokenizer | undefined {
  try {
    return openModelTokenizer(path);
  } catch (error) {
    if (error instanceof InputError && /no tokenizer\.json|carries no tokenizer/i.test(error.message)) return undefined;
    throw error;
  }
}

/** The prefix that a convention needs: `--prefix-token`, else BOS, else EOS. */
export function prefixToken(given: number | undefined, tokenizer: Tokenizer | undefined): number | undefined {
  return given ?? tokenizer?.bosId ?? tokenizer?.eosId;
}
