import { InputError } from '../../errors.js';
import { toJsonValue } from '../../report/values.js';
import type { SourceRow, SourceRows } from './source-rows.js';
import type { AlignedRows, SparseRows } from './types.js';

/** A text as the pivot's and a source's stored sequences have it. */
export interface RowPair {
  readonly pivot: SourceRow;
  readonly source: SourceRow;
}

/**
 * Sequences of both files, the n-th of one with the n-th of the other; those that either file left out are left out.
 * @throws InputError where the files do not hold as many, or a source sequence has no lists of logits
 */
export function pairRows(pivot: SourceRows, source: SourceRows): RowPair[] {
  const counts = [pivot, source].map(({ rows, dropped }) => rows.length + dropped.length);
  if (counts[0] !== counts[1]) {
    throw new InputError(
      `the pivot's rows hold ${counts[0]} sequences, the source's ${counts[1]}; both files must hold the same texts in one order`,
    );
  }
  const bare = source.rows.find(({ rows }) => rows === undefined);
  if (bare) throw new InputError(`${bare.place}: no per_step_logits and per_step_indices; rows of a source need them`);
  const byIndex = new Map(source.rows.map((row) => [row.index, row]));
  return pivot.rows.flatMap((row) => {
    const other = byIndex.get(row.index);
    return other ? [{ pivot: row, source: other }] : [];
  });
}

const lists = ({ offsets, ids, logits }: SparseRows) => {
  const cut = (values: Int32Array | Float64Array | Float32Array): number[][] =>
    Array.from(offsets.subarray(1), (end, t) => Array.from(values.subarray(offsets[t], end)));
  return { logits: cut(logits), indices: cut(ids) };
};

/**
 * A line of moved rows in the columns of FuseLLM (`per_step_aligned_*_0`) or FuseChat (`fused_*`), beside the pivot's own.
 */
export function movedLine({ pivot, source }: RowPair, moved: AlignedRows, columns: 'fusellm' | 'fusechat'): string {
  const own = pivot.rows && lists(pivot.rows);
  const { logits, indices } = lists(moved);
  const ce = source.metricCe;
  return JSON.stringify(
    toJsonValue({
      input_ids: pivot.inputIds,
      attention_mask: new Uint8Array(pivot.inputIds.length).fill(1),
      labels: pivot.labels ?? pivot.inputIds,
      per_step_logits: own?.logits,
      per_step_indices: own?.indices,
      metric_ce: pivot.metricCe,
      ...(columns === 'fusellm'
        ? { per_step_aligned_logits_0: logits, per_step_aligned_indices_0: indices, metric_ce_aligned_0: ce }
        : { fused_per_step_logits: logits, fused_per_step_indices: indices, fused_metric_ce: ce }),
    }),
  );
}
