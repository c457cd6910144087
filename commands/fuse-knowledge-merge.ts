import { mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { HashedFile } from '../src/formats/hash.js';
import type { HeldOutDomain } from '../src/fusion/knowledge/train-fused.js';
import type { LanguageEvaluation } from '../src/training/language/language-evaluation.js';
import type { TrainShared } from './distill-options.js';
import { toolVersion } from './edge-version.js';
import { type KnowledgeOptions, type MERGES, sceShare } from './fuse-knowledge-options.js';
import type { StageRun } from './fuse-knowledge-stages.js';
import { runInThread } from './run-in-thread.js';

type MergeName = (typeof MERGES)[number];

/** Parameters of the merge, as a configuration writes them. */
function parametersOf(method: MergeName, own: KnowledgeOptions): string {
  if (method === 'sce') return `{ select_topk: ${sceShare(own)} }`;
  return method === 'linear' ? '{ normalize: true }' : '{}';
}

export interface MergedTargets {
  readonly method: MergeName;
  readonly files: readonly HashedFile[];
  readonly domains: readonly { readonly name: string; readonly after: LanguageEvaluation }[];
}

const quoted = (text: string): string => JSON.stringify(text);

/** Merges the targets over the pivot that they were trained from, into `out`, and judges the result. */
export async function mergeTargets(request: {
  readonly options: TrainShared;
  readonly own: KnowledgeOptions;
  readonly stage: StageRun;
  readonly heldOut: readonly HeldOutDomain[];
  /** Directories of the targets. */
  readonly folders: readonly string[];
  readonly method: MergeName;
  readonly out: string;
}): Promise<MergedTargets> {
  const { options, stage, heldOut, folders, method, out } = request;
  const [pivot] = stage.models;
  const names = folders.map((_, i) => `target-${i + 1}`);
  const models = names.map((name) =>
    method === 'linear'
      ? `  - { model: ${quoted(name)}, parameters: { weight: ${1 / names.length} } }`
      : `  - { model: ${quoted(name)} }`,
  );
  const configuration = [
    `merge_method: ${method}`,
    ...(method === 'linear' ? [] : ['base_model: pivot']),
    'models:',
    ...models,
    `parameters: ${parametersOf(method, request.own)}`,
    ...(request.own.dtype === undefined ? [] : [`dtype: ${DTYPE_NAMES[request.own.dtype] ?? request.own.dtype}`]),
    '',
  ].join('\n');
  const directories = new Map([['pivot', pivot.path], ...names.map((name, i): [string, string] => [name, folders[i]])]);
  // Beside the work of the run: the merged files move into the output when they are complete.
  const beside = mkdtempSync(join(stage.work, 'merge-'));
  const { mergeModels } = await import('../src/fusion/merge/merge-job.js');
  const merged = join(beside, 'merged');
  await runInThread(
    { module: new URL('../src/fusion/merge/merge-job.js', import.meta.url).href, job: mergeModels },
    {
      configuration,
      configurationName: 'the merge of the targets',
      out: merged,
      directories,
      settings: {
        seed: options.seed,
        variant: 'surprisal',
        maxShardBytes: Number.POSITIVE_INFINITY,
        keepPadding: true,
        copyTokenizer: true,
        modelCard: false,
        allowCrimes: false,
        allowNonFinite: false,
        diagnostics: 'none',
      },
      memoryBytes: options.maxMemory,
      threads: options.threads,
      write: { force: true },
      head: {
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'fuse knowledge',
        parameters: { method },
      },
    },
    undefined,
    options.threads,
  );
  const { hashedFile } = await import('../src/models/model-directory.js');
  const files: HashedFile[] = [];
  for (const name of readdirSync(merged)) {
    if (name === 'manifest.json') continue;
    renameSync(join(merged, name), join(out, name));
    files.push(hashedFile(out, name));
  }
  rmSync(beside, { recursive: true, force: true });
  const { evaluateWritten } = await import('../src/fusion/knowledge/evaluate-written.js');
  const domains =
    heldOut.length === 0
      ? []
      : await runInThread(
          {
            module: new URL('../src/fusion/knowledge/evaluate-written.js', import.meta.url).href,
            job: evaluateWritten,
          },
          {
            path: out,
            domains: heldOut,
            batchSize: 8,
            seed: options.seed,
            threads: options.threads,
            maxMemoryBytes: options.maxMemory,
          },
          undefined,
          options.threads,
        );
  return { method, files, domains };
}

const DTYPE_NAMES: Readonly<Record<string, string>> = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' };
