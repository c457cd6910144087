import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import {
  type CrossEntropyOptions,
  type CrossEntropyRound,
  crossEntropyMethodAsync,
} from '../src/optimization/cross-entropy-method.js';
import { rareEventProbabilityAsync } from '../src/optimization/rare-event.js';
import { createRandom } from '../src/random.js';
import type { Cell } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { checkZetaBox, type ZetaBox } from '../src/zeta/zero-search.js';
import { LARGEST_T, zetaRelativeError } from '../src/zeta/zeta-function.js';
import {
  EXPLORE_ZETA,
  PROPOSAL_KINDS,
  type ProposalKind,
  type ZetaArguments,
  type ZetaResult,
} from '../src/zeta/zeta-job.js';
import {
  ESTIMATE_COLUMNS,
  estimateBody,
  estimateRows,
  levelRow,
  optimumBody,
  roundColumns,
  roundRow,
  ZERO_COLUMNS,
  ZETA_NOTICE,
  ZETA_SCHEMA,
  zeroRows,
  zetaBody,
  zetaRoundRows,
  zetaWarnings,
} from '../src/zeta/zeta-report.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { openScore, SCORE_NAMES, type ScoreSource } from './score-source.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'maxMemory'), 'table'] as const;
const MODES = ['zeros', 'optimize', 'rare-event'] as const;
type Mode = (typeof MODES)[number];
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions {
  score?: string;
  mode?: string;
  t?: string;
  sigma?: string;
  precision?: string;
  eps?: string;
  region?: string;
  proposal?: string;
  level?: string;
  variable?: string[];
  dimensions?: string;
  glass?: string;
  components?: string;
  samples?: string;
  finalSamples?: string;
  rho?: string;
  alpha?: string;
  rounds?: string;
  tolerance?: string;
  floor?: string;
  floorDecay?: string;
  restarts?: string;
  defensive?: string;
}

