import { windowsSha256 } from '../../training/language/capture-file.js';
import { type CapturedTeacher, openCapturedTeacher } from '../../training/language/captured-teacher.js';
import type { TokenWindows } from '../../training/language/token-data.js';
import { IGNORED } from '../../training/types.js';
import { createFuser, type FusedRows, type ModelEntries, type ModelRows, readModelRows } from './fused-rows.js';

/** What is asked about the fused targets of sequences. Structured-cloneable. */
export interface FiguresRequest {
  /** On the pivot's windows: the pivot's own capture, then the moved ones. */
  readonly captures: readonly string[];
  readonly windows: TokenWindows;
  readonly vocabulary: number;
  /** [sequences][models]; all 0 where nothing is fused. */
  readonly weights: readonly Float64Array[];
  readonly temperature: number;
}

/** Figures of a sequence, means over its learnt positions. */
export interface SequenceFigures {
  readonly positions: number;
  /** [models] nats: entropies of the distributions as they are fused. */
  readonly entropies: readonly number[];
  readonly fusedEntropy: number;
  /** nats; tokens outside the pivot's list share equally in what the list leaves over. */
  readonly divergenceFromPivot: number;
  /** Share of positions whose label the fused target knows, and the mean of -ln q over those; NaN without one. */
  readonly labelsCovered: number;
  readonly coveredCe: number;
  /** [models] share of positions whose likeliest token is the label; and of the fused target. */
  readonly accuracies: readonly number[];
  readonly fusedAccuracy: number;
  /** Share of positions at which the fused target is wrong while a kept model is right; while any model is. */
  readonly interference: number;
  readonly missed: number;
}

/** Place of the first largest entry of a row; -1 of an empty one. */
function likeliest(ids: Int32Array, probabilities: Float64Array, row: number, width: number): number {
  let best = -1;
  for (let i = row * width; i < (row + 1) * width && ids[i] >= 0; i++) {
    if (best < 0 || probabilities[i] > probabilities[best]) best = i;
  }
  return best < 0 ? -1 : ids[best];
}

function rowEntropy(probabilities: Float64Array, row: number, width: number): number {
  let sum = 0;
  for (let i = row * width; i < (row + 1) * width; i++) {
    if (probabilities[i] > 0) sum -= probabilities[i] * Math.log(probabilities[i]);
  }
  return sum;
}

/** KL of a fused row from the pivot's whole distribution. */
function divergence(fused: FusedRows, row: number, pivot: PivotRows): number {
  const { ids, logProbs, leftover, k, vocabulary } = pivot;
  let listed = 0;
  while (listed < k && ids[row * k + listed] >= 0) listed++;
  const rest = Math.log(leftover[row] / Math.max(1, vocabulary - listed));
  const own = ids.subarray(row * k, row * k + listed);
  let sum = 0;
  for (let i = row * fused.width; i < (row + 1) * fused.width && fused.ids[i] >= 0; i++) {
    const q = fused.probabilities[i];
    if (q === 0) continue;
    const at = own.indexOf(fused.ids[i]);
    sum += q * (Math.log(q) - (at >= 0 ? logProbs[row * k + at] : rest));
  }
  return sum;
}

interface PivotRows {
  readonly ids: Int32Array;
  readonly logProbs: ArrayLike<number>;
  readonly leftover: ArrayLike<number>;
  readonly k: number;
  readonly vocabulary: number;
}

function figuresOf(
  models: ModelRows,
  fused: FusedRows,
  pivot: PivotRows,
  labels: Int32Array,
  weights: Float64Array,
): SequenceFigures {
  const counts = { positions: 0, covered: 0, coveredCe: 0, fusedRight: 0, interference: 0, missed: 0 };
  const sums = { fusedEntropy: 0, divergence: 0 };
  const entropies = models.models.map(() => 0);
  const right = models.models.map(() => 0);
  const fuses = weights.some((weight) => weight > 0);
  labels.forEach((label, r) => {
    if (label === IGNORED) return;
    counts.positions++;
    let kept = false;
    let any = false;
    models.models.forEach(({ ids, probabilities }: ModelEntries, m) => {
      entropies[m] += rowEntropy(probabilities, r, models.k);
      if (likeliest(ids, probabilities, r, models.k) !== label) return;
      right[m]++;
      any = true;
      kept ||= weights[m] > 0;
    });
    if (!fuses) return;
    sums.fusedEntropy += rowEntropy(fused.probabilities, r, fused.width);
    sums.divergence += divergence(fused, r, pivot);
    const fusedRight = likeliest(fused.ids, fused.probabilities, r, fused.width) === label;
    if (fusedRight) counts.fusedRight++;
    else {
      if (kept) counts.interference++;
      if (any) counts.missed++;
    }
    const place = fused.ids.subarray(r * fused.width, (r + 1) * fused.width).indexOf(label);
    const mass = place < 0 ? 0 : fused.probabilities[r * fused.width + place];
    if (mass > 0) {
      counts.covered++;
      counts.coveredCe -= Math.log(mass);
    }
  });
  const share = (count: number): number => (fuses ? count / counts.positions : Number.NaN);
  return {
    positions: counts.positions,
    entropies: entropies.map((sum) => sum / counts.positions),
    fusedEntropy: share(sums.fusedEntropy),
    divergenceFromPivot: share(sums.divergence),
    labelsCovered: share(counts.covered),
    coveredCe: counts.coveredCe / counts.covered,
    accuracies: right.map((count) => count / counts.positions),
    fusedAccuracy: share(counts.fusedRight),
    interference: share(counts.interference),
    missed: share(counts.missed),
  };
}

/** Figures of the fused target of every sequence: a job. */
export async function sequenceFigures(
  request: FiguresRequest,
  progress: (value: unknown) => void,
): Promise<SequenceFigures[]> {
  const { windows, vocabulary, weights, temperature } = request;
  const { count, length, lengths, labels } = windows;
  const captures: CapturedTeacher[] = [];
  const expected = { vocabulary, dataSha256: windowsSha256(windows) };
  try {
    for (const path of request.captures) captures.push(openCapturedTeacher([path], expected));
    const fuse = createFuser(vocabulary);
    return Array.from({ length: count }, (_, w) => {
      const models = readModelRows(captures, w, [0, lengths[w]], temperature);
      const fused = fuse(models, weights[w]);
      const pivot = { ...captures[0].rows(w, 0, lengths[w]), vocabulary };
      const own = labels.subarray(w * length, w * length + lengths[w]);
      progress({ kind: 'rows', rows: w + 1 });
      return figuresOf(models, fused, pivot, own, weights[w]);
    });
  } finally {
    for (const capture of captures) capture.close();
  }
}
