import { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { CompressSettings } from '../src/moe/compress-plan.js';
import type { ExpertModel } from '../src/moe/expert-model.js';
import { statisticsNeed } from '../src/moe/merge-needs.js';
import type { MergeSettings } from '../src/moe/merge-settings.js';
import type { StatisticsNeed } from '../src/moe/methods/method.js';
import { expertMethod } from '../src/moe/methods/registry.js';
import { parseRowSpec, type RowSpec } from '../src/moe/row-spec.js';
import { parseNumber } from './edge-values.js';
import { addMergeOptions, type MergeOptions, parseMergeSettings } from './merge-moe-options.js';

/** A row that will be computed: experts merged or pruned, or all of them compressed to the same size. */
export type PlannedRow = {
  readonly spec: RowSpec;
  /** Experts of a layer that stay, or whose bytes all of them may take. */
  readonly experts: number;
  readonly need: StatisticsNeed;
} & (
  | { readonly kind: 'experts'; readonly settings: MergeSettings }
  | { readonly kind: 'compress'; readonly settings: CompressSettings }
);

/** The row that keeps all experts, each smaller. */
export const COMPRESS = 'compress';

/** What the user said of a row: a method with options, at a size. */
export function planRow(name: string, experts: string, model: ExpertModel, seed: number): PlannedRow {
  const spec = parseRowSpec(name);
  if (spec.method === COMPRESS) {
    const size = parseNumber('--experts', experts);
    return { kind: 'compress', spec, experts: size, need: 'none', settings: compressSettings(spec, size, model, seed) };
  }
  const request = { method: spec.method, variant: undefined, seed };
  const settings = parseMergeSettings({ ...mergeOptions(spec), experts }, model, request);
  const need = statisticsNeed(expertMethod(settings.method), settings);
  return { kind: 'experts', spec, experts: settings.experts, need, settings };
}

/** Options of a row, read as the command line of `merge` reads them. */
function mergeOptions({ name, options }: RowSpec): MergeOptions {
  const reader = addMergeOptions(new Command())
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  const words = [...options].flatMap(([key, value]) => (value === true ? [`--${key}`] : [`--${key}`, value]));
  try {
    reader.parse(words, { from: 'user' });
  } catch (error) {
    const what = error instanceof Error ? error.message.replace(/^error: /, '') : String(error);
    throw new InputError(`--methods ${name}: ${what}`);
  }
  const { experts, keepRatio, ...rest } = reader.opts<MergeOptions>();
  if (experts !== undefined || keepRatio !== undefined) {
    throw new InputError(`--methods ${name}: --experts says how many stay, for all rows`);
  }
  return rest;
}

/** Rank and rows of the compression of all experts whose parts take the bytes of `size` whole experts at most. */
function compressSettings(
  { name, options }: RowSpec,
  size: number,
  model: ExpertModel,
  seed: number,
): CompressSettings {
  const text = (key: string): string | undefined => {
    const value = options.get(key);
    if (value === true) throw new InputError(`--methods ${name}: ${key} needs a value`);
    return value;
  };
  for (const key of options.keys()) {
    if (key !== 'keep-rows') {
      throw new InputError(
        `--methods ${name}: unknown option ${key}; keep-rows is known, and the rank follows from it`,
      );
    }
  }
  const keepRows = parseNumber(`--methods ${name}: keep-rows`, text('keep-rows') ?? '0', 0, 1);
  const ranks = model.layers.map(({ experts, shape: { hidden, width } }) =>
    Math.floor(((size / experts - keepRows) * hidden * width) / (hidden + width)),
  );
  const rank = Math.min(...ranks);
  if (rank < 1) {
    throw new InputError(`--methods ${name}: the rows that stay take the bytes of ${size} experts; lower keep-rows`);
  }
  return {
    form: 'factorised',
    rank,
    keepRows,
    scope: 'matrix',
    score: 'magnitude',
    oversamples: 8,
    powerIterations: 2,
    spectra: false,
    seed,
  };
}
