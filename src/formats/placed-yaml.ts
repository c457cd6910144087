import {
  type Alias,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  type YAMLMap,
} from 'yaml';
import { InputError } from '../errors.js';

/** A value of a YAML file that knows where it stands: `file:line:column`. */
export type Placed = PlacedMapping | PlacedList | PlacedScalar;

export interface PlacedMapping {
  readonly kind: 'mapping';
  readonly place: string;
  /** Keys as text, in the order of the file; what a merge key (`<<`) brings in comes last. */
  readonly entries: ReadonlyMap<string, PlacedEntry>;
}

export interface PlacedEntry {
  /** Of the key. */
  readonly place: string;
  readonly value: Placed;
}

export interface PlacedList {
  readonly kind: 'list';
  readonly place: string;
  readonly items: readonly Placed[];
}

export interface PlacedScalar {
  readonly kind: 'scalar';
  readonly place: string;
  readonly value: string | number | boolean | null;
  /** As it is written: `1e-5`, `012`. */
  readonly source: string;
}

/** Aliases let a small file stand for a huge tree, or for an endless one. */
const MOST_VALUES = 100_000;
const DEEPEST = 100;

interface Reading {
  readonly place: (node: Node | undefined, fallback: string) => string;
  readonly resolve: (alias: Alias) => Node | undefined;
  values: number;
  depth: number;
}

/** A scalar or a collection as plain text for a message. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? String(value));
}

function placed(node: unknown, reading: Reading, fallback: string): Placed {
  reading.values++;
  if (reading.values > MOST_VALUES || reading.depth > DEEPEST)
    throw new InputError(`${fallback}: more than ${MOST_VALUES} values or ${DEEPEST} levels; do aliases repeat?`);
  const at = reading.place(node as Node | undefined, fallback);
  reading.depth++;
  const result = valueAt(node, reading, at);
  reading.depth--;
  return result;
}

function valueAt(node: unknown, reading: Reading, at: string): Placed {
  if (isAlias(node)) {
    const target = reading.resolve(node);
    if (target === undefined) throw new InputError(`${at}: the alias *${node.source} has no anchor`);
    return placed(target, reading, at);
  }
  if (isMap(node)) return { kind: 'mapping', place: at, entries: entriesOf(node, reading, at) };
  if (isSeq(node)) return { kind: 'list', place: at, items: node.items.map((item) => placed(item, reading, at)) };
  if (!isScalar(node)) return { kind: 'scalar', place: at, value: null, source: '' };
  const { value, source } = node;
  const written = source ?? textOf(value);
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return { kind: 'scalar', place: at, value, source: written };
  // Dates and big integers of YAML 1.1 are text here: nothing that is read this way has a calendar.
  return { kind: 'scalar', place: at, value: value === null || value === undefined ? null : written, source: written };
}

function entriesOf(map: YAMLMap, reading: Reading, fallback: string): Map<string, PlacedEntry> {
  const entries = new Map<string, PlacedEntry>();
  const merged: Placed[] = [];
  for (const { key, value } of map.items) {
    const place = reading.place(key as Node, fallback);
    if (!isScalar(key)) throw new InputError(`${place}: a key must be a plain text`);
    const name = key.source ?? textOf(key.value);
    const content = placed(value, reading, place);
    if (name === '<<') merged.push(content);
    else entries.set(name, { place, value: content });
  }
  for (const content of merged) {
    for (const part of content.kind === 'list' ? content.items : [content]) {
      if (part.kind !== 'mapping') throw new InputError(`${part.place}: "<<" merges mappings, and this is none`);
      for (const [name, entry] of part.entries) if (!entries.has(name)) entries.set(name, entry);
    }
  }
  return entries;
}

/**
 * Reads the documents of a YAML file with the place of every key and value. YAML 1.1, as PyYAML reads it (`yes` is true,
 * `<<` merges), but numbers such as `1e-5` are numbers. Empty documents are left out.
 * @param file names the file in places and messages
 * @throws InputError with line and column for what is no YAML, and for a key that stands twice
 */
export function readPlacedYaml(text: string, file: string): Placed[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    version: '1.1',
    uniqueKeys: true,
    prettyErrors: false,
  });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const result: Placed[] = [];
  for (const document of Array.isArray(documents) ? documents : []) {
    const fault = document.errors[0];
    if (fault !== undefined) throw new InputError(`${at(fault.pos[0])}: not readable as YAML: ${fault.message}`);
    const root = document.contents;
    if (root === null || (isScalar(root) && root.value === null)) continue;
    result.push(
      placed(
        root,
        {
          place: (node, fallback) => (node?.range ? at(node.range[0]) : fallback),
          resolve: (alias) => alias.resolve(document) as Node | undefined,
          values: 0,
          depth: 0,
        },
        `${file}:1:1`,
      ),
    );
  }
  return result;
}
