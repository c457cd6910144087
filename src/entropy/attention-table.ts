import type { Cell } from '../report/csv.js';
import { type AttentionBody, type HeadReport, positionsOfHead } from './attention-report.js';
import type { AttentionRun } from './attention-run.js';

/** Columns of the table of heads: the fields of a head in the report. */
export const HEAD_COLUMNS = [
  'layer',
  'head',
  'sliding_window_tokens',
  'queries',
  'masked_queries',
  'nan_queries',
  'entropy_nats',
  'entropy_nats_se',
  'entropy_nats_document_se',
  'entropy_nats_std',
  'normalized_entropy',
  'share_of_log_context',
  'entropy_without_first_key_nats',
  'first_key_mass',
  'bin',
  'absolute_bin',
  'flag',
] as const satisfies readonly (keyof HeadReport)[];

/** Rows of the table of heads. */
export function* headRows(body: AttentionBody): Generator<Cell[]> {
  for (const head of body.by_head) yield HEAD_COLUMNS.map((column) => head[column]);
}

/** Columns of the table by position: positions first..last of the query in its window, both inclusive. */
export const POSITION_COLUMNS = [
  'layer',
  'head',
  'first_position',
  'last_position',
  'queries',
  'entropy_nats',
  'normalized_entropy',
] as const;

/** Rows of the table by position. */
export function* positionRows(run: AttentionRun): Generator<Cell[]> {
  const { layers, heads } = run.statistics;
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) {
      for (const place of positionsOfHead(run, layer, head)) {
        yield [layer, head, place.first, place.last, place.queries, place.entropy_nats, place.normalized_entropy];
      }
    }
  }
}
