import type { EngineOptions } from './engine.js';
import type { EngineHost } from './engine-host.js';
import { openLanguageModel } from './language-model.js';

/** The same interface in the calling thread, for tests and for callers that have a thread of their own. */
export async function openInThread(path: string, options: EngineOptions): Promise<EngineHost> {
  const model = await openLanguageModel(path, options);
  return {
    info: model.info,
    run: (reference, args, progress) => reference.job(model, args, progress ?? (() => undefined)),
    close: () => model.close(),
  };
}
