import { evaluateLanguage, type LanguageEvaluation } from '../../training/language/language-evaluation.js';
import { openLanguageStudent } from '../../training/language/language-student.js';
import type { HeldOutDomain } from './train-fused.js';

/** A written model directory and held-out text. Structured-cloneable. */
export interface WrittenModel {
  readonly path: string;
  readonly domains: readonly HeldOutDomain[];
  readonly batchSize: number;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
}

/** Judges a model as it was written, a kind of text after the other: a job. */
export async function evaluateWritten(request: WrittenModel): Promise<{ name: string; after: LanguageEvaluation }[]> {
  const { path, domains, batchSize, seed, threads, maxMemoryBytes } = request;
  const learner = await openLanguageStudent({
    start: { kind: 'directory', path },
    precision: 'f32',
    threads,
    seed,
    batch: batchSize,
    length: Math.max(...domains.map(({ windows }) => windows.length)),
    maxMemoryBytes,
    processBytes: process.memoryUsage.rss(),
    optimizerSlots: 0,
    wholeBatch: false,
  });
  try {
    const found: { name: string; after: LanguageEvaluation }[] = [];
    for (const { name, windows } of domains) {
      found.push({ name, after: await evaluateLanguage(learner.student, windows, { batchSize, seed, threads }) });
    }
    return found;
  } finally {
    await learner.close();
  }
}
