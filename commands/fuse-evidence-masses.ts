import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import { FUSE_MASSES, type MassesArguments, type MassesResult } from '../src/fusion/evidence/masses-job.js';
import {
  EVIDENCE_SCHEMA,
  MASS_COLUMNS,
  massesBody,
  massRows,
  mostProbable,
} from '../src/fusion/evidence/masses-report.js';
import { RULES } from '../src/fusion/evidence/rules.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOptions, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseChoice, parseList, parseNumber } from './edge-values.js';

/** Options of the fusion of mass functions. */
export interface MassOptions {
  rule?: string[];
  reliability?: string[];
  renormalize?: boolean;
  dropBelow?: string;
  frame?: string;
  allSubsets?: boolean;
  sourceColumn?: string;
  setColumn?: string;
  massColumn?: string;
  caseColumn?: string;
}

const RULE_NAMES = RULES.map(({ name }) => name);
const DEFAULT_RULE = 'dempster';
/** Cases that standard output shows. */
const MOST_SHOWN = 20;

function parseRules(given: readonly string[] | undefined): string[] {
  const names = (given ?? [DEFAULT_RULE])
    .flatMap(parseList)
    .map((name) => parseChoice('--rule', name, ['all', ...RULE_NAMES]));
  if (names.length === 0) throw new InputError(`--rule names none; choose from all, ${RULE_NAMES.join(', ')}`);
  return names.includes('all') ? RULE_NAMES : [...new Set(names)];
}

/** `source=r`, also several separated by commas. @throws InputError */
export function parseShares(option: string, given: readonly string[] | undefined): Map<string, number> {
  const shares = new Map<string, number>();
  for (const part of (given ?? []).flatMap(parseList)) {
    const at = part.lastIndexOf('=');
    if (at < 1) throw new InputError(`${option} ${part}: source=number is needed`);
    const name = part.slice(0, at).trim();
    if (shares.has(name)) throw new InputError(`${option} names ${name} twice`);
    shares.set(name, parseNumber(option, part.slice(at + 1), 0, 1));
  }
  return shares;
}

function argumentsOf(own: MassOptions, paths: readonly string[], maxMemoryBytes: number): MassesArguments {
  return {
    paths,
    columns: {
      source: own.sourceColumn ?? 'source',
      set: own.setColumn ?? 'set',
      mass: own.massColumn ?? 'mass',
      ...(own.caseColumn !== undefined && { case: own.caseColumn }),
    },
    frame: own.frame === undefined ? [] : parseList(own.frame),
    rules: parseRules(own.rule),
    reliability: parseShares('--reliability', own.reliability),
    renormalize: own.renormalize === true,
    dropBelow: parseNumber('--drop-below', own.dropBelow ?? '0', 0, 1),
    allSubsets: own.allSubsets === true,
    maxMemoryBytes,
  };
}

/** Fuses the mass functions of `--data`. */
export async function runMasses(options: AnalysisOptions, data: readonly string[], own: MassOptions): Promise<number> {
  const paths = await expandSources([...data]);
  const args = argumentsOf(own, paths, options.maxMemory);
  const parameters: Record<string, ReportValue> = {
    rules: [...args.rules],
    reliability: Object.fromEntries(args.reliability),
    renormalize: args.renormalize,
    drop_below: args.dropBelow,
    frame: [...args.frame],
    all_subsets: args.allSubsets,
  };
  return runAnalysis(
    {
      name: EVIDENCE_SCHEMA,
      command: 'fuse evidence',
      columns: MASS_COLUMNS,
      unit: 'cases',
      inputs: paths,
      parameters,
      subtitle: data.join(', '),
    },
    options,
    {
      measure: (context) => measure(args, context),
      plan: async () => [
        ['masses', paths.join(', ')],
        ['rules', args.rules.join(', ')],
        ['sources with a reliability', [...args.reliability.keys()].join(', ') || 'none'],
      ],
    },
  );
}

async function measure(args: MassesArguments, context: AnalysisContext): Promise<AnalysisOutcome> {
  for (const path of args.paths) context.ledger.note(path);
  const result = await context.run(FUSE_MASSES, args, (value) => {
    const { done, what } = value as { done: number; what: string };
    context.progress.update(done, what);
  });
  for (const warning of result.warnings) context.warn(warning);
  return {
    body: massesBody(result),
    rows: () => massRows(result),
    figure: async (subtitle) => (await import('../src/fusion/evidence/masses-plot.js')).drawMasses(result, subtitle),
    summary: summaryOf(result),
  };
}

function summaryOf({ cases, elements }: MassesResult): AnalysisOutcome['summary'] {
  return {
    header: ['case', 'rule', 'most probable', 'pignistic', 'Deng entropy, bits', 'total conflict'],
    rows: cases.slice(0, MOST_SHOWN).flatMap(({ name, results, conflict }) =>
      results.map((found): SummaryCell[] => {
        const best = mostProbable(found, elements);
        return [
          ...[name, found.rule, best?.element ?? (found.undefined === undefined ? 'none' : 'undefined')],
          ...[best?.probability ?? '', found.uncertainty?.dengBits ?? '', conflict.total],
        ];
      }),
    ),
  };
}
