import type { DumpReport } from '../../rollouts/dump-report.js';
import type { MethodChoice } from '../comparison.js';
import { findIntervention } from '../registry.js';
import type { DetailResult } from './details-job.js';
import { METHOD_DETAILS } from './method-details.js';
import type { DetailJson } from './types.js';

export const DETAILS_SCHEMA = 'policy-intervention-details';

export interface DetailsBody {
  readonly dump: DumpReport;
  readonly method: string;
  readonly title: string;
  readonly reference: string;
  readonly settings: Readonly<Record<string, number | string>>;
  readonly tables: readonly {
    readonly name: string;
    readonly title: string;
    readonly file: string;
    readonly rows: number;
  }[];
  /** Figures of the method: its own part of the schema. */
  readonly figures: { readonly [key: string]: DetailJson };
  readonly warnings: readonly string[];
}

/** Body of the report of `--details`. */
export function detailsBody({ name, settings }: MethodChoice, result: DetailResult): DetailsBody {
  const { title, reference } = findIntervention(name);
  return {
    dump: result.dump,
    method: name,
    title,
    reference,
    settings,
    tables: METHOD_DETAILS[name].tables.map((table) => ({
      name: table.name,
      title: table.title,
      file: `${table.name}.${table.form}`,
      rows: result.rows[table.name],
    })),
    figures: result.report,
    warnings: result.warnings,
  };
}

/** The figures that are single values, for a table: key and value; those of nested objects with dots. */
export function figureRows(figures: DetailsBody['figures'], prefix = ''): [string, number | string | boolean | null][] {
  return Object.entries(figures).flatMap(([key, value]): [string, number | string | boolean | null][] => {
    if (value === null || typeof value !== 'object') return [[`${prefix}${key}`, value]];
    return isList(value) ? [] : figureRows(value, `${prefix}${key}.`);
  });
}

function isList(value: DetailJson): value is readonly DetailJson[] {
  return Array.isArray(value);
}