/** Declares `surprisal steer zeta`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--mode <mode>', `${MODES.join(', ')} (default zeros for zeta, optimize for other scores)`)
    .option('--score <name>', `what is maximised: ${SCORE_NAMES.join(', ')} (default zeta: -ln |zeta|)`)
    .option('--t <low,high>', 'zeta: imaginary parts of the box (default 10,50)')
    .option('--sigma <low,high>', 'zeta: real parts of the box (default 0,1)')
    .option('--precision <error>', 'zeta: largest relative error of its values that is accepted (default 1e-9)')
    .option('--eps <list>', 'zeta, rare-event: P(|zeta| < eps) for each (default 0.1,0.01,0.001)')
    .option('--region <name>', 'zeta, rare-event: line, strip or both (default both)')
    .option(
      '--proposal <name>',
      'zeta, rare-event: basins of the zeros found, or levels that do not know them (default basins)',
    )
    .option('--level <gamma>', 'rare-event of other scores: P(score >= gamma)')
    .option(
      '--variable <definition>',
      'command: x=low:high, x=low:high:log, x=a|b|c, x=flag or x=exp:mean; repeatable',
      (text: string, previous?: string[]) => [...(previous ?? []), text],
    )
    .option('--dimensions <n>', 'rosenbrock: coordinates (default 2); ising: side of the lattice (default 6)')
    .option('--glass <seed>', 'ising: couplings +1 and -1 drawn from this seed (default: all 1)')
    .option('--components <n>', 'other scores: laws of a mixture (default 1)')
    .option('--samples <n>', 'points a round or level (default 100; rare-event 2000)')
    .option('--final-samples <n>', 'rare-event: points of the estimate (default 10000)')
    .option('--rho <share>', 'elite share (default 0.1)')
    .option('--alpha <weight>', 'smoothing: weight of the elite (default 0.8)')
    .option('--rounds <n>', 'rounds or levels at most (default 50)')
    .option(
      '--tolerance <sd>',
      'stop when every deviation is below (default 1e-6; searches of zeros 1e-3, then Newton)',
    )
    .option('--floor <sd>', 'least deviation of the first round (default none)')
    .option('--floor-decay <factor>', 'factor of the floor a round (default 0.7)')
    .option('--restarts <n>', 'runs begun anew after one converged or stalled (default 0)')
    .option('--defensive <share>', 'rare-event: share of draws from the nominal law (default 0.1)')
    .addHelpText('after', `\nA ${ZETA_NOTICE}.\n`);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

function range(flag: string, text: string): [number, number] {
  const parts = text.split(',').map((part) => parseNumber(flag, part));
  if (parts.length === 2 && parts[0] < parts[1]) return [parts[0], parts[1]];
  throw new InputError(`${flag} ${text}: two numbers low,high with low < high are needed`);
}

const positive = (flag: string, text: string): number => {
  const value = parseNumber(flag, text, 0);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: a number above 0 is needed`);
};

type SearchSettings = Omit<CrossEntropyOptions, 'law' | 'box'> & {
  readonly samples: number;
  readonly eliteShare: number;
  readonly smoothing: number;
  readonly maxRounds: number;
};

function searchSettings(own: OwnOptions, mode: Mode, isZeta: boolean): SearchSettings {
  if (own.floorDecay !== undefined && own.floor === undefined) throw new InputError('--floor-decay needs --floor');
  const tolerance = isZeta && mode !== 'optimize' ? '1e-3' : '1e-6';
  return {
    samples: parseInteger('--samples', own.samples ?? (mode === 'rare-event' && !isZeta ? '2000' : '100'), 2),
    eliteShare: parseNumber('--rho', own.rho ?? '0.1', Number.MIN_VALUE, 1),
    smoothing: parseNumber('--alpha', own.alpha ?? '0.8', Number.MIN_VALUE, 1),
    maxRounds: parseInteger('--rounds', own.rounds ?? '50', 1),
    deviationTolerance: positive('--tolerance', own.tolerance ?? tolerance),
    ...(own.floor !== undefined && {
      floor: {
        deviation: positive('--floor', own.floor),
        decay: parseNumber('--floor-decay', own.floorDecay ?? '0.7', 0, 1),
      },
    }),
    restarts: parseInteger('--restarts', own.restarts ?? '0'),
  };
}

/** Options that a combination of score and mode does not read are refused. */
function refuseStrays(own: OwnOptions, mode: Mode, isZeta: boolean): void {
  const zetaOnly = ['t', 'sigma', 'precision', 'eps', 'region', 'proposal'] as const;
  const otherOnly = ['level', 'variable', 'dimensions', 'glass', 'components'] as const;
  const rareOnly = ['eps', 'region', 'proposal', 'level', 'finalSamples', 'defensive'] as const;
  // A probability without a search before it reads nothing that steers one.
  const searchOnly = !isZeta && mode === 'rare-event' ? (['tolerance', 'floor', 'restarts'] as const) : [];
  for (const name of isZeta ? otherOnly : zetaOnly) {
    if (own[name] !== undefined)
      throw new InputError(`${flagOf(name)} is not read with --score ${own.score ?? 'zeta'}`);
  }
  for (const name of [...(mode === 'rare-event' ? [] : rareOnly), ...searchOnly]) {
    if (own[name] !== undefined) throw new InputError(`${flagOf(name)} is not read with --mode ${mode}`);
  }
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const score = own.score ?? 'zeta';
  const isZeta = score === 'zeta';
  if (!score.startsWith('command:')) parseChoice('--score', score, ['zeta', 'rosenbrock', 'ising']);
  const mode = parseChoice('--mode', own.mode ?? (isZeta ? 'zeros' : 'optimize'), MODES);
  if (mode === 'zeros' && !isZeta) throw new InputError(`--mode zeros belongs to --score zeta, not to ${score}`);
  if (options.table !== undefined && mode === 'optimize') {
    throw new InputError('--table holds zeros or estimates, which --mode optimize has not; --out has its rounds');
  }
  refuseStrays(own, mode, isZeta);
  return isZeta ? runZeta(options, own, mode) : runScore(options, own, score, mode);
}

