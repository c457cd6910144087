import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { EVALUATIONS } from '../src/fusion/evidence/evaluate.js';
import { RULES } from '../src/fusion/evidence/rules.js';
import { VERSIONS } from '../src/fusion/evidence/substitution.js';
import { flagOf } from './edge-values.js';
import { type AlloyOptions, runAlloys } from './fuse-evidence-alloys.js';
import { type MassOptions, runMasses } from './fuse-evidence-masses.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...(['data', 'table'] as const)] as const;

interface OwnOptions extends MassOptions, AlloyOptions {
  alloys?: string;
}

/** Options that one of the two ways has alone; `--set-column` belongs to both. */
const MASS_ONLY: readonly (keyof MassOptions)[] = [
  ...(['rule', 'reliability', 'renormalize', 'dropBelow', 'frame', 'allSubsets'] as const),
  ...(['sourceColumn', 'massColumn', 'caseColumn'] as const),
];
const ALLOY_ONLY: readonly (keyof AlloyOptions)[] = [
  ...([
    'candidates',
    'evaluate',
    'experts',
    'maxSubstitution',
    'alpha',
    'variant',
    'positive',
    'baselinePrior',
  ] as const),
  ...(['discount', 'dataDiscount', 'scores', 'folds', 'splits', 'testShare', 'clusters', 'substitution'] as const),
  ...(['labelColumn', 'weightColumn'] as const),
];

const collect = (text: string, previous?: string[]): string[] => [...(previous ?? []), text];

/** Declares `surprisal fuse evidence`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option(
      '--rule <name>',
      `all, or of ${RULES.map(({ name }) => name).join(', ')}; repeatable (default dempster)`,
      collect,
    )
    .option('--reliability <source=r>', 'reliability by which a source is discounted first; repeatable', collect)
    .option('--renormalize', 'divide the masses of a source by their sum instead of refusing another one than 1')
    .option('--drop-below <mass>', 'focal sets below it give their mass to the frame (default 0: none)')
    .option('--frame <names>', 'elements beside those that the data name, separated by commas')
    .option('--all-subsets', 'rows of all subsets, not of focal sets and single elements alone')
    .option('--source-column <name>', 'column of the source (default source)')
    .option('--set-column <name>', 'column of the set, A|C (default set; of alloys set_name, set or alloy)')
    .option('--mass-column <name>', 'column of the mass (default mass)')
    .option('--case-column <name>', 'column of the case, where many fusions run at once (default case or id)')
    .option('--alloys <file.csv>', 'alloys with labels: learn which elements replace one another')
    .option('--candidates <file.csv>', 'alloys: sets whose label is asked for')
    .option('--evaluate <how>', `alloys: hold rows out: ${EVALUATIONS.join(', ')} (loo)`)
    .option('--experts <file.csv>', 'alloys: what experts say on pairs of elements; repeatable', collect)
    .option('--max-substitution <n>', 'alloys: largest number of elements exchanged, 1 or 2 (default 1)')
    .option('--alpha <a>', 'alloys: mass of the evidence of one pair of alloys (default 0.1)')
    .option('--variant <name>', `alloys: version of the authors' code: ${VERSIONS.join(', ')} (default v1)`)
    .option('--positive <label>', 'alloys: label of interest (default High, else the first)')
    .option('--baseline-prior <p>', 'alloys: prior of that label where nothing is known, or frequency (default equal)')
    .option('--discount <when>', 'alloys: discount the data once, or after each piece (default once)')
    .option('--data-discount <r>', 'alloys: reliability of the data beside experts (default 2/3)')
    .option('--scores <source=s>', 'alloys: scores of dataset and experts; found on folds when absent', collect)
    .option('--folds <n>', 'alloys: folds that score the sources (default 10)')
    .option('--splits <n>', 'alloys: random splits (default 10)')
    .option('--test-share <x>', 'alloys: share of rows held out by random splits (default 0.2)')
    .option('--clusters <n>', 'alloys: clusters of elements to name')
    .option('--substitution <file.csv>', 'alloys: table of the evidence on every substitution')
    .option('--label-column <name>', 'alloys: column of the label (default Label)')
    .option('--weight-column <name>', 'alloys: column of the weight of a row (default weight, where it is there)')
    .action(async () => {
      const options = { ...(await read()), shard: undefined };
      process.exitCode = await run(options, command.opts<OwnOptions>());
    });
}

type Options = Parameters<typeof runAlloys>[0] & { readonly data: readonly string[] };

async function run(options: Options, own: OwnOptions): Promise<number> {
  if (own.alloys !== undefined) {
    if (options.data.length > 0) throw new InputError('--data and --alloys: one of them at a time');
    const stray = MASS_ONLY.find((name) => own[name] !== undefined);
    if (stray !== undefined) throw new InputError(`${flagOf(stray)} is for mass functions (--data), not for --alloys`);
    return runAlloys(options, own.alloys, own);
  }
  const stray = ALLOY_ONLY.find((name) => own[name] !== undefined);
  if (stray !== undefined) throw new InputError(`${flagOf(stray)} has no meaning without --alloys`);
  if (options.table !== undefined) throw new InputError('--table has no meaning without --alloys');
  return runMasses(options, requireOption(options.data, '--data', 'a table of masses, or alloys by --alloys'), own);
}
