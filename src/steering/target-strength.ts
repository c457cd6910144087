/** A strength and the mean action entropy that it gives, nats. */
export interface StrengthPoint {
  readonly strength: number;
  readonly entropyNats: number;
}

export interface TargetSearch {
  /** Null where the points hold no strength on each side of the target. */
  readonly found: StrengthPoint | null;
  readonly evaluations: number;
}

/** The entropy is called reached within this, nats. */
export const TARGET_TOLERANCE_NATS = 1e-3;
const MOST_EVALUATIONS = 20;

/**
 * The strength at which the entropy reaches a target: the neighbouring points that hold it between them and lie nearest to
 * zero, then false position with the weight of a retained end halved (the Illinois rule), which stays inside the bracket
 * where the curve bends.
 * @param points known points; any order
 * @param evaluate entropy at a strength, nats
 */
export async function strengthForEntropy(
  targetNats: number,
  points: readonly StrengthPoint[],
  evaluate: (strength: number) => Promise<number>,
): Promise<TargetSearch> {
  const reached = (entropy: number): boolean => Math.abs(entropy - targetNats) <= TARGET_TOLERANCE_NATS;
  const sorted = [...points].sort((a, b) => a.strength - b.strength);
  const nearest = (a: StrengthPoint, b: StrengthPoint): number => Math.abs(a.strength) - Math.abs(b.strength);
  const [exact] = sorted.filter(({ entropyNats }) => reached(entropyNats)).sort(nearest);
  if (exact) return { found: exact, evaluations: 0 };
  const [bracket] = sorted
    .slice(1)
    .map((right, i) => ({ left: sorted[i], right }))
    .filter(({ left, right }) => (left.entropyNats - targetNats) * (right.entropyNats - targetNats) < 0)
    .sort((a, b) => Math.min(...sizes(a)) - Math.min(...sizes(b)));
  if (!bracket) return { found: null, evaluations: 0 };
  let { left, right } = bracket;
  let [low, high] = [left.entropyNats - targetNats, right.entropyNats - targetNats];
  let kept = 0;
  for (let evaluations = 1; evaluations <= MOST_EVALUATIONS; evaluations++) {
    const strength = (left.strength * high - right.strength * low) / (high - low);
    const entropyNats = await evaluate(strength);
    const point = { strength, entropyNats };
    const off = entropyNats - targetNats;
    if (reached(entropyNats) || evaluations === MOST_EVALUATIONS) return { found: point, evaluations };
    if (off * low > 0) {
      [left, low] = [point, off];
      if (kept === 1) high /= 2;
      kept = 1;
    } else {
      [right, high] = [point, off];
      if (kept === -1) low /= 2;
      kept = -1;
    }
  }
  throw new RangeError('the search for a strength has no end');
}

const sizes = ({ left, right }: { left: StrengthPoint; right: StrengthPoint }): [number, number] => [
  Math.abs(left.strength),
  Math.abs(right.strength),
];
