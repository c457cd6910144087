import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { ErrorObject, ValidateFunction } from 'ajv/dist/2020.js';
import { InputError } from '../errors.js';
import type { AtomicFile } from '../formats/atomic.js';
import type { InputDigest } from '../formats/inputs.js';
import { printJson, type ReportValue, toJsonValue } from './values.js';

/** The version of all report schemas; a change of meaning raises it. */
export const SCHEMA_VERSION = 1;

/** What stands at the head of every report. Nothing here may depend on clock, host, threads or absolute paths. */
export interface ReportHead {
  /** Name of the schema, without the prefix `surprisal/`. */
  readonly name: string;
  readonly tool: { readonly name: string; readonly version: string };
  /** The subcommand, for example `analyze-entropy tokens`. */
  readonly command: string;
  /** Options that decide the result, paths as given. Keys are sorted on writing. */
  readonly parameters: { readonly [key: string]: ReportValue };
  readonly inputs: readonly InputDigest[];
}

/** A report as read back or as it will be written: plain JSON values. */
export interface Report {
  readonly schema: string;
  readonly schema_version: number;
  readonly tool: { readonly name: string; readonly version: string };
  readonly command: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly inputs: readonly InputDigest[];
  readonly [key: string]: unknown;
}

/**
 * Puts head and body together as plain JSON values, in a fixed order of keys: the head, then the body as it was built.
 * Non-finite numbers become the strings `inf`, `-inf`, `nan`.
 */
export function buildReport(head: ReportHead, body: { readonly [key: string]: ReportValue }): Report {
  const parameters: Record<string, ReportValue> = {};
  for (const key of Object.keys(head.parameters).sort()) parameters[key] = head.parameters[key];
  return {
    schema: `surprisal/${head.name}`,
    schema_version: SCHEMA_VERSION,
    tool: { name: head.tool.name, version: head.tool.version },
    command: head.command,
    parameters: toJsonValue(parameters) as Record<string, unknown>,
    inputs: head.inputs.map(({ path, sha256, bytes }) => ({ path, sha256, bytes })),
    ...(toJsonValue(body) as Record<string, unknown>),
  };
}

/** The text of a report. Numbers are printed with the fewest digits that read back to the same f64. */
export function serializeReport(report: Report): string {
  return `${printJson(report)}\n`;
}

/** Sources and compiled output lie at different depths below the package root. */
function schemaPath(name: string): URL | undefined {
  const places = [`./schemas/${name}.schema.json`, `../../../src/report/schemas/${name}.schema.json`];
  return places.map((place) => new URL(place, import.meta.url)).find((url) => existsSync(url));
}

const validators = new Map<string, ValidateFunction>();

function validatorOf(schema: string): ValidateFunction {
  const known = validators.get(schema);
  if (known) return known;
  const url = schemaPath(schema.replace(/^surprisal\//, ''));
  const envelope = schemaPath('envelope');
  if (!url || !envelope) throw new InputError(`no schema named "${schema}" in this version`);
  // Loaded here, since most commands that fail, and many that succeed, write no report.
  const { Ajv2020 } = createRequire(import.meta.url)('ajv/dist/2020.js') as typeof import('ajv/dist/2020.js');
  // The schemas are this package's own and are checked by its tests; code that runs once is not worth optimising.
  const ajv = new Ajv2020({ allowUnionTypes: true, code: { optimize: false }, validateSchema: false, meta: false });
  ajv.addSchema(JSON.parse(readFileSync(envelope, 'utf8')));
  const validator = ajv.compile(JSON.parse(readFileSync(url, 'utf8')));
  validators.set(schema, validator);
  return validator;
}

function describe(error: ErrorObject | undefined): string {
  if (!error) return 'unknown fault';
  const detail = error.keyword === 'additionalProperties' ? ` "${error.params.additionalProperty}"` : '';
  return `${error.instancePath || '/'} ${error.message ?? error.keyword}${detail}`;
}

/**
 * Holds a report against its JSON Schema (draft 2020-12).
 * @throws InputError that names `origin` and the first place that does not fit
 */
export function validateReport(report: Report, origin: string): void {
  const validator = validatorOf(report.schema);
  const fits: boolean = validator(report);
  if (!fits) {
    throw new InputError(`${origin}: does not fit the schema ${report.schema}: ${describe(validator.errors?.[0])}`);
  }
}

/** Validates a report and writes it to an open output; the caller commits. */
export function writeReport(report: Report, file: AtomicFile): void {
  const validator = validatorOf(report.schema);
  const fits: boolean = validator(report);
  // A report of our own that does not fit is a fault of the program, not of the input.
  if (!fits) throw new Error(`report ${report.schema} does not fit its schema: ${describe(validator.errors?.[0])}`);
  file.write(serializeReport(report));
}

/**
 * Reads a report back and validates it when its schema is known here.
 * @throws InputError when the file is missing, not JSON, or no report of this tool
 */
export function readReport(path: string): Report {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new InputError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown fault'})`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError(`${path}: is not JSON; a report written by --report is needed`);
  }
  const report = value as Report | null;
  if (
    typeof report !== 'object' ||
    report === null ||
    typeof report.schema !== 'string' ||
    !report.schema.startsWith('surprisal/')
  ) {
    throw new InputError(`${path}: is no report of surprisal (no "schema": "surprisal/...")`);
  }
  validateReport(report, path);
  return report;
}
