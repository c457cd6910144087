import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { ReportValue } from '../src/report/values.js';
import {
  addCourseOptions,
  addStepOptions,
  TRAIN_SHARED,
  type TrainOptions,
  type TrainShared,
} from './distill-options.js';
import { addLearningTextOptions, type LearningTextOptions } from './distill-text.js';
import type { LanguageRecipe } from './distill-train-language.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = ['model', ...TRAIN_SHARED] as const;
type Shared = TrainShared & Pick<SharedOptions, 'model'>;

interface RecoverOptions extends TrainOptions, LearningTextOptions {
  readonly dtype?: string;
  readonly trainRouters?: boolean;
  readonly losparseRank?: string;
  readonly losparseShare?: string;
  readonly losparseWarmup?: string;
  readonly losparseTargets?: readonly string[];
}

const COMMAND = 'merge-moe recover';

/** As the experts of MC-SMoE are recovered (released code): the divergence is that of a whole sequence. */
const LOSS = 'ce + 0.2*kd(T=2,norm=sequences)';
const WARMUP_STEPS = 16;
const DEFAULTS = {
  loss: LOSS,
  epochs: 1,
  batchSize: 8,
  learningRate: 2e-4,
  schedule: 'linear',
  clipNorm: Number.POSITIVE_INFINITY,
  warmupSteps: WARMUP_STEPS,
  optimizer: { method: 'adamw', beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weightDecay: 0.01, exemptVectors: true },
} as const;

/** Declares `surprisal merge-moe recover`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addStepOptions(command)
    .option('--teacher <model>', 'the original: a model, or a capture of it')
    .option('--loss <terms>', `losses by name and weight (default ${LOSS})`);
  addCourseOptions(addLearningTextOptions(command))
    .option('--train-routers', 'train the routers too (default: they stay as they are)')
    .option('--dtype <type>', 'type of the written weights: f32, bf16, f16 (default: as the model was stored)')
    .option('--losparse-rank <r>', 'every matrix of an expert as rank r plus rows that are pruned in training')
    .option('--losparse-share <q>', 'share of the sparse entries that remain at the end (default 0.1)')
    .option('--losparse-warmup <steps>', 'steps before pruning; four times as many follow it (default: --warmup)')
    .option('--losparse-targets <pattern...>', 'matrices by name with * and ? (default all of the experts)')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<RecoverOptions>());
    });
}

async function run(options: Shared, own: RecoverOptions): Promise<number> {
  const student = requireOption(options.model, '--model', 'the merged or compressed model to train');
  const { trainLanguage } = await import('./distill-train-language.js');
  return trainLanguage(options, { ...own, student }, recipeOf(own));
}

function recipeOf(own: RecoverOptions): LanguageRecipe {
  const loSparse = loSparseOf(own);
  // What was best before the rows went is not what is asked for.
  if (loSparse && own.keep === 'best') {
    throw new InputError(
      '--keep best has no meaning while rows are pruned: the last weights have the share that is asked for',
    );
  }
  return {
    command: COMMAND,
    defaults: DEFAULTS,
    freezeRouters: own.trainRouters !== true,
    ...(loSparse && { keep: 'last' as const }),
    ...(loSparse && { loSparse: loSparse.settingsOf }),
    parameters: {
      train_routers: own.trainRouters ?? false,
      ...(loSparse?.parameters ?? {
        losparse_rank: null,
        losparse_share: null,
        losparse_warmup: null,
        losparse_targets: null,
      }),
    },
  };
}

interface LoSparseRequest {
  readonly settingsOf: NonNullable<LanguageRecipe['loSparse']>;
  readonly parameters: Readonly<Record<string, ReportValue>>;
}

/** @throws InputError for numbers out of range */
function loSparseOf(own: RecoverOptions): LoSparseRequest | undefined {
  const { losparseRank, losparseShare, losparseWarmup, losparseTargets } = own;
  if ([losparseRank, losparseShare, losparseWarmup, losparseTargets].every((given) => given === undefined)) {
    return undefined;
  }
  const rank = losparseRank === undefined ? undefined : parseInteger('--losparse-rank', losparseRank, 1);
  const finalShare = parseNumber('--losparse-share', losparseShare ?? '0.1', 0, 1);
  const warmup = losparseWarmup === undefined ? undefined : parseInteger('--losparse-warmup', losparseWarmup);
  return {
    settingsOf: (totalSteps, warmupSteps) => ({
      ...(rank !== undefined && { rank }),
      ...(losparseTargets && { targets: losparseTargets }),
      schedule: { totalSteps, warmupSteps: warmup ?? warmupSteps, finalShare },
    }),
    parameters: {
      losparse_rank: rank ?? null,
      losparse_share: finalShare,
      losparse_warmup: warmup ?? null,
      losparse_targets: losparseTargets ? [...losparseTargets] : null,
    },
  };
}
