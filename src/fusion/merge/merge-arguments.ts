import type { AtomicOptions } from '../../formats/atomic.js';
import type { ReportHead } from '../../report/json.js';
import type { MergeSubject } from './merge-subject.js';
import { diagnosticBytes, type TensorDiagnostics } from './tensor-record.js';
import type { MergeVariant } from './types.js';
import { planWork, type WorkPlan } from './work-plan.js';

/** What decides the bytes of a merge beside its configuration. */
export interface MergeSettings {
  readonly seed: number;
  readonly variant: MergeVariant;
  readonly maxShardBytes: number;
  /** Rows behind the vocabulary stay where the output's tokenizer is the base's. */
  readonly keepPadding: boolean;
  /** Tokenizer files of the config's model are copied where no tokenizer is written. */
  readonly copyTokenizer: boolean;
  readonly modelCard: boolean;
  /** Models of different architectures may be merged. */
  readonly allowCrimes: boolean;
  readonly allowNonFinite: boolean;
  readonly diagnostics: TensorDiagnostics;
}

/** Everything that a merge takes, structured-cloneable. */
export interface MergeArguments {
  /** Text of the configuration, and what it is called in messages. */
  readonly configuration: string;
  readonly configurationName: string;
  readonly out: string;
  /** Where named documents of a configuration of several go; beside `out` and removed at the end when absent. */
  readonly intermediate?: string;
  /** Directories of models and adapters by what the configuration writes (`path` or `path@revision`). */
  readonly directories: ReadonlyMap<string, string>;
  readonly settings: MergeSettings;
  readonly memoryBytes: number;
  /** Bytes of files that the system can keep in memory: models that are larger together are read past the page cache. */
  readonly cacheBytes?: number;
  readonly threads: number;
  readonly write: AtomicOptions;
  /** Whether inputs are hashed as they are read (default); what is not kept needs no provenance. */
  readonly hashed?: boolean;
  /** Heads the manifest; a run that resumes must repeat it. */
  readonly head: Omit<ReportHead, 'name' | 'inputs'>;
}

/** Memory of the program beside buffers. */
export const PROGRAM_BYTES = 192 << 20;

/** What `--max-memory` leaves for buffers. */
export const bufferBytes = ({ memoryBytes }: MergeArguments): number =>
  Math.max(memoryBytes / 4, memoryBytes - PROGRAM_BYTES);

/** The items of a merge within its memory. @throws InputError as `planWork` */
export function subjectWork(args: MergeArguments, { plan, sources, placeOf }: MergeSubject): WorkPlan {
  const { diagnostics } = args.settings;
  const beside = (tensor: (typeof plan.tensors)[number], rows: number): number =>
    diagnosticBytes(diagnostics, tensor.shape, rows, tensor.inputs.length);
  return planWork(plan, sources, { memoryBytes: bufferBytes(args), placeOf, beside });
}
