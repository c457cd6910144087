import fs from 'node:fs';
import path from 'node:path';
import { type AtomicOptions, createAtomicDirectory } from '../../formats/atomic.js';
import { DIRECT_BLOCK } from '../../formats/direct-transfer.js';
import { fileError } from '../../formats/files.js';
import type { HashedFile } from '../../formats/hash.js';
import { SAFETENSORS_INDEX } from '../../formats/safetensors.js';
import { layOutShards, openShards, type ShardFiles, type ShardLayout } from '../../formats/safetensors-shards.js';
import { encodeIndex } from '../../formats/safetensors-writer.js';
import { addressModulo } from '../../kernels/buffer-address.js';
import { smallFiles, writeHashed } from '../../models/model-directory.js';
import { type Report, serializeReport } from '../../report/json.js';
import type { ReportValue } from '../../report/values.js';
import { type MergeJournal, openMergeJournal } from './journal.js';
import type { MergePlan } from './types.js';

/** Outputs of fewer bytes are written through the page cache. */
const LEAST_DIRECT_OUTPUT = 1 << 28;

export const MANIFEST_FILE = 'manifest.json';

/** A file of the output beside the weights. */
export interface CompanionFile {
  readonly name: string;
  readonly data: string | Uint8Array;
}

/** A model directory that is being filled. */
export interface MergeTarget {
  readonly layout: ShardLayout;
  readonly files: ShardFiles;
  readonly journal: MergeJournal;
  /** Writes index and companions. @returns what was written */
  writeCompanions(companions: readonly CompanionFile[]): HashedFile[];
  /** The manifest last; then the directory gets its name. */
  commit(manifest: Report): void;
  /** Ends without a result; finished tensors stay for a run that resumes unless `discard`. */
  abort(discard: boolean): void;
}

/**
 * Opens the directory of a merged model. All shards have their size and headers at once, so that tensors may come in any order.
 * @param identity what two runs must share for one to continue the other
 * @throws InputError when `out` exists without `force` or `resume`, or an interrupted run was another one
 */
export function createMergeTarget(
  out: string,
  plan: MergePlan,
  identity: ReportValue,
  options: AtomicOptions & { readonly maxShardBytes: number },
): MergeTarget {
  const planned = plan.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const layout = layOutShards(planned, options.maxShardBytes, { format: 'pt' }, DIRECT_BLOCK);
  // What is small appears on the disk when it is synced at the end.
  const direct = layout.tensorBytes >= LEAST_DIRECT_OUTPUT ? addressModulo : undefined;
  fs.mkdirSync(path.dirname(path.resolve(out)), { recursive: true });
  const directory = createAtomicDirectory(out, { force: options.force, resume: options.resume, resumable: true });
  const guarded = <T>(body: () => T): T => {
    try {
      return body();
    } catch (error) {
      throw fileError(error, out, 'write');
    }
  };
  const journal = guarded(() => openMergeJournal(out, directory, identity, layout));
  const files = guarded(() => openShards(directory.path, layout, direct));
  return {
    layout,
    files,
    journal,
    writeCompanions: (companions) =>
      guarded(() => {
        // What takes long is done while a run that is killed can still resume.
        files.sync();
        files.close();
        const written = companions.map(({ name, data }) => writeHashed(directory.path, name, data));
        if (layout.files.length > 1)
          written.push(writeHashed(directory.path, SAFETENSORS_INDEX, encodeIndex(layout.shards, layout.tensorBytes)));
        return written.sort((a, b) => (a.name < b.name ? -1 : 1));
      }),
    commit: (manifest) =>
      guarded(() => {
        writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
        journal.remove();
        directory.commit();
      }),
    abort(discard): void {
      journal.close();
      files.close();
      directory.abort();
      if (discard) fs.rmSync(directory.path, { recursive: true, force: true });
    },
  };
}

const TOKENIZER_FILE =
  /^(tokenizer.*|vocab\..*|merges\.txt|special_tokens_map\.json|added_tokens\.json|chat_template\..*|.*\.model|additional_chat_templates\/.*)$/;
/** What else belongs to a model, whatever is merged into it. */
const MODEL_FILE = /^(generation_config|preprocessor_config|processor_config|image_processor_config)\.json$/;

/**
 * Small files of the model whose config the output takes over: generation config, processors, tokenizer.
 * @param tokenizer whether its tokenizer files are among them
 */
export function takenOverFiles(directory: string, tokenizer: boolean): CompanionFile[] {
  return smallFiles(directory)
    .filter((name) => MODEL_FILE.test(name) || (tokenizer && TOKENIZER_FILE.test(name)))
    .map((name) => ({ name: name.replaceAll('\\', '/'), data: fs.readFileSync(path.join(directory, name)) }));
}