const tableColumns = (mode: Mode): readonly string[] => (mode === 'zeros' ? ZERO_COLUMNS : ESTIMATE_COLUMNS);

function zetaArguments(own: OwnOptions, options: Options, mode: Mode): ZetaArguments {
  const box: ZetaBox = { sigma: range('--sigma', own.sigma ?? '0,1'), t: range('--t', own.t ?? '10,50') };
  checkZetaBox(box, mode !== 'optimize');
  const precision = positive('--precision', own.precision ?? '1e-9');
  const farthest = Math.max(Math.abs(box.t[0]), Math.abs(box.t[1]));
  if (farthest > LARGEST_T) throw new InputError(`--t ${own.t}: zeta is summed for |t| up to ${LARGEST_T}`);
  const error = zetaRelativeError(box.sigma[0], farthest);
  if (error > precision) {
    throw new InputError(`--precision ${precision}: at t = ${farthest} values are good to ${error.toExponential(1)}`);
  }
  const search = searchSettings(own, mode, true);
  const region = parseChoice('--region', own.region ?? 'both', ['line', 'strip', 'both']);
  return {
    mode,
    box,
    search: { ...search, seed: options.seed },
    ...(mode === 'rare-event' && {
      rareEvent: {
        eps: (own.eps ?? '0.1,0.01,0.001').split(',').map((part) => positive('--eps', part.trim())),
        proposal: parseChoice<ProposalKind>('--proposal', own.proposal ?? 'basins', PROPOSAL_KINDS),
        regions: region === 'both' ? ['line', 'strip'] : [region],
        samples: own.samples === undefined ? 2000 : search.samples,
        finalSamples: parseInteger('--final-samples', own.finalSamples ?? '10000', 2),
        eliteShare: search.eliteShare,
        smoothing: search.smoothing,
        maxLevels: search.maxRounds,
        defensive: parseNumber('--defensive', own.defensive ?? '0.1', 0, 0.99),
      },
    }),
    grid: options.plot === undefined ? [0, 0] : [200, 60],
  };
}

async function runZeta(options: Options, own: OwnOptions, mode: Mode): Promise<number> {
  const args = zetaArguments(own, options, mode);
  const { rareEvent, search, box } = args;
  const parameters: Record<string, ReportValue> = {
    score: 'zeta',
    ...searchParameters(search),
    sigma: [...box.sigma],
    t: [...box.t],
    precision: Number(own.precision ?? '1e-9'),
    mode,
    ...(rareEvent && {
      eps: [...rareEvent.eps],
      regions: [...rareEvent.regions],
      proposal: rareEvent.proposal,
      level_samples: rareEvent.samples,
      final_samples: rareEvent.finalSamples,
      defensive: rareEvent.defensive,
    }),
    seed: options.seed,
  };
  const view = {
    name: ZETA_SCHEMA,
    command: 'steer zeta',
    columns: roundColumns(['sigma', 't']),
    tableColumns: tableColumns(mode),
    unit: 'tiles',
    inputs: [],
    parameters,
    subtitle: `t ${box.t.join(' to ')}, σ ${box.sigma.join(' to ')}`,
  };
  return runAnalysis(
    view,
    { ...options, maxMemory: Number.POSITIVE_INFINITY, shard: undefined },
    {
      async plan() {
        return [
          ['mode', mode],
          ['box', view.subtitle],
          ['points a round', search.samples ?? 100],
          ['terms of zeta at the upper end', Math.max(10, Math.ceil(0.6 * box.t[1]) + 2)],
        ];
      },
      async measure(context): Promise<AnalysisOutcome> {
        context.progress.setTotal(1000);
        const result = await context.run(EXPLORE_ZETA, args, (share) =>
          context.progress.update(Math.round(1000 * Number(share))),
        );
        for (const warning of zetaWarnings(result)) context.warn(warning);
        const estimates = result.estimates.map((row) => estimateBody(row.found, -Math.log(row.eps), row));
        return {
          body: zetaBody(result, mode, box),
          rows: () => zetaRoundRows(result),
          tableRows: () => (mode === 'zeros' ? zeroRows(result.zeros?.zeros ?? []) : estimateRows(estimates)),
          figure: async (subtitle) => (await import('../src/zeta/zeta-plot.js')).drawZeta(result, box, subtitle),
          summary: { header: ['figure', 'value'], rows: zetaSummary(result) },
        };
      },
    },
  );
}

