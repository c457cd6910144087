import fs from 'node:fs';
import path from 'node:path';
import { type HashedFile, sha256File } from '../formats/hash.js';
import { PVQ_VERSION } from '../formats/pvq.js';
import { elementCount } from '../formats/tensor.js';
import { buildReport, type Report, type ReportHead } from '../report/json.js';
import type { PvqLayout } from './pvq-layout.js';
import type { FinishedTensor, FlatRecord } from './pvq-parts.js';

export const MANIFEST_FILE = 'manifest.json';
export const MANIFEST_SCHEMA = 'pvq-manifest';

/** The manifest of a quantised model: its files with their hashes, its tensors with their bytes and figures. */
export function manifestOf(
  layout: PvqLayout,
  head: Omit<ReportHead, 'name'>,
  records: ReadonlyMap<string, FinishedTensor>,
  files: readonly HashedFile[],
  body: FlatRecord,
): Report {
  const tensors = [...layout.quantised.keys()].flatMap((name) => {
    const found = records.get(name);
    if (found === undefined) return [];
    const { tensor, wideScales, zeroGroups, record } = found;
    const { payload, metadata, total } = layout.tensorBytes(name, tensor.code, { wideScales, zeroGroups });
    const weights = elementCount(tensor.shape);
    return [
      {
        name,
        shape: [...tensor.shape],
        weights,
        payload_bytes: payload,
        metadata_bytes: metadata,
        bits_per_weight: (8 * total) / weights,
        source_sha256: tensor.sourceSha256,
        record,
      },
    ];
  });
  const weights = tensors.reduce((sum, tensor) => sum + tensor.weights, 0);
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.payload_bytes + tensor.metadata_bytes, layout.fixedBytes);
  return buildReport(
    { ...head, name: MANIFEST_SCHEMA },
    {
      format: PVQ_VERSION,
      weights,
      bytes,
      common_metadata_bytes: layout.fixedBytes,
      bits_per_weight: (8 * bytes) / weights,
      files: files.map(({ name, bytes: size, sha256 }) => ({ name, bytes: size, sha256 })),
      tensors,
      ...(Object.keys(body).length > 0 && { figures: body }),
    },
  );
}

/** SHA-256 of the files of a finished directory that do not have the hash of its manifest. */
export async function changedFiles(directory: string, manifest: Report): Promise<string[]> {
  const changed: string[] = [];
  for (const { name, bytes, sha256 } of manifest.files as HashedFile[]) {
    const file = path.join(directory, name);
    const info = fs.statSync(file, { throwIfNoEntry: false });
    if (info === undefined || info.size !== bytes || (await sha256File(file)) !== sha256) changed.push(name);
  }
  return changed;
}
