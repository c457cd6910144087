import path from 'node:path';
import { readWorkFile } from '../formats/work-files.js';
import { MANIFEST_FILE, MANIFEST_SCHEMA } from './merged-journal.js';

/** Which stored expert each expert of the original layer became, [E]; -1 for one that was dropped. */
export interface LayerLabels {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly labels: Int32Array;
}

interface StoredLayer {
  readonly layer: number;
  readonly experts_before: number;
  readonly experts: number;
  readonly record: StoredRecord | null;
}

interface StoredRecord {
  readonly groups?: readonly { readonly group: number; readonly members: readonly { readonly expert: number }[] }[];
}

function labelsOf({ layer, experts_before: before, experts, record }: StoredLayer): LayerLabels[] {
  if (record?.groups === undefined) {
    return before === experts ? [{ layer, labels: Int32Array.from({ length: before }, (_, expert) => expert) }] : [];
  }
  const labels = new Int32Array(before).fill(-1);
  for (const { group, members } of record.groups) for (const { expert } of members) labels[expert] = group;
  return [{ layer, labels }];
}

/**
 * The groups of a merged model as the manifest beside it tells them, layers in order; empty for a directory that this tool
 * did not merge.
 */
export function readMergedLabels(directory: string): LayerLabels[] {
  const manifest = readWorkFile(path.join(directory, MANIFEST_FILE)) as
    | { readonly schema?: unknown; readonly layers?: readonly StoredLayer[] }
    | undefined;
  if (manifest?.schema !== `surprisal/${MANIFEST_SCHEMA}`) return [];
  return (manifest.layers ?? []).flatMap(labelsOf);
}
