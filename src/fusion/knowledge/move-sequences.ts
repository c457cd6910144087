import { existsSync, readFileSync } from 'node:fs';
import { createAtomicFile } from '../../formats/atomic.js';
import { createCapture, windowsSha256 } from '../../training/language/capture-file.js';
import { type CapturedTeacher, openCapturedTeacher } from '../../training/language/captured-teacher.js';
import type { TopTeacher } from '../../training/types.js';
import type { StatisticsRule } from './mapping-statistics.js';
import { moveDistribution } from './move-distribution.js';
import { alignSequences, tokenCosts } from './sequence-alignment.js';
import type { ModelSequences } from './sequences.js';
import { buildTokenMap, type SequencePairs } from './source-map.js';
import { type CostRule, tokenPair } from './token-pair.js';
import {
  type AlignedRows,
  type MoveOptions,
  ROW_KINDS,
  type SparseRows,
  type TokenMap,
  type TokenMapKind,
  type TokenTexts,
} from './types.js';

/** A model's side of a move. */
export interface MovedModel {
  readonly name: string;
  readonly texts: TokenTexts;
  readonly sequences: ModelSequences;
  /** Columns of its logits. */
  readonly vocabulary: number;
  readonly tokenizerSha256: string;
}

/** Moves a source's captured distributions to the pivot's windows and vocabulary. Structured-cloneable. */
export interface MoveRequest {
  readonly pivot: MovedModel;
  readonly source: MovedModel;
  readonly modelSha256: string;
  readonly capture: string;
  readonly map: TokenMapKind;
  readonly statistics: StatisticsRule;
  readonly cost: CostRule;
  readonly move: MoveOptions;
  /** The capture to write; its figures lie beside it. */
  readonly path: string;
}

/** What became of a source's rows. */
export interface MoveResult {
  readonly map: TokenMap;
  /** [sequences, kinds]: positions by how their row came about, in the order of `ROW_KINDS`. */
  readonly kinds: Int32Array;
  /** [sequences]: share of the probability of the source's lists that was kept, over positions with a source row. */
  readonly keptMass: Float64Array;
  /** [sequences]: cost of the alignment. */
  readonly costs: Float64Array;
}

/** Figures of a move, as JSON beside its capture. */
interface StoredFigures {
  readonly request: string;
  readonly kinds: readonly number[];
  readonly keptMass: readonly (number | null)[];
  readonly costs: readonly number[];
  readonly map: {
    readonly pivotIds: readonly number[];
    readonly distances: readonly number[];
    readonly counts?: readonly number[];
  };
}

/** Rows of the source's tokens of a window; the one behind the last captured position holds nothing. */
function sourceRows(
  capture: CapturedTeacher,
  window: number,
  first: number,
  end: number,
  captured: number,
): SparseRows {
  const held = Math.min(end, captured);
  const { k, ids, logProbs } = capture.rows(window, first, held);
  const offsets = new Int32Array(end - first + 1);
  const kept: number[] = [];
  for (let r = 0; r < end - first; r++) {
    for (let i = r * k; first + r < held && i < (r + 1) * k && ids[i] >= 0; i++) kept.push(i);
    offsets[r + 1] = kept.length;
  }
  return {
    offsets,
    ids: Int32Array.from(kept, (i) => ids[i]),
    logits: Float32Array.from(kept, (i) => logProbs[i]),
  };
}

const FALLBACK = ROW_KINDS.indexOf('fallback');
const EMPTY = ROW_KINDS.indexOf('empty');

/** Moved rows as lists of a capture: positions before `first` hold nothing, one-hot rows all mass. */
function asTopRows(moved: AlignedRows, first: number, positions: number, k: number): TopTeacher {
  const ids = new Int32Array(positions * k).fill(-1);
  const logProbs = new Float32Array(positions * k);
  const leftover = new Float32Array(positions).fill(1);
  for (let t = first; t < positions; t++) {
    const row = t - first;
    const begin = moved.offsets[row];
    const count = moved.offsets[row + 1] - begin;
    if (moved.kinds[row] === FALLBACK) {
      ids[t * k] = moved.ids[begin];
      leftover[t] = 0;
      continue;
    }
    let mass = 0;
    for (let i = 0; i < count; i++) {
      ids[t * k + i] = moved.ids[begin + i];
      logProbs[t * k + i] = moved.logits[begin + i];
      mass += Math.exp(moved.logits[begin + i]);
    }
    leftover[t] = Math.max(0, 1 - mass);
  }
  return { kind: 'top', k, ids, logProbs, leftover };
}

/** Share of the mass of the source's rows that arrived, over positions that have one. */
function arrivedMass(moved: AlignedRows, top: TopTeacher, first: number, positions: number, rows: SparseRows): number {
  let arrived = 0;
  let count = 0;
  for (let t = first; t < positions; t++) {
    if (moved.kinds[t - first] === FALLBACK) continue;
    arrived += 1 - top.leftover[t];
    count++;
  }
  let whole = 0;
  for (const logit of rows.logits) whole += Math.exp(logit);
  const ofRow = whole / Math.max(1, rows.offsets.length - 2);
  return count === 0 ? Number.NaN : arrived / (count * ofRow);
}

