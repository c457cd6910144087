import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputLedger } from '../src/formats/inputs.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { tokenizerDigest } from '../src/tokenizers/tokenizer-digest.js';
import { CAPTURE, CAPTURE_BYTES } from '../src/training/language/capture-job.js';
import { IGNORED } from '../src/training/types.js';
import {
  type CaptureOptions,
  type CaptureSettings,
  type CaptureShared,
  type CaptureSource,
  teacherOf,
} from './distill-capture.js';
import { readTokenWindows } from './distill-text.js';
import { modelDigests } from './model-digests.js';
import { openModelSession, parsePrecision } from './model-session.js';
import { requireOption } from './shared-options.js';

/** A model run over text. */
export async function openModelSource(
  options: CaptureShared,
  own: CaptureOptions,
  { k, temperature }: CaptureSettings,
  ledger: InputLedger,
): Promise<CaptureSource> {
  const spec = teacherOf(options, own);
  const data = await expandSources(requireOption(options.data, '--data', 'text that the student will learn from'));
  const { digests, files } = await modelDigests(spec, resolveModelPath(spec, process.env).path);
  const precision = parsePrecision(own.precision);
  const session = await openModelSession(spec, { ...options, precision, reserveBytes: CAPTURE_BYTES });
  try {
    const { host, tokenizer, context } = session;
    const { vocabularySize, rowsPerBatch } = host.info;
    const subject = { name: spec, tokenizer, vocabularySize };
    const windows = await readTokenWindows(data, options, own, subject, context, ledger);
    const { length, lengths, tokens, labels } = windows;
    const wanted = Uint8Array.from(labels, (label) => (label === IGNORED ? 0 : 1));
    return {
      kind: 'model',
      vocabulary: vocabularySize,
      tokenizerSha256: tokenizer ? tokenizerDigest(tokenizer) : '',
      modelSha256: hashModelFiles(files),
      windows,
      wanted,
      windowsAtOnce: Math.max(1, Math.floor(rowsPerBatch / length)),
      unknownTokens: null,
      rows(from, to) {
        const places = Array.from({ length: to - from }, (_, i) => (from + i) * length);
        return host.run(CAPTURE, {
          windows: places.map((at, i) => tokens.slice(at, at + lengths[from + i])),
          wanted: places.map((at, i) => wanted.slice(at, at + lengths[from + i])),
          firstWindow: from,
          k: Math.min(k, vocabularySize),
          temperature,
          threads: options.threads,
        });
      },
      digests: async () => digests,
      close: () => session.close(),
    };
  } catch (error) {
    await session.close();
    throw error;
  }
}
