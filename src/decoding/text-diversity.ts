import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { editDistance, editPattern } from '../linalg/edit-distance.js';

/** Token sequences; all measures here take their units from token ids, so that they need no words. */
type Sequences = readonly Int32Array[];

/** Longest grams of self-BLEU and of the kernel of the Vendi score. */
const LONGEST_GRAM = 4;

/** Calls `visit` with a key of every n-gram of a sequence, in order. */
function eachGram(tokens: Int32Array, n: number, visit: (gram: string) => void): void {
  for (let i = 0; i + n <= tokens.length; i++) visit(tokens.subarray(i, i + n).join(' '));
}

function gramCounts(tokens: Int32Array, n: number): Map<string, number> {
  const counts = new Map<string, number>();
  eachGram(tokens, n, (gram) => {
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  });
  return counts;
}

/** distinct-n (Li et al. 2016): different n-grams of all sequences over all their n-grams; NaN where there are none. */
export function distinctN(sequences: Sequences, n: number): number {
  const seen = new Set<string>();
  let total = 0;
  for (const tokens of sequences) {
    eachGram(tokens, n, (gram) => {
      seen.add(gram);
      total++;
    });
  }
  return seen.size / total;
}

/** seq-rep-n (Welleck et al. 2020) of one sequence: share of n-grams that stood earlier in it; NaN where there are none. */
export function repetition(tokens: Int32Array, n: number): number {
  const grams = Math.max(0, tokens.length - n + 1);
  return 1 - gramCounts(tokens, n).size / grams;
}

/** Largest count of a gram over all sequences, who has it, and the largest of the others: the clip of everybody. */
interface Clip {
  first: number;
  owner: number;
  second: number;
}

/**
 * Self-BLEU (Zhu et al. 2018): mean over sequences of BLEU-4 against all the others, counts clipped at the largest of one
 * reference, the brevity penalty from the closest length (the shorter of two), zero counts of grams smoothed to 0.1
 * (method 1 of Chen & Cherry 2014, as nltk has it). 1: all alike. NaN below two sequences.
 */
export function selfBleu(sequences: Sequences): number {
  if (sequences.length < 2) return Number.NaN;
  const scores = new Float64Array(sequences.length);
  const unmatched = new Uint8Array(sequences.length);
  for (let n = 1; n <= LONGEST_GRAM; n++) {
    const counts = sequences.map((tokens) => gramCounts(tokens, n));
    const clips = clipsOf(counts);
    counts.forEach((own, s) => {
      let matched = 0;
      for (const [gram, count] of own) {
        const { first, owner, second } = clips.get(gram) ?? { first: 0, owner: -1, second: 0 };
        matched += Math.min(count, owner === s ? second : first);
      }
      if (n === 1 && matched === 0) unmatched[s] = 1;
      const total = Math.max(1, sequences[s].length - n + 1);
      scores[s] += Math.log((matched === 0 ? 0.1 : matched) / total) / LONGEST_GRAM;
    });
  }
  const lengths = sequences.map(({ length }) => length);
  let sum = 0;
  for (let s = 0; s < sequences.length; s++) {
    if (unmatched[s] === 1) continue;
    const own = lengths[s];
    const reference = closestLength(lengths, s);
    sum += Math.exp(scores[s] + (own > reference ? 0 : 1 - reference / own));
  }
  return sum / sequences.length;
}

function clipsOf(counts: readonly Map<string, number>[]): Map<string, Clip> {
  const clips = new Map<string, Clip>();
  counts.forEach((own, s) => {
    for (const [gram, count] of own) {
      const clip = clips.get(gram);
      if (clip === undefined) clips.set(gram, { first: count, owner: s, second: 0 });
      else if (count > clip.first) {
        clip.second = clip.first;
        clip.first = count;
        clip.owner = s;
      } else if (count > clip.second) clip.second = count;
    }
  });
  return clips;
}

function closestLength(lengths: readonly number[], own: number): number {
  let closest = Number.POSITIVE_INFINITY;
  lengths.forEach((length, s) => {
    if (s === own) return;
    const nearer = Math.abs(length - lengths[own]) - Math.abs(closest - lengths[own]);
    if (nearer < 0 || (nearer === 0 && length < closest)) closest = length;
  });
  return closest;
}

/** Mean over pairs of the Levenshtein distance in tokens, and of its share of the longer sequence. NaN below two. */
export function meanEditDistance(sequences: Sequences): { readonly tokens: number; readonly share: number } {
  const longest = sequences.reduce((most, { length }) => Math.max(most, length), 1);
  const up = new Int32Array(Math.ceil(longest / 32));
  const down = new Int32Array(up.length);
  let tokens = 0;
  let share = 0;
  for (let i = 0; i < sequences.length; i++) {
    const pattern = editPattern(sequences[i]);
    for (let j = 0; j < i; j++) {
      const distance = editDistance(pattern, sequences[j], up, down);
      tokens += distance;
      share += distance === 0 ? 0 : distance / Math.max(sequences[i].length, sequences[j].length);
    }
  }
  const pairs = (sequences.length * (sequences.length - 1)) / 2;
  return { tokens: tokens / pairs, share: share / pairs };
}

/**
 * Vendi score of order 1 (Friedman & Dieng 2022), the effective number of different sequences: exp of the entropy of the
 * eigenvalues of K/n, K the mean over n = 1 to 4 of the cosine between vectors of n-gram counts. Sequences shorter than n
 * leave that n out for themselves: the kernel is divided by its diagonal. NaN without sequences.
 */
export function ngramVendiScore(sequences: Sequences, threads?: number): number {
  const used = sequences.filter(({ length }) => length > 0);
  const n = used.length;
  if (n === 0) return Number.NaN;
  const kernel = new Float64Array(n * n);
  for (let length = 1; length <= LONGEST_GRAM; length++) addCosines(kernel, used, length);
  const diagonal = Float64Array.from({ length: n }, (_, i) => kernel[i * n + i]);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) kernel[i * n + j] /= n * Math.sqrt(diagonal[i] * diagonal[j]);
  }
  let entropy = 0;
  for (const value of symmetricSpectrum(kernel, n, { ...(threads !== undefined && { threads }) })) {
    if (value > 0) entropy -= value * Math.log(value);
  }
  return Math.exp(entropy);
}

/** Adds the cosines of count vectors of one gram length, gram by gram. */
function addCosines(kernel: Float64Array, sequences: Sequences, length: number): void {
  const n = sequences.length;
  const holders = new Map<string, { readonly rows: number[]; readonly counts: number[] }>();
  const norms = new Float64Array(n);
  sequences.forEach((tokens, row) => {
    for (const [gram, count] of gramCounts(tokens, length)) {
      norms[row] += count * count;
      let holder = holders.get(gram);
      if (holder === undefined) {
        holder = { rows: [], counts: [] };
        holders.set(gram, holder);
      }
      holder.rows.push(row);
      holder.counts.push(count);
    }
  });
  for (const { rows, counts } of holders.values()) {
    for (let a = 0; a < rows.length; a++) {
      for (let b = 0; b < rows.length; b++) {
        kernel[rows[a] * n + rows[b]] += (counts[a] * counts[b]) / Math.sqrt(norms[rows[a]] * norms[rows[b]]);
      }
    }
  }
}
