import { InputError } from '../errors.js';
import type { PyramidCode } from '../kernels/pyramid.js';

/** A tensor that takes part in the allocation. */
export interface AllocationItem {
  readonly name: string;
  /** Number of its weights. */
  readonly weights: number;
  /** Expected loss for a relative squared error of one: what the allocator weighs bytes against. */
  readonly sensitivity: number;
  /** What it may be stored as. Tensors of one shape may share the list. */
  readonly choices: readonly CodeChoice[];
}

/** One way to store a tensor. */
export interface CodeChoice {
  readonly code: PyramidCode;
  /** Bytes of the payload. */
  readonly bytes: number;
  /** Expected squared error relative to the energy. */
  readonly relativeError: number;
}

/** What the allocator decided. */
export interface Allocation {
  /** The choice of each item, in the order of the items. */
  readonly choices: readonly CodeChoice[];
  /** Of all that is stored. */
  readonly bytes: number;
  /** Bits of the files per weight of the items. */
  readonly bitsPerWeight: number;
  /** Sum of sensitivity times relative error. */
  readonly expectedLoss: number;
}

/**
 * Choices on the lower convex hull of (bytes, relative error), by rising bytes and falling error. Only these can be
 * optimal for any exchange rate between bytes and loss.
 */
export function lowerHull(choices: readonly CodeChoice[]): CodeChoice[] {
  const sorted = [...choices].sort((a, b) => a.bytes - b.bytes || a.relativeError - b.relativeError);
  const hull: CodeChoice[] = [];
  for (const choice of sorted) {
    const last = hull.at(-1);
    if (last && choice.relativeError >= last.relativeError) continue;
    while (
      hull.length >= 2 &&
      slope(hull[hull.length - 2], hull[hull.length - 1]) <= slope(hull[hull.length - 2], choice)
    ) {
      hull.pop();
    }
    hull.push(choice);
  }
  return hull;
}

/** Fall of the error per byte from a to b, b larger. */
function slope(a: CodeChoice, b: CodeChoice): number {
  return (a.relativeError - b.relativeError) / (b.bytes - a.bytes);
}

/** The choices that no other one beats in bytes and error, by rising bytes. */
export function paretoChoices(choices: readonly CodeChoice[]): CodeChoice[] {
  const sorted = [...choices].sort((a, b) => a.bytes - b.bytes || a.relativeError - b.relativeError);
  let least = Number.POSITIVE_INFINITY;
  return sorted.filter(({ relativeError }) => {
    if (relativeError >= least) return false;
    least = relativeError;
    return true;
  });
}

/** Least and most bits per weight that the choices of all items give, with `fixedBytes` whatever is chosen. */
export function reachableBits(
  items: readonly AllocationItem[],
  fixedBytes = 0,
): { readonly least: number; readonly most: number } {
  let least = fixedBytes;
  let most = fixedBytes;
  let weights = 0;
  for (const item of items) {
    let [low, high] = [Number.POSITIVE_INFINITY, 0];
    for (const { bytes } of item.choices) {
      low = Math.min(low, bytes);
      high = Math.max(high, bytes);
    }
    least += low;
    most += high;
    weights += item.weights;
  }
  return { least: (8 * least) / weights, most: (8 * most) / weights };
}

/** A step from one vertex of an item's hull to the next. */
interface Step {
  readonly item: number;
  /** Vertex that is reached. */
  readonly vertex: number;
  readonly bytes: number;
  /** Fall of the loss per byte. */
  readonly gain: number;
}

/**
 * Minimises the sum of sensitivity times relative error with at most `bitsPerWeight` bits of file per weight.
 *
 * Every item walks along its convex hull, so a step of largest gain per byte is always the next one of the optimum of
 * the relaxed problem: all steps are taken in falling order of gain while they fit. Steps that no longer fit are passed
 * over, later ones that still fit are taken, and a last pass fills what is left with choices off the hull, so that what
 * stays unused is less than the smallest step. Source: Lagrangian bit allocation over convex hulls (Shoham and Gersho,
 * 1988), specification of quantisation, section 11.
 * @param fixedBytes what is stored beside the payloads, whatever is chosen
 * @throws InputError when the rate lies outside what the choices reach, with the range
 */
export function allocate(items: readonly AllocationItem[], bitsPerWeight: number, fixedBytes = 0): Allocation {
  const weights = items.reduce((sum, item) => sum + item.weights, 0);
  const budget = Math.floor((bitsPerWeight * weights) / 8);
  const hulls = hullsOf(items);
  const { least, most } = reachableBits(items, fixedBytes);
  if (!(bitsPerWeight >= least && bitsPerWeight <= most)) {
    throw new InputError(
      `--bpw ${bitsPerWeight} cannot be reached: with these tensors and codes it lies between ` +
        `${roundUp(least)} and ${roundDown(most)}, all bytes of the files counted`,
    );
  }
  const at = items.map(() => 0);
  let bytes = hulls.reduce((sum, hull) => sum + hull[0].bytes, fixedBytes);
  for (const step of stepsByGain(items, hulls)) {
    if (at[step.item] !== step.vertex - 1 || bytes + step.bytes > budget) continue;
    at[step.item] = step.vertex;
    bytes += step.bytes;
  }
  const chosen = items.map((_, i) => hulls[i][at[i]]);
  bytes = fillRest(items, chosen, bytes, budget);
  return {
    choices: chosen,
    bytes,
    bitsPerWeight: (8 * bytes) / weights,
    expectedLoss: chosen.reduce((sum, choice, i) => sum + items[i].sensitivity * choice.relativeError, 0),
  };
}

/** Tensors that share their choices share the hull. */
function hullsOf(items: readonly AllocationItem[]): CodeChoice[][] {
  const known = new Map<readonly CodeChoice[], CodeChoice[]>();
  return items.map(({ choices }) => {
    const hull = known.get(choices) ?? lowerHull(choices);
    known.set(choices, hull);
    return hull;
  });
}

function stepsByGain(items: readonly AllocationItem[], hulls: readonly CodeChoice[][]): Step[] {
  const steps: Step[] = [];
  hulls.forEach((hull, item) => {
    for (let vertex = 1; vertex < hull.length; vertex++) {
      steps.push({
        item,
        vertex,
        bytes: hull[vertex].bytes - hull[vertex - 1].bytes,
        gain: items[item].sensitivity * slope(hull[vertex - 1], hull[vertex]),
      });
    }
  });
  return steps.sort((a, b) => b.gain - a.gain || a.item - b.item || a.vertex - b.vertex);
}

/** Spends what is left of the budget on the single changes that lower the loss most; returns the bytes used. */
function fillRest(items: readonly AllocationItem[], chosen: CodeChoice[], used: number, budget: number): number {
  let bytes = used;
  for (;;) {
    let best: { item: number; choice: CodeChoice; fall: number } | undefined;
    for (const [item, { choices, sensitivity }] of items.entries()) {
      for (const choice of choices) {
        if (choice.bytes - chosen[item].bytes > budget - bytes) continue;
        const fall = sensitivity * (chosen[item].relativeError - choice.relativeError);
        if (fall > 0 && (best === undefined || fall > best.fall)) best = { item, choice, fall };
      }
    }
    if (!best) return bytes;
    bytes += best.choice.bytes - chosen[best.item].bytes;
    chosen[best.item] = best.choice;
  }
}

const roundUp = (bits: number): number => Math.ceil(bits * 1000) / 1000;
const roundDown = (bits: number): number => Math.floor(bits * 1000) / 1000;
