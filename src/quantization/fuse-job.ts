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
  readonly threads?: number;
}

/**
 * Runs in a thread of its own: writes the model with rotations fused into its weights as a directory.
 * @throws InputError for an architecture without a plan
 */
export async function fuseIntoDirectory({ source, target, seed, threads }: FuseArguments): Promise<void> {
  const files = openModelFiles(source);
  try {
    const plan = planFusion(files, { seed: BigInt(seed) });
    const dtype = workingTypes(files);
    const fused = fuseModel(files, plan, { dtype, ...(threads !== undefined && { threads }) });
    writeFusedModel(fused, plan, target, { force: true });
  } finally {
    files.store.close();
  }
}