function searchParameters(search: Omit<CrossEntropyOptions, 'law' | 'box'>): Record<string, ReportValue> {
  return {
    samples: search.samples ?? null,
    rho: search.eliteShare ?? null,
    alpha: search.smoothing ?? null,
    rounds: search.maxRounds ?? null,
    tolerance: search.deviationTolerance ?? null,
    floor: search.floor ? { deviation: Number(search.floor.deviation), decay: search.floor.decay ?? null } : null,
    restarts: search.restarts ?? 0,
  };
}

function zetaSummary({ zeros, optimum, estimates }: ZetaResult): SummaryCell[][] {
  const rows: SummaryCell[][] = [];
  if (zeros) {
    rows.push(
      ['zeros found', zeros.zeros.length],
      ['expected, N(b) - N(a)', zeros.expected],
      ['missed', zeros.missed.length],
      ['max |sigma - 1/2|', zeros.largestOffLine],
      ['max |t - known|', zeros.largestDifference],
      ['evaluations', zeros.evaluations],
    );
  }
  if (optimum) {
    rows.push(
      ['best -ln |zeta|', optimum.score],
      ['sigma', optimum.polished.sigma],
      ['t', optimum.polished.t],
      ['|zeta| after Newton', optimum.polished.absoluteValue],
      ['rounds', optimum.rounds.length],
    );
  }
  for (const { region, eps, found, exact } of estimates) {
    rows.push([`P(|zeta| < ${eps}), ${region}`, found.estimate]);
    rows.push(['  relative error', found.relativeError]);
    rows.push(['  exact', exact.value ?? exact.reason]);
  }
  return rows;
}

async function runScore(options: Options, own: OwnOptions, score: string, mode: Mode): Promise<number> {
  const source = openScore(score, {
    ...(own.dimensions !== undefined && { dimensions: parseInteger('--dimensions', own.dimensions, 1, 1000) }),
    ...(own.glass !== undefined && { glassSeed: parseInteger('--glass', own.glass) }),
    variables: own.variable ?? [],
    components: parseInteger('--components', own.components ?? '1', 1, 1000),
  });
  const settings = searchSettings(own, mode, false);
  const names = source.variables.map(({ name }) => name);
  const view = {
    name: ZETA_SCHEMA,
    command: 'steer zeta',
    columns: roundColumns(names),
    tableColumns: tableColumns(mode),
    unit: 'rounds',
    inputs: [],
    parameters: {
      score,
      ...searchParameters(settings),
      mode,
      variables: source.variables.map((variable): ReportValue => ({ ...variable })),
      components: Number(own.components ?? '1'),
      glass: own.glass === undefined ? null : Number(own.glass),
      level: own.level === undefined ? null : Number(own.level),
      final_samples: mode === 'rare-event' ? Number(own.finalSamples ?? '10000') : null,
      defensive: mode === 'rare-event' ? Number(own.defensive ?? '0.1') : null,
      seed: options.seed,
    },
    subtitle: `${score}, ${names.length} variables`,
  };
  return runAnalysis(
    view,
    { ...options, maxMemory: Number.POSITIVE_INFINITY, shard: undefined },
    {
      async plan() {
        return [
          ['mode', mode],
          ['score', score],
          ['variables', names.join(', ')],
          ['points a round', settings.samples],
        ];
      },
      measure: (context) =>
        mode === 'optimize'
          ? optimise(context, source, settings, options.seed)
          : estimateScore(context, source, settings, own, options.seed),
    },
  );
}

