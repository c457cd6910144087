import { openModelFiles } from '../models/model-files.js';
import { writeFusedModel } from './fused-model-writer.js';
import { fuseModel, workingTypes } from './fused-store.js';
import { planFusion } from './rotation-fusion.js';

/** Plain data, so that it can be posted to a thread. */
export interface FuseArguments {
  readonly source: string;
  readonly target: string;
  /** Decimal. */
  readonly seed: string;
  /** The target is there from an interrupted run: only the notes are wanted. */
  readonly reuse: boolean;
  readonly threads?: number;
}

/**
 * Runs in a thread of its own: writes the model with rotations fused into its weights as a directory.
 * @returns what could not be fused, for the report
 * @throws InputError for an architecture without a plan
 */
export async function fuseIntoDirectory(args: FuseArguments): Promise<readonly string[]> {
  const { source, target, seed, reuse, threads } = args;
  const files = openModelFiles(source);
  try {
    const plan = planFusion(files, { seed: BigInt(seed) });
    if (reuse) return plan.notes;
    const dtype = workingTypes(files);
    const fused = fuseModel(files, plan, { dtype, ...(threads !== undefined && { threads }) });
    writeFusedModel(fused, plan, target, { force: true });
    return plan.notes;
  } finally {
    files.store.close();
  }
}
