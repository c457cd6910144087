import { InputError } from '../errors.js';

export interface WordRatioOptions {
  /** Lower-case words that are left out. */
  readonly stopwords: readonly string[];
  /** Added to every count, so that a word which one side lacks has a finite ratio. */
  readonly smoothing?: number;
  /** Words with fewer occurrences on both sides together are not listed. */
  readonly minimumCount?: number;
}

export interface WordRatio {
  readonly word: string;
  readonly defaultCount: number;
  readonly steeredCount: number;
  /** Smoothed relative frequency, steered over default. */
  readonly ratio: number;
}

export interface WordRatios {
  /** Words of each side, stop words left out. */
  readonly defaultWords: number;
  readonly steeredWords: number;
  /** Largest ratio first, ties in alphabetical order. */
  readonly words: readonly WordRatio[];
}

/** Words of a text: maximal runs of a to z and the apostrophe, after lower-casing. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[a-z']+/g) ?? [];
}

function countWords(
  texts: readonly string[],
  stopwords: ReadonlySet<string>,
): { counts: Map<string, number>; total: number } {
  const counts = new Map<string, number>();
  let total = 0;
  for (const text of texts) {
    for (const word of wordsOf(text)) {
      if (stopwords.has(word)) continue;
      counts.set(word, (counts.get(word) ?? 0) + 1);
      total++;
    }
  }
  return { counts, total };
}

/**
 * How much more frequent each word is in steered thoughts: `((c_s + a) / (n_s + a V)) / ((c_d + a) / (n_d + a V))`, V the
 * number of distinct words of both sides together. The paper does not say how zero counts are treated; add-0.5 smoothing
 * is this project's reading. Source: Rahn, D'Oro & Bellemare 2024, section on subjective uncertainty.
 * @throws InputError when no word is left
 */
export function wordRatios(
  defaultTexts: readonly string[],
  steeredTexts: readonly string[],
  options: WordRatioOptions,
): WordRatios {
  const { smoothing = 0.5, minimumCount = 1 } = options;
  if (!(smoothing >= 0)) throw new InputError(`word ratios: the smoothing is ${smoothing}; expected 0 or more`);
  const stopwords = new Set(options.stopwords.map((word) => word.toLowerCase()));
  const before = countWords(defaultTexts, stopwords);
  const after = countWords(steeredTexts, stopwords);
  const all = new Set([...before.counts.keys(), ...after.counts.keys()]);
  if (all.size === 0) throw new InputError('word ratios: no word is left once stop words are taken out');
  const frequency = (count: number, total: number): number => (count + smoothing) / (total + smoothing * all.size);
  const words = [...all]
    .map((word) => {
      const defaultCount = before.counts.get(word) ?? 0;
      const steeredCount = after.counts.get(word) ?? 0;
      const ratio = frequency(steeredCount, after.total) / frequency(defaultCount, before.total);
      return { word, defaultCount, steeredCount, ratio };
    })
    .filter(({ defaultCount, steeredCount }) => defaultCount + steeredCount >= minimumCount)
    .sort((a, b) => b.ratio - a.ratio || (a.word < b.word ? -1 : 1));
  return { defaultWords: before.total, steeredWords: after.total, words };
}
