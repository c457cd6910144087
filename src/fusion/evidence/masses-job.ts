import { InputError } from '../../errors.js';
import type { ComputeReference } from '../../kernels/compute-thread.js';
import { contains, createSetIndex, singleton } from './focal-sets.js';
import { credibilities } from './jousselme.js';
import { discounted, emptyMass, type MassFunction, massFunction, type Source, withoutSmall } from './mass-function.js';
import { type MassCase, type MassColumns, readMassTable } from './mass-table.js';
import {
  type Conflict,
  conflictOf,
  measureSets,
  pignistic,
  type SetMeasures,
  type Uncertainty,
  uncertaintyOf,
} from './measures.js';
import { ruleNamed } from './rules.js';

export interface MassesArguments {
  readonly paths: readonly string[];
  readonly columns: MassColumns;
  /** Elements beside those that the data name. */
  readonly frame: readonly string[];
  /** Names of rules, in order. */
  readonly rules: readonly string[];
  /** Reliability by source; 1 where none is given. */
  readonly reliability: ReadonlyMap<string, number>;
  readonly renormalize: boolean;
  /** Focal sets below this give their mass to the frame, after reading and after every step; 0 keeps all. */
  readonly dropBelow: number;
  /** Rows of all subsets, not of focal sets and single elements alone. */
  readonly allSubsets: boolean;
  readonly maxMemoryBytes: number;
}

export interface RuleResult {
  readonly rule: string;
  /** Why there is none. */
  readonly undefined?: string;
  readonly focalSets: number;
  readonly empty: number;
  readonly uncertainty?: Uncertainty;
  /** Pignistic probability of every element. */
  readonly pignistic: Float64Array;
  /** Words and measures of the sets that the table shows. */
  readonly low: Int32Array;
  readonly high: Int32Array;
  readonly measures?: SetMeasures;
}

export interface CaseResult {
  readonly name: string;
  readonly sources: readonly {
    readonly name: string;
    readonly reliability: number;
    readonly focalSets: number;
    readonly credibility: number;
    readonly uncertainty: Uncertainty;
  }[];
  readonly conflict: Conflict;
  readonly results: readonly RuleResult[];
}

export interface MassesResult {
  readonly elements: readonly string[];
  readonly rules: readonly {
    readonly name: string;
    readonly title: string;
    readonly source: string;
    readonly ordered: boolean;
  }[];
  readonly cases: readonly CaseResult[];
  readonly warnings: readonly string[];
}

/** More elements than this have too many subsets for a table. */
const MOST_LISTED_ELEMENTS = 16;

/** Words and five measures of a set that the table shows. */
const BYTES_A_SET = 48;

/** Reads and fuses. Runs in a thread of its own. */
export async function fuseMasses(
  args: MassesArguments,
  progress: (value: { done: number; what: string }) => void,
): Promise<MassesResult> {
  const table = await readMassTable(args.paths, args.columns, args.frame);
  const { elements } = table.frame;
  if (args.allSubsets && elements.length > MOST_LISTED_ELEMENTS) {
    throw new InputError(`--all-subsets: ${elements.length} elements have too many; at most ${MOST_LISTED_ELEMENTS}`);
  }
  const known = new Set(table.cases.flatMap(({ sources }) => sources.map(({ name }) => name)));
  const stray = [...args.reliability.keys()].find((name) => !known.has(name));
  if (stray !== undefined) {
    throw new InputError(`--reliability of "${stray}", which is no source; sources: ${[...known].join(', ')}`);
  }
  const warnings: string[] = [];
  let sets = 0;
  const cases = table.cases.map((given, i) => {
    if (i % 100 === 0) progress({ done: i, what: given.name });
    const fused = fuseCase(args, given, sourcesOf(args, table.frame, given), warnings);
    for (const { low } of fused.results) sets += low.length;
    if (sets * BYTES_A_SET > args.maxMemoryBytes) {
      throw new InputError(
        `results of the first ${i + 1} of ${table.cases.length} cases fill --max-memory; fewer cases or rules at a time, or --drop-below`,
      );
    }
    return fused;
  });
  const rules = args.rules.map(ruleNamed);
  return {
    elements,
    rules: rules.map(({ name, title, source, ordered }) => ({ name, title, source, ordered })),
    cases,
    warnings,
  };
}

