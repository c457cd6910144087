import { isDeepStrictEqual } from 'node:util';
import { InputError } from '../errors.js';
import { buildReport, type Report } from './json.js';
import type { ReportValue } from './values.js';

/** The report of one shard: the report of its documents, and beside it `shard` and the mergeable `partial`. */
export interface PartialReport {
  /** File, for messages. */
  readonly path: string;
  readonly report: Report;
  readonly shard: { readonly index: number; readonly count: number };
  /** Sums, counts and sketches as the analysis wrote them; what is in it only the analysis knows. */
  readonly partial: unknown;
}

export type ReportBody = { readonly [key: string]: ReportValue };

/**
 * Makes the body of the unsharded report from all parts in shard order. It must go through the same function that
 * makes the body of an unsharded run, so that the bytes are equal.
 */
export type MergeBody = (parts: readonly PartialReport[]) => ReportBody | Promise<ReportBody>;

/** Names the place where two JSON values differ first, or undefined when they are equal. */
function firstDifference(a: unknown, b: unknown, path: string): string | undefined {
  if (isDeepStrictEqual(a, b)) return undefined;
  if (
    typeof a === 'object' &&
    typeof b === 'object' &&
    a !== null &&
    b !== null &&
    Array.isArray(a) === Array.isArray(b)
  ) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const left = (a as Record<string, unknown>)[key];
      const right = (b as Record<string, unknown>)[key];
      const found = firstDifference(left, right, `${path}.${key}`);
      if (found) return found;
    }
  }
  return `${path}: ${JSON.stringify(a) ?? 'missing'} and ${JSON.stringify(b) ?? 'missing'}`;
}

/** What must be the same in all parts of one run; `model` is the subject with its hash, where the report has one. */
const COMMON_KEYS = ['schema', 'schema_version', 'tool', 'command', 'parameters', 'inputs', 'model'] as const;

function asPartial(path: string, report: Report): PartialReport {
  const shard = report.shard as { index?: unknown; count?: unknown } | undefined;
  const { index, count } = shard ?? {};
  const sound =
    Number.isInteger(index) &&
    Number.isInteger(count) &&
    (index as number) >= 0 &&
    (index as number) < (count as number);
  if (!sound || report.partial === undefined) {
    throw new InputError(`${path}: is no partial report (no "shard" with "partial"); write parts with --shard i/n`);
  }
  return { path, report, shard: { index: index as number, count: count as number }, partial: report.partial };
}

/** `0, 3, 5-7` */
function ranges(indices: readonly number[]): string {
  const texts: string[] = [];
  for (let i = 0; i < indices.length; ) {
    let j = i;
    while (j + 1 < indices.length && indices[j + 1] === indices[j] + 1) j++;
    texts.push(j > i ? `${indices[i]}-${indices[j]}` : String(indices[i]));
    i = j + 1;
  }
  return texts.join(', ');
}

/**
 * The parts of one run in shard order.
 * @throws InputError when a file is no partial report, parts disagree in what must be common (it names the key and both
 *   values), a shard stands twice, or shards are missing (it names them)
 */
export function orderParts(reports: readonly { readonly path: string; readonly report: Report }[]): PartialReport[] {
  if (reports.length === 0) throw new InputError('no partial report to unite; name the files that --report wrote');
  const parts = reports.map(({ path, report }) => asPartial(path, report));
  const [first] = parts;
  const byIndex = new Map<number, PartialReport>();
  for (const part of parts) {
    if (part.shard.count !== first.shard.count) {
      throw new InputError(
        `${part.path} is one of ${part.shard.count} shards, ${first.path} one of ${first.shard.count}; unite parts of one run`,
      );
    }
    for (const key of COMMON_KEYS) {
      const difference = firstDifference(first.report[key], part.report[key], key);
      if (difference)
        throw new InputError(`${first.path} and ${part.path} are not parts of one run: they differ in ${difference}`);
    }
    const twin = byIndex.get(part.shard.index);
    if (twin)
      throw new InputError(`${twin.path} and ${part.path} are both shard ${part.shard.index} of ${part.shard.count}`);
    byIndex.set(part.shard.index, part);
  }
  const missing: number[] = [];
  for (let i = 0; i < Math.min(first.shard.count, parts.length + 1000); i++) if (!byIndex.has(i)) missing.push(i);
  if (missing.length > 0) {
    throw new InputError(`shard ${ranges(missing)} of ${first.shard.count} is missing; run it, or name its report`);
  }
  return parts.sort((a, b) => a.shard.index - b.shard.index);
}

/**
 * The report of the whole run from its ordered parts: the common head, and the body that `mergeBody` makes.
 */
export async function uniteParts(parts: readonly PartialReport[], mergeBody: MergeBody): Promise<Report> {
  const { schema, tool, command, parameters, inputs } = parts[0].report;
  const body = await mergeBody(parts);
  const head = {
    name: schema.replace(/^surprisal\//, ''),
    tool,
    command,
    parameters: parameters as ReportBody,
    inputs,
  };
  return buildReport(head, body);
}
