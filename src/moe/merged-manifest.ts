import type { HashedFile } from '../formats/hash.js';
import { buildReport, type Report, type ReportHead, validateReport } from '../report/json.js';
import type { ReportValue } from '../report/values.js';
import type { ExpertModel } from './expert-model.js';
import type { MergedConfig, MergedForm, MergedLayerPlan } from './merged-config.js';
import { MANIFEST_FILE, MANIFEST_SCHEMA } from './merged-journal.js';
import type { MergedLayout } from './merged-layout.js';

/** What the manifest of a merged model tells. */
export interface ManifestParts {
  readonly source: ExpertModel;
  readonly form: MergedForm | 'unchanged';
  readonly layers: readonly MergedLayerPlan[];
  readonly config: Pick<MergedConfig, 'form' | 'notes'>;
  readonly layout: Pick<MergedLayout, 'bytesBefore' | 'bytesAfter'>;
  readonly written: readonly HashedFile[];
  readonly records: ReadonlyMap<number, unknown>;
  readonly body: { readonly [key: string]: ReportValue };
}

/** The manifest: files with hashes, experts by layer with the records of the run. */
export function manifestOf(head: Omit<ReportHead, 'name'>, parts: ManifestParts): Report {
  const { source, form, layers, config, layout, written, records, body } = parts;
  const manifest = buildReport(
    { ...head, name: MANIFEST_SCHEMA },
    {
      family: source.family,
      form,
      config_form: config.form,
      tensor_bytes_before: layout.bytesBefore,
      tensor_bytes: layout.bytesAfter,
      notes: [...source.notes, ...config.notes],
      files: written.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 })),
      layers: layers.map(({ layer, experts, routerRows }, i) => ({
        layer,
        name: source.layers[i].name,
        experts_before: source.layers[i].experts,
        experts,
        router_rows: routerRows,
        record: (records.get(layer) ?? null) as ReportValue,
      })),
      ...(Object.keys(body).length > 0 && { figures: body }),
    },
  );
  validateReport(manifest, MANIFEST_FILE);
  return manifest;
}