export const FUSE_MASSES: ComputeReference<MassesArguments, MassesResult> = {
  module: import.meta.url,
  job: fuseMasses as ComputeReference<MassesArguments, MassesResult>['job'],
};

const caseText = ({ name }: MassCase): string => (name === '' ? '' : `case ${name}: `);

function sourcesOf(args: MassesArguments, frame: MassFunction['frame'], given: MassCase): Source[] {
  const allowEmpty = args.rules.every((name) => ruleNamed(name).unnormalised === true);
  return given.sources.map(({ name, entries }) => {
    try {
      const read = massFunction(frame, name, entries, { renormalize: args.renormalize, allowEmpty });
      const masses = discounted(read, args.reliability.get(name) ?? 1);
      return { name, masses: withoutSmall(masses, args.dropBelow) };
    } catch (error) {
      throw error instanceof InputError ? new InputError(`${caseText(given)}${error.message}`) : error;
    }
  });
}

function fuseCase(args: MassesArguments, given: MassCase, sources: readonly Source[], warnings: string[]): CaseResult {
  const all = sources.map(({ masses }) => masses);
  const credibility = all.some((masses) => emptyMass(masses) > 0) ? undefined : credibilities(all);
  return {
    name: given.name,
    sources: sources.map(({ name, masses }, s) => ({
      name,
      reliability: args.reliability.get(name) ?? 1,
      focalSets: masses.mass.length,
      credibility: credibility?.[s] ?? Number.NaN,
      uncertainty: uncertaintyOf(masses),
    })),
    conflict: conflictOf(sources),
    results: args.rules.map((name) => {
      try {
        const masses = ruleNamed(name).combine(sources, (step) => withoutSmall(step, args.dropBelow));
        return ruleResult(name, masses, args.allSubsets);
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        const message = `${caseText(given)}${error.message}`;
        // Side by side with other rules the one that is undefined is named; alone it leaves nothing to show.
        if (args.rules.length === 1) throw new InputError(message);
        warnings.push(`${name}: ${message}`);
        return undefinedResult(name, error.message);
      }
    }),
  };
}

const undefinedResult = (rule: string, why: string): RuleResult => ({
  rule,
  undefined: why,
  focalSets: 0,
  empty: 0,
  pignistic: new Float64Array(),
  low: new Int32Array(),
  high: new Int32Array(),
});

function ruleResult(rule: string, masses: MassFunction, allSubsets: boolean): RuleResult {
  const { low, high } = shownSets(masses, allSubsets);
  return {
    rule,
    focalSets: masses.mass.length,
    empty: emptyMass(masses),
    uncertainty: uncertaintyOf(masses),
    pignistic: pignistic(masses),
    low,
    high,
    measures: measureSets(masses, low, high),
  };
}

/** Focal sets and single elements, by size and then by element; or all subsets. */
function shownSets(masses: MassFunction, allSubsets: boolean): { low: Int32Array; high: Int32Array } {
  const n = masses.frame.elements.length;
  const sets = createSetIndex();
  for (let e = 0; e < n; e++) {
    const { low, high } = singleton(e);
    sets.place(low, high);
  }
  if (allSubsets) for (let set = 1; set < 2 ** n; set++) sets.place(set, 0);
  for (let i = 0; i < masses.mass.length; i++) sets.place(masses.low[i], masses.high[i]);
  const members = Array.from({ length: sets.count }, (_, i) => {
    const found: number[] = [];
    for (let e = 0; e < n; e++) if (contains(sets.low[i], sets.high[i], e)) found.push(e);
    return found;
  });
  const order = [...members.keys()].sort((a, b) => {
    const [x, y] = [members[a], members[b]];
    const first = x.findIndex((e, at) => e !== y[at]);
    return x.length - y.length || (first < 0 ? 0 : x[first] - y[first]);
  });
  return { low: Int32Array.from(order, (i) => sets.low[i]), high: Int32Array.from(order, (i) => sets.high[i]) };
}