/** What decides a move. */
const requestKey = ({ pivot, source, modelSha256, map, statistics, cost, move }: MoveRequest): string =>
  JSON.stringify({
    ...{ map, statistics, cost, move, modelSha256 },
    pivot: [windowsSha256(pivot.sequences.windows), pivot.tokenizerSha256, pivot.texts.marker],
    source: [windowsSha256(source.sequences.windows), source.tokenizerSha256, source.texts.marker],
  });

function storedResult(path: string, request: MoveRequest): MoveResult | undefined {
  if (!existsSync(path) || !existsSync(request.path)) return undefined;
  const stored = JSON.parse(readFileSync(path, 'utf8')) as StoredFigures;
  if (stored.request !== requestKey(request)) return undefined;
  const { counts } = stored.map;
  return {
    kinds: Int32Array.from(stored.kinds),
    keptMass: Float64Array.from(stored.keptMass, (value) => value ?? Number.NaN),
    costs: Float64Array.from(stored.costs),
    map: {
      kind: request.map,
      pivotIds: Int32Array.from(stored.map.pivotIds),
      distances: Int32Array.from(stored.map.distances),
      ...(counts && { counts: Float64Array.from(counts) }),
    },
  };
}

/**
 * Aligns every sequence of the source with the pivot's, and moves its rows: the result is a capture on the pivot's windows,
 * whose rows are distributions over the pivot's tokens. A token before the text is aligned with nothing: its row is empty,
 * as are those of which no token was translated; the pivot's own distribution stands for them. A job: what an earlier run
 * left complete is taken over.
 */
export async function moveSequences(request: MoveRequest, progress: (value: unknown) => void): Promise<MoveResult> {
  const { pivot, source, path } = request;
  const figures = `${path}.json`;
  const before = storedResult(figures, request);
  if (before) return before;
  const { windows } = pivot.sequences;
  const firstOf = (model: MovedModel): number => (model.sequences.prefixed ? 1 : 0);
  const [firstPivot, firstSource] = [firstOf(pivot), firstOf(source)];
  const pair = tokenPair(source.texts, pivot.texts);
  const costs = tokenCosts(pair, request.cost);
  const texts: SequencePairs = {
    count: windows.count,
    source: (s) => source.sequences.tokens[s].subarray(firstSource),
    pivot: (s) => pivot.sequences.tokens[s].subarray(firstPivot),
  };
  const map = buildTokenMap(request.map, pair, texts, costs, request.statistics);
  const capture = openCapturedTeacher([request.capture], {
    vocabulary: source.vocabulary,
    tokenizerSha256: source.tokenizerSha256,
    dataSha256: windowsSha256(source.sequences.windows),
  });
  const file = createAtomicFile(path, { force: true });
  try {
    const { k } = capture.header;
    const wanted = new Uint8Array(windows.count * windows.length);
    for (let w = 0; w < windows.count; w++) wanted.fill(1, w * windows.length, w * windows.length + windows.lengths[w]);
    const writer = createCapture(
      file,
      {
        vocabulary: pivot.vocabulary,
        k: Math.min(k, pivot.vocabulary),
        dtype: 'f32',
        temperature: 1,
        tokenizerSha256: pivot.tokenizerSha256,
        modelSha256: request.modelSha256,
        dataSha256: windowsSha256(windows),
        windows: windows.count,
        length: windows.length,
        first: 0,
        stored: windows.count,
      },
      wanted,
    );
    const kinds = new Int32Array(windows.count * ROW_KINDS.length);
    const keptMass = new Float64Array(windows.count);
    const alignmentCosts = new Float64Array(windows.count);
    for (let s = 0; s < windows.count; s++) {
      const text = { source: texts.source(s), pivot: texts.pivot(s) };
      const alignment = alignSequences(text.source, text.pivot, costs);
      const end = source.sequences.tokens[s].length;
      const rows = sourceRows(capture, s, firstSource, end, source.sequences.windows.lengths[s]);
      const moved = moveDistribution(pair, { ...text, alignment }, rows, map, request.move);
      const positions = windows.lengths[s];
      const top = asTopRows(moved, firstPivot, positions, Math.min(k, pivot.vocabulary));
      writer.append(top, positions);
      kinds[s * ROW_KINDS.length + EMPTY] += firstPivot;
      for (let t = firstPivot; t < positions; t++) kinds[s * ROW_KINDS.length + moved.kinds[t - firstPivot]]++;
      keptMass[s] = arrivedMass(moved, top, firstPivot, positions, rows);
      alignmentCosts[s] = alignment.cost;
      progress({ kind: 'rows', rows: s + 1 });
    }
    writer.finish();
    const result: MoveResult = { map, kinds, keptMass, costs: alignmentCosts };
    writeFigures(figures, request, result);
    file.commit();
    return result;
  } finally {
    file.abort();
    capture.close();
  }
}

function writeFigures(path: string, request: MoveRequest, { map, kinds, keptMass, costs }: MoveResult): void {
  const stored: StoredFigures = {
    request: requestKey(request),
    kinds: [...kinds],
    keptMass: Array.from(keptMass, (value) => (Number.isNaN(value) ? null : value)),
    costs: [...costs],
    map: {
      pivotIds: [...map.pivotIds],
      distances: [...map.distances],
      ...(map.counts && { counts: [...map.counts] }),
    },
  };
  const file = createAtomicFile(path, { force: true });
  file.write(`${JSON.stringify(stored)}\n`);
  file.commit();
}
