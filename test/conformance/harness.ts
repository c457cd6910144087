import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** A flat row-major tensor as golden files hold it. Infinite and NaN entries are strings. */
export interface GoldenTensor {
  shape: number[];
  dtype: string;
  data: (number | string)[];
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface GoldenCase {
  system: string;
  case: string;
  inputs: { [key: string]: Json };
  expected: Json;
  tolerance: { rtol: number; atol: number };
}

/** What an adapter module exports. It translates names and shapes, and does no mathematics. */
export interface Adapter {
  /**
   * @param inputs the case's inputs
   * @param wanted `expected` with every leaf's value replaced by null: its keys say what is wanted
   */
  run(inputs: { [key: string]: Json }, wanted: Json): unknown | Promise<unknown>;
  /** float32: the computation ran through float32 operators, and the wider rule applies. Default float64. */
  readonly arithmetic?: 'float64' | 'float32';
  /**
   * Leaves that follow from quantities which the cases' inputs do not hold, of all cases or by a case's inputs; they are
   * left out, and the rule says so.
   */
  readonly undetermined?: readonly string[] | ((inputs: { [key: string]: Json }) => readonly string[]);
}

export interface Mismatch {
  entry: string;
  message: string;
  /** How far outside the rule: 1 is on the edge. */
  excess: number;
}

export interface Verdict {
  system: string;
  case: string;
  status: 'ok' | 'FAIL' | 'no adapter';
  rule: string;
  detail: string;
}

const FLOAT32_TOLERANCE = 2e-5;

export function isTensor(value: unknown): value is GoldenTensor {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const { shape, dtype, data } = value as Partial<GoldenTensor>;
  return Array.isArray(shape) && typeof dtype === 'string' && Array.isArray(data);
}

/** `expected` with every leaf (a tensor is one) replaced by null. */
export function blank(value: Json): Json {
  if (Array.isArray(value)) return value.map(blank);
  if (value !== null && typeof value === 'object' && !isTensor(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, blank(entry)]));
  }
  return null;
}

const numberOf = (value: unknown): number | undefined => {
  if (typeof value === 'number') return value;
  if (value === 'inf') return Number.POSITIVE_INFINITY;
  if (value === '-inf') return Number.NEGATIVE_INFINITY;
  if (value === 'nan') return Number.NaN;
  return undefined;
};

/** Spells numbers that JSON lacks, and opens typed arrays, so that a result can be written and compared. */
export function plain(value: unknown): Json {
  if (typeof value === 'number') {
    if (Number.isNaN(value)) return 'nan';
    if (value === Number.POSITIVE_INFINITY) return 'inf';
    if (value === Number.NEGATIVE_INFINITY) return '-inf';
    return value;
  }
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>, plain);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object') {
    const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
    return Object.fromEntries(entries.map(([key, entry]) => [key, plain(entry)]));
  }
  throw new TypeError(`an adapter gave a ${typeof value}`);
}

interface Rule {
  readonly rtol: number;
  readonly atol: number;
  readonly float32: boolean;
}

function compareNumbers(actual: number, expected: number, largest: number, rule: Rule): number {
  if (Number.isNaN(expected)) return Number.isNaN(actual) ? 0 : Number.POSITIVE_INFINITY;
  if (!Number.isFinite(expected)) return actual === expected ? 0 : Number.POSITIVE_INFINITY;
  const error = Math.abs(actual - expected);
  if (Number.isNaN(error)) return Number.POSITIVE_INFINITY;
  const allowed = rule.float32 ? FLOAT32_TOLERANCE * largest : rule.atol + rule.rtol * Math.abs(expected);
  if (error === 0) return 0;
  return allowed === 0 ? Number.POSITIVE_INFINITY : error / allowed;
}

function compareTensor(actual: Json, expected: GoldenTensor, entry: string, rule: Rule, found: Mismatch[]): void {
  const refuse = (message: string): void => {
    found.push({ entry, message, excess: Number.POSITIVE_INFINITY });
  };
  if (!isTensor(actual)) {
    refuse('is not a tensor');
    return;
  }
  if (JSON.stringify(actual.shape) !== JSON.stringify(expected.shape) || actual.data.length !== expected.data.length) {
    refuse(`has shape [${actual.shape}], expected [${expected.shape}]`);
    return;
  }
  if (actual.dtype !== expected.dtype) refuse(`has dtype ${actual.dtype}, expected ${expected.dtype}`);
  let largest = 0;
  for (const value of expected.data) {
    const number = numberOf(value);
    if (number !== undefined && Number.isFinite(number)) largest = Math.max(largest, Math.abs(number));
  }
  let worst: Mismatch | undefined;
  expected.data.forEach((value, i) => {
    const excess = compareNumbers(numberOf(actual.data[i]) ?? Number.NaN, numberOf(value) ?? Number.NaN, largest, rule);
    if (excess > 1 && (worst === undefined || excess > worst.excess)) {
      worst = { entry: `${entry}[${i}]`, message: `is ${actual.data[i]}, expected ${value}`, excess };
    }
  });
  if (worst !== undefined) found.push(worst);
}

