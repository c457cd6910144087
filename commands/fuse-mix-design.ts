import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { DESIGN_SCHEMA, designBody, designFigure } from '../src/fusion/mixing/design-report.js';
import { entropyNats } from '../src/fusion/mixing/exponentiated-gradient.js';
import { designMixtures } from '../src/fusion/mixing/mixture-design.js';
import { runAnalysis } from './analysis-run.js';
import { parseInteger, parseNumber } from './edge-values.js';
import type { MixShared } from './fuse-mix-options.js';
import { requireOption } from './shared-options.js';

/** Own options of the form that lays out a sweep, as commander gives them. */
export interface DesignOptions {
  readonly design?: string;
  readonly groups?: string;
  readonly alpha?: string;
  readonly oversampling?: string;
}

/** Declares them. */
export function addDesignOptions(command: Command): Command {
  return command
    .option('--design <n>', 'mixtures of a sweep to lay out (default with `fuse mix design`: 50)')
    .option('--groups <names>', 'names of the groups, separated by commas')
    .option('--alpha <x>', 'concentration of the Dirichlet distribution (default 1.5)')
    .option('--oversampling <f>', '2^f times as many are drawn, the closest merged (default 4)');
}

/** Lays out a sweep: from the options to the exit code. */
export function designMix(options: MixShared, own: DesignOptions): Promise<number> {
  const names = requireOption(own.groups, '--groups', 'the groups, separated by commas').split(',');
  const groups = names.map((name) => name.trim());
  const empty = groups.some((name) => name === '');
  const twice = groups.find((name, j) => groups.indexOf(name) !== j);
  if (empty || twice !== undefined)
    throw new InputError(`--groups ${own.groups}: ${empty ? 'an empty name' : `${twice} stands twice`}`);
  const count = parseInteger('--design', own.design ?? '50', 1);
  const alpha = parseNumber('--alpha', own.alpha ?? '1.5', Number.MIN_VALUE);
  const oversampling = parseInteger('--oversampling', own.oversampling ?? '4', 0, 15);
  const k = groups.length;
  return runAnalysis(
    {
      name: DESIGN_SCHEMA,
      command: 'fuse mix',
      columns: groups.map((name) => `p_${name}`),
      unit: 'mixtures',
      inputs: [],
      parameters: { design: count, groups, alpha, oversampling, seed: options.seed },
      subtitle: `${count} mixtures of ${groups.join(', ')}`,
    },
    { ...options, shard: undefined },
    {
      measure: () => {
        const mixtures = designMixtures({ groups: k, count, alpha, oversampling, seed: options.seed });
        const body = designBody(mixtures, groups);
        const row = (r: number): Float64Array => mixtures.subarray(r * k, (r + 1) * k);
        return Promise.resolve({
          body,
          rows: () => Array.from({ length: count }, (_, r) => Array.from(row(r))),
          figure: (subtitle) => designFigure(body, mixtures, subtitle),
          summary: {
            header: ['mixture', ...groups, 'entropy_nats'],
            rows: Array.from({ length: Math.min(count, 10) }, (_, r) => [r + 1, ...row(r), entropyNats(row(r))]),
          },
        });
      },
      plan: () =>
        Promise.resolve([
          ['mixtures', count],
          ['drawn', count * 2 ** oversampling],
          ['groups', groups.join(', ')],
        ]),
    },
  );
}