const scoreBody = (mode: Mode, source: ScoreSource): object => ({
  mode,
  score: source.name,
  notice: null,
  box: null,
  zeros: null,
});

async function optimise(
  context: AnalysisContext,
  source: ScoreSource,
  settings: SearchSettings,
  seed: number,
): Promise<AnalysisOutcome> {
  const { law, box } = source.space;
  const rounds: CrossEntropyRound[] = [];
  context.progress.setTotal(settings.maxRounds);
  const found = await crossEntropyMethodAsync(source.score, createRandom(seed), { ...settings, law, box }, (round) => {
    rounds.push(round);
    context.progress.update(rounds.length);
  });
  const names = source.variables.map(({ name }) => name);
  const best = source.space.assignment(found.point);
  const warnings = Number.isFinite(found.score) ? [] : ['no point had a score that is a number'];
  for (const warning of warnings) context.warn(warning);
  return {
    body: {
      ...scoreBody('optimize', source),
      optimum: { ...optimumBody(found, best), polished: null },
      estimates: [],
      warnings,
    },
    rows: () => rounds.map((round): Cell[] => roundRow('optimize', round, names)),
    async figure(subtitle) {
      const { roundPanels } = await import('../src/zeta/zeta-plot.js');
      return {
        title: 'Cross-entropy search',
        subtitle,
        headline: [{ label: 'best score', value: found.score }],
        panels: await roundPanels(rounds),
        sections: [],
      };
    },
    summary: {
      header: ['figure', 'value'],
      rows: [
        ['best score', found.score],
        ['evaluations', found.evaluations],
        ['converged', String(found.converged)],
        ...Object.entries(best)
          .slice(0, 20)
          .map(([name, value]): SummaryCell[] => [name, typeof value === 'boolean' ? String(value) : value]),
      ],
    },
  };
}

async function estimateScore(
  context: AnalysisContext,
  source: ScoreSource,
  settings: SearchSettings,
  own: OwnOptions,
  seed: number,
): Promise<AnalysisOutcome> {
  const level = parseNumber('--level', requireOption(own.level, '--level', 'the score gamma of the event'));
  const found = await rareEventProbabilityAsync(source.score, createRandom(seed), {
    nominal: source.space.nominal,
    proposal: source.space.law,
    level,
    samples: settings.samples,
    eliteShare: settings.eliteShare,
    smoothing: settings.smoothing,
    maxLevels: settings.maxRounds,
    finalSamples: parseInteger('--final-samples', own.finalSamples ?? '10000', 2),
    defensive: parseNumber('--defensive', own.defensive ?? '0.1', 0, 0.99),
  });
  const names = source.variables.map(({ name }) => name);
  const warnings = [
    ...(found.reached ? [] : [`the levels ran out at ${found.levels[found.levels.length - 1]?.level} of ${level}`]),
    ...(found.hits === 0 ? ['no draw fell in the event'] : []),
  ];
  for (const warning of warnings) context.warn(warning);
  const body = estimateBody(found, level);
  return {
    body: { ...scoreBody('rare-event', source), optimum: null, estimates: [body], warnings },
    rows: () => found.levels.map((row, i) => levelRow('space', i, row, names)),
    tableRows: () => estimateRows([body]),
    async figure(subtitle) {
      const { levelPanel } = await import('../src/zeta/zeta-plot.js');
      return {
        title: 'Levels of a rare event',
        subtitle,
        headline: [{ label: 'probability', value: found.estimate, standardError: found.standardError }],
        panels: [await levelPanel(found.levels, level)],
        sections: [],
      };
    },
    summary: {
      header: ['figure', 'value'],
      rows: [
        ['probability', found.estimate],
        ['standard error', found.standardError],
        ['relative error', found.relativeError],
        ['effective sample size', found.effectiveSampleSize],
        ['levels', found.levels.length],
      ],
    },
  };
}