function compareEntries(actual: Json, expected: Json, entry: string, rule: Rule, found: Mismatch[]): void {
  const refuse = (message: string): void => {
    found.push({ entry, message, excess: Number.POSITIVE_INFINITY });
  };
  if (isTensor(expected)) {
    compareTensor(actual, expected, entry, rule, found);
    return;
  }
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual) || actual.length !== expected.length) {
      refuse(Array.isArray(actual) ? `has ${actual.length} entries, expected ${expected.length}` : 'is not a list');
      return;
    }
    expected.forEach((value, i) => {
      compareEntries(actual[i], value, `${entry}[${i}]`, rule, found);
    });
    return;
  }
  if (expected !== null && typeof expected === 'object') {
    if (actual === null || typeof actual !== 'object' || Array.isArray(actual)) {
      refuse('is not an object');
      return;
    }
    for (const [key, value] of Object.entries(expected)) {
      const name = entry === '' ? key : `${entry}.${key}`;
      if (key in actual) compareEntries(actual[key], value, name, rule, found);
      else found.push({ entry: name, message: 'is missing', excess: Number.POSITIVE_INFINITY });
    }
    return;
  }
  const expectedNumber = numberOf(expected);
  if (expectedNumber === undefined) {
    if (actual !== expected) refuse(`is ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`);
    return;
  }
  const actualNumber = numberOf(actual);
  if (actualNumber === undefined) {
    refuse(`is ${JSON.stringify(actual)}, expected ${expected}`);
    return;
  }
  const excess = compareNumbers(actualNumber, expectedNumber, Math.abs(expectedNumber), rule);
  if (excess > 1) found.push({ entry, message: `is ${actual}, expected ${expected}`, excess });
}

/** Everything of `expected` that `actual` lacks or misses under the passing rule. */
export function mismatches(
  actual: Json,
  expected: Json,
  tolerance: { rtol: number; atol: number },
  float32 = false,
): Mismatch[] {
  const found: Mismatch[] = [];
  compareEntries(actual, expected, '', { ...tolerance, float32 }, found);
  return found;
}

/** Golden files under the paths, folders searched through, in the order of their names. */
export function goldenFiles(paths: readonly string[]): string[] {
  const files: string[] = [];
  const visit = (path: string): void => {
    if (!statSync(path).isDirectory()) {
      files.push(path);
      return;
    }
    for (const name of readdirSync(path).sort()) {
      const child = join(path, name);
      if (statSync(child).isDirectory() || name.endsWith('.json')) visit(child);
    }
  };
  for (const path of paths) visit(path);
  return files;
}

/** @throws Error naming the file when it is no golden case */
export function readCase(path: string): GoldenCase {
  const parsed = JSON.parse(readFileSync(path, 'utf8')) as Partial<GoldenCase> | null;
  if (
    parsed === null ||
    typeof parsed.system !== 'string' ||
    typeof parsed.case !== 'string' ||
    typeof parsed.inputs !== 'object' ||
    parsed.expected === undefined
  ) {
    throw new Error(`${path}: not a golden case ({system, case, inputs, expected, tolerance})`);
  }
  return { ...(parsed as GoldenCase), tolerance: parsed.tolerance ?? { rtol: 0, atol: 0 } };
}

/** The adapter module of a system, beside this file; undefined when there is none. */
export async function findAdapter(system: string): Promise<Adapter | undefined> {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(system)) return undefined;
  const here = fileURLToPath(import.meta.url);
  const file = join(dirname(here), `${system}${here.endsWith('.ts') ? '.ts' : '.js'}`);
  if (!existsSync(file)) return undefined;
  const module = (await import(pathToFileURL(file).href)) as Partial<Adapter>;
  return typeof module.run === 'function' ? (module as Adapter) : undefined;
}

/** Runs the adapter on a case and gives its result in plain JSON. */
export async function actualOf(golden: GoldenCase, adapter: Adapter): Promise<Json> {
  return plain(await adapter.run(golden.inputs, blank(golden.expected)));
}

const isRecord = (value: Json): value is { [key: string]: Json } =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

/** Runs and judges a case. */
export async function judge(golden: GoldenCase): Promise<Verdict> {
  const base = { system: golden.system, case: golden.case };
  const adapter = await findAdapter(golden.system);
  if (adapter === undefined) return { ...base, status: 'no adapter', rule: '', detail: '' };
  const float32 = adapter.arithmetic === 'float32';
  const { rtol, atol } = golden.tolerance;
  const { undetermined = [] } = adapter;
  const leaves = typeof undetermined === 'function' ? undetermined(golden.inputs) : undetermined;
  const left = leaves.filter((leaf) => isRecord(golden.expected) && leaf in golden.expected);
  const rule =
    (float32 ? `float32 rule: ${FLOAT32_TOLERANCE} of the largest` : `float64 rule: rtol ${rtol}, atol ${atol}`) +
    (left.length > 0 ? `; not determined by the inputs: ${left.join(', ')}` : '');
  let actual: Json;
  try {
    actual = await actualOf(golden, adapter);
  } catch (error) {
    return { ...base, status: 'FAIL', rule, detail: `threw ${error instanceof Error ? error.message : String(error)}` };
  }
  const found = mismatches(actual, golden.expected, golden.tolerance, float32).filter(
    ({ entry }) => !left.includes(entry),
  );
  if (found.length === 0) return { ...base, status: 'ok', rule, detail: '' };
  const worst = found.reduce((a, b) => (b.excess > a.excess ? b : a));
  const excess = Number.isFinite(worst.excess) ? ` (${worst.excess.toPrecision(3)} times the tolerance)` : '';
  const more = found.length > 1 ? `; ${found.length - 1} more` : '';
  return { ...base, status: 'FAIL', rule, detail: `${worst.entry} ${worst.message}${excess}${more}` };
}
