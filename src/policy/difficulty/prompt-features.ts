import { InputError } from '../../errors.js';
import { extractFeatures } from '../../features/model-features.js';
import { arrayMatrix, type FeatureMatrix } from '../../formats/feature-matrix.js';
import { openLanguageModel } from '../../models/language-model.js';
import { openModelTokenizer } from '../../models/model-tokenizer.js';
import { createPromptEncoder } from '../rollouts/prompt-tokens.js';
import type { RolloutRequest, Rollouts } from '../rollouts/types.js';
import type { Questions } from './questions.js';

/** Prompts that go through the model at once. */
const BATCH = 64;

/**
 * Hidden state of the last layer at the last token of every prompt, behind the final norm (what transformers calls
 * `hidden_states[-1]`): [questions, width].
 * @throws InputError where the dump has no prompts, or one is longer than the context
 */
export async function promptFeatures(
  rollouts: Rollouts,
  questions: Questions,
  request: RolloutRequest & { readonly model: string },
  onPrompts: (done: number) => void,
): Promise<FeatureMatrix> {
  const location = request.locations?.[request.model] ?? request.model;
  const tokenizer = openModelTokenizer(location);
  const encode = createPromptEncoder(tokenizer, request.promptFormat);
  const model = await openLanguageModel(location, {
    threads: request.threads,
    maxMemoryBytes: request.maxMemory,
    device: 'cpu',
    precision: 'f32',
    context: request.context,
  });
  try {
    const context = Math.min(request.context, model.info.maxPositions ?? request.context);
    const windows = questions.ids.map((id, q) => {
      const prompt = rollouts.promptOf?.(questions.groups[q]);
      if (prompt === undefined) {
        throw new InputError(
          `prompt ${id}: the dump has no text of it, so its hidden state cannot be computed; give the states with --hidden, or name the column with --map prompt=COLUMN`,
        );
      }
      const { tokens } = encode(prompt, `prompt ${id}`);
      if (tokens.length === 0 || tokens.length > context) {
        throw new InputError(
          `prompt ${id}: ${tokens.length} tokens, the context is ${context}; raise --context, or leave it out`,
        );
      }
      return tokens;
    });
    const width = model.info.hiddenSize ?? 0;
    const data = new Float32Array(windows.length * width);
    for (let at = 0; at < windows.length; at += BATCH) {
      const part = windows.slice(at, at + BATCH);
      const [rows] = await extractFeatures(model, {
        windows: part,
        wanted: part.map(({ length }) => [length - 1, length] as const),
        layers: ['final'],
        pool: 'tokens',
        documents: questions.ids.slice(at, at + BATCH),
      });
      data.set(rows, at * width);
      onPrompts(Math.min(at + BATCH, windows.length));
    }
    return arrayMatrix(`${request.model}, last token of the prompt`, data, windows.length, width);
  } finally {
    await model.close();
  }
}
