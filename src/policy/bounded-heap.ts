/**
 * The `capacity` best of a stream of (score, position) pairs: higher scores first, of equal scores the lowest position.
 * A heap with the worst on top, O(log capacity) an offer.
 */
export interface BoundedHeap {
  offer(score: number, position: number): void;
  /** Positions, best first. The heap stays as it is. */
  ranked(): Int32Array;
  clear(): void;
}

export function createBoundedHeap(capacity: number): BoundedHeap {
  const scores = new Float64Array(capacity);
  const positions = new Int32Array(capacity);
  let size = 0;
  const worse = (a: number, b: number): boolean =>
    scores[a] < scores[b] || (scores[a] === scores[b] && positions[a] > positions[b]);
  const swap = (a: number, b: number): void => {
    [scores[a], scores[b]] = [scores[b], scores[a]];
    [positions[a], positions[b]] = [positions[b], positions[a]];
  };
  const sink = (): void => {
    for (let i = 0; ; ) {
      let worst = i;
      for (let child = 2 * i + 1; child <= 2 * i + 2 && child < size; child++) if (worse(child, worst)) worst = child;
      if (worst === i) return;
      swap(i, worst);
      i = worst;
    }
  };
  return {
    offer(score, position) {
      if (size < capacity) {
        scores[size] = score;
        positions[size] = position;
        for (let i = size++; i > 0 && worse(i, (i - 1) >> 1); i = (i - 1) >> 1) swap(i, (i - 1) >> 1);
        return;
      }
      if (capacity === 0 || score < scores[0] || (score === scores[0] && position > positions[0])) return;
      scores[0] = score;
      positions[0] = position;
      sink();
    },
    ranked() {
      const order = Int32Array.from({ length: size }, (_, i) => i).sort((a, b) => (worse(a, b) ? 1 : -1));
      return order.map((i) => positions[i]);
    },
    clear() {
      size = 0;
    },
  };
}
