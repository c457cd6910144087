import { didYouMean, InputError } from '../../errors.js';

/** What an expert says of one pair of elements. */
export interface ExpertAnswer {
  readonly first: string;
  readonly second: string;
  readonly where: string;
  /** Answers to "can you judge?" and "how similar?", or masses of one's own. */
  readonly judgement:
    | { readonly kind: 'answers'; readonly canJudge: string; readonly similarity: string }
    | { readonly kind: 'masses'; readonly similar: number; readonly dissimilar: number };
}

export interface ExpertAnswers {
  readonly name: string;
  readonly answers: readonly ExpertAnswer[];
}

/** An expert's masses on every pair of elements; the rest is ignorance. Symmetric [E, E]. */
export interface Expert {
  readonly name: string;
  readonly similar: Float64Array;
  readonly dissimilar: Float64Array;
  /** Pairs that have mass. */
  readonly pairs: number;
}

const SIMILARITIES: Readonly<Record<string, readonly [number, number]>> = {
  high: [1, 0],
  medium: [0.5, 0.5],
  low: [0, 1],
  no: [0, 0],
};

const plain = (answer: string, prefix: string): string => {
  const text = answer.trim().toLowerCase();
  return text.startsWith(prefix) ? text.slice(prefix.length) : text;
};

/** Shares of similar and dissimilar: Q1 No is ignorance, Q2 High, Medium, Low are 1, 1/2 and 1/2, and 1. */
function sharesOf(canJudge: string, similarity: string, where: string): readonly [number, number] {
  const judges = plain(canJudge, 'q1');
  if (judges === 'no') return [0, 0];
  if (judges !== 'yes') throw new InputError(`${where}: Q1 is "${canJudge}"; it is Yes or No`);
  const answer = plain(similarity, 'q2');
  const shares = SIMILARITIES[answer];
  if (shares === undefined) {
    const known = Object.keys(SIMILARITIES);
    throw new InputError(`${where}: Q2 is "${similarity}"${didYouMean(answer, known)}; it is High, Medium, Low or No`);
  }
  return shares;
}

/**
 * Experts' answers as masses. With answers to the two questions every one of E experts gives at most gamma = 1 / (3 E) to
 * a pair (Ha et al. 2025); masses that are numbers stay as they are.
 * @throws InputError for an unknown answer, a pair that stands twice, masses above 1 together
 */
export function expertMasses(elements: readonly string[], all: readonly ExpertAnswers[]): Expert[] {
  const gamma = 1 / (3 * all.length);
  const index = new Map(elements.map((name, e) => [name, e]));
  const n = elements.length;
  return all.map(({ name, answers }) => {
    const similar = new Float64Array(n * n);
    const dissimilar = new Float64Array(n * n);
    const seen = new Set<number>();
    let pairs = 0;
    for (const { first, second, where, judgement } of answers) {
      const a = index.get(first) as number;
      const b = index.get(second) as number;
      if (a === b) throw new InputError(`${where}: ${first} is compared with itself`);
      const key = Math.min(a, b) * n + Math.max(a, b);
      if (seen.has(key)) throw new InputError(`${where}: expert ${name} judges ${first} and ${second} twice`);
      seen.add(key);
      let [s, d] = [0, 0];
      if (judgement.kind === 'masses') [s, d] = [judgement.similar, judgement.dissimilar];
      else {
        const shares = sharesOf(judgement.canJudge, judgement.similarity, where);
        [s, d] = [gamma * shares[0], gamma * shares[1]];
      }
      if (!(s >= 0 && d >= 0 && s + d <= 1 + 1e-12)) {
        throw new InputError(
          `${where}: masses ${s} and ${d} of expert ${name}; they are not negative and at most 1 together`,
        );
      }
      if (s + d > 0) pairs++;
      for (const at of [a * n + b, b * n + a]) {
        similar[at] = s;
        dissimilar[at] = d;
      }
    }
    return { name, similar, dissimilar, pairs };
  });
}
