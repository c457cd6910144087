import { InputError } from '../errors.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { type LanguageModel, openLanguageModel } from '../models/language-model.js';
import { windowsSha256 } from '../training/language/capture-file.js';
import { capturedLanguageTeacher } from '../training/language/captured-language-teacher.js';
import { openCapturedTeacher } from '../training/language/captured-teacher.js';
import { type LanguageTeacher, openLiveTeacher } from '../training/language/live-teacher.js';
import { type TokenWindows, windowBatches } from '../training/language/token-data.js';
import { IGNORED, type TeacherRows, type TokenBatch } from '../training/types.js';
import { gatherPair, type PairRow } from './pair-audit.js';
import { type ScoreFigures, type SharedScore, scoredLosses } from './score-settings.js';

/** An audit of language models on a text. */
export interface LanguageScore extends SharedScore {
  /** Path of the student. */
  readonly student: string;
  readonly teacher:
    | { readonly kind: 'model'; readonly path: string }
    | { readonly kind: 'capture'; readonly paths: readonly string[] };
  readonly windows: TokenWindows;
  readonly vocabularies: 'error' | 'truncate';
  readonly tokenizerSha256?: string;
  readonly threads: number;
  readonly maxMemoryBytes: number;
  readonly precision: 'f32' | 'f64';
}

/** Share of the memory that each of two models may take. */
const MODEL_SHARE = 0.4;
/** Logits of a block, of student and teacher each. */
const BLOCK = 1 << 22;

interface ScoreTeacher {
  readonly source: LanguageTeacher;
  readonly kind: 'dense' | 'top';
  dropped(): string | undefined;
}

function openModel(score: LanguageScore, path: string): Promise<LanguageModel> {
  return openLanguageModel(path, {
    threads: score.threads,
    maxMemoryBytes: score.maxMemoryBytes * MODEL_SHARE,
    device: 'cpu',
    precision: score.precision,
    context: score.windows.length,
  });
}

async function openTeacher(score: LanguageScore, classes: number): Promise<ScoreTeacher> {
  const { teacher, vocabularies, tokenizerSha256, windows } = score;
  if (teacher.kind === 'capture') {
    const captured = openCapturedTeacher(teacher.paths, {
      vocabulary: classes,
      align: vocabularies,
      dataSha256: windowsSha256(windows),
      ...(tokenizerSha256 !== undefined && { tokenizerSha256 }),
    });
    return { source: capturedLanguageTeacher(captured), kind: 'top', dropped: () => undefined };
  }
  const model = await openModel(score, teacher.path);
  const { vocabularySize } = model.info;
  if (vocabularySize !== classes && vocabularies === 'error') {
    await model.close();
    throw new InputError(
      `the teacher ${teacher.path} has a vocabulary of ${vocabularySize} and the student one of ${classes}; --vocab-align truncate keeps the common prefix`,
    );
  }
  const source = openLiveTeacher(model, classes);
  return {
    source,
    kind: 'dense',
    dropped() {
      const found = source.dropped();
      if (vocabularySize === classes) return undefined;
      const lost = found ? `, which leaves out ${(100 * found.mean).toPrecision(3)}% of the teacher's probability` : '';
      return `the student has ${classes} tokens and the teacher ${vocabularySize}: the common prefix is kept${lost}`;
    },
  };
}

/** Rows of a batch that something is asked of, in ascending ranges of at most `most`. */
function* blocksOf(batch: TokenBatch, most: number): Generator<readonly [number, number]> {
  const total = batch.batch * batch.length;
  for (let from = 0; from < total; from += most) {
    const to = Math.min(total, from + most);
    if (batch.labels.subarray(from, to).some((label) => label !== IGNORED)) yield [from, to - from];
  }
}

/** Audits language models row block by row block: a job in a thread of its own. */
export async function scoreLanguage(score: LanguageScore, progress: (value: unknown) => void): Promise<ScoreFigures> {
  const model = await openModel(score, score.student);
  const classes = model.info.vocabularySize;
  const student = openLiveTeacher(model, classes);
  try {
    const teacher = await openTeacher(score, classes);
    try {
      const gatherer = gatherPair({
        classes,
        teacher: teacher.kind,
        labels: true,
        wholeBatch: false,
        ...scoredLosses(score),
      });
      const listed: PairRow[] = [];
      const source = windowBatches(score.windows, 1);
      const most = Math.max(1, Math.floor(BLOCK / classes));
      for (let index = 0; index < source.perEpoch; index++) {
        const batch = await source.batch(index);
        const own = await student.begin(batch);
        const given = await teacher.source.begin(batch);
        for (const [from, rows] of blocksOf(batch, most)) {
          const scores: TeacherRows = await own.rows(from, rows);
          if (scores.kind !== 'dense') throw new InputError(`${score.student}: gives no full logits`);
          const firstRow = index * score.windows.length + from;
          const labels = batch.labels.subarray(from, from + rows);
          const block = { rows, firstRow, student: scores.logits, teacher: await given.rows(from, rows), labels };
          gatherer.add(block, (row) => {
            if (score.rowsWanted) listed.push(row);
          });
        }
        progress(index + 1);
      }
      const audit = gatherer.finish();
      const dropped = teacher.dropped();
      return { audit: { ...audit, warnings: dropped ? [...audit.warnings, dropped] : audit.warnings }, rows: listed };
    } finally {
      await teacher.source.close();
    }
  } finally {
    await student.close();
  }
}

export const SCORE_LANGUAGE: ComputeReference<LanguageScore, ScoreFigures> = {
  module: import.meta.url,
  job: scoreLanguage,
};
