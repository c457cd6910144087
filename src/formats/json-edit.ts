/** One entry of an object of a JSON text, as it is written there. */
interface RawEntry {
  readonly key: string;
  /** The value's own text. */
  readonly text: string;
}

/** The place behind the string that begins at `at`. */
function stringEnd(json: string, at: number): number {
  let end = at + 1;
  while (json[end] !== '"') end += json[end] === '\\' ? 2 : 1;
  return end + 1;
}

/** The place behind the value that begins at `at`. */
function valueEnd(json: string, at: number): number {
  if (json[at] === '"') return stringEnd(json, at);
  if (json[at] !== '{' && json[at] !== '[') {
    let end = at;
    while (end < json.length && !/[\s,\]}]/.test(json[end])) end++;
    return end;
  }
  let depth = 0;
  for (let i = at; ; ) {
    const c = json[i];
    if (c === '"') {
      i = stringEnd(json, i);
      continue;
    }
    if (c === '{' || c === '[') depth++;
    if (c === '}' || c === ']') depth--;
    i++;
    if (depth === 0) return i;
  }
}

function entriesOf(json: string): RawEntry[] {
  const skip = (from: number): number => {
    let at = from;
    while (/[\s,:]/.test(json[at])) at++;
    return at;
  };
  const entries: RawEntry[] = [];
  for (let at = skip(json.indexOf('{') + 1); json[at] !== '}'; ) {
    const keyEnd = stringEnd(json, at);
    const start = skip(keyEnd);
    const end = valueEnd(json, start);
    entries.push({ key: JSON.parse(json.slice(at, keyEnd)) as string, text: json.slice(start, end) });
    at = skip(end);
  }
  return entries;
}

/** New values by key; undefined leaves a key out. */
export type JsonChanges = Readonly<Record<string, unknown>>;

/**
 * A JSON object with keys replaced, left out or added at the end, two spaces of indent. What is not changed keeps its text: a
 * parsed and printed 0.0 would become 0, which readers that tell integers from floats refuse.
 * @param json text that `JSON.parse` accepts, an object
 * @param nested changes of objects inside it, by their keys
 */
export function editJson(
  json: string,
  changes: JsonChanges,
  nested: Readonly<Record<string, JsonChanges>> = {},
  indent = '',
): string {
  const inner = `${indent}  `;
  const print = (value: unknown): string => JSON.stringify(value, null, 2).replaceAll('\n', `\n${inner}`);
  const present = entriesOf(json);
  const kept = present.flatMap(({ key, text }) => {
    if (Object.hasOwn(nested, key)) return [{ key, text: editJson(text, nested[key], {}, inner) }];
    if (!Object.hasOwn(changes, key)) return [{ key, text }];
    return changes[key] === undefined ? [] : [{ key, text: print(changes[key]) }];
  });
  const added = Object.entries(changes)
    .filter(([key, value]) => value !== undefined && !present.some((entry) => entry.key === key))
    .map(([key, value]) => ({ key, text: print(value) }));
  const lines = [...kept, ...added].map(({ key, text }) => `${inner}${JSON.stringify(key)}: ${text}`);
  return lines.length === 0 ? '{}' : `{\n${lines.join(',\n')}\n${indent}}`;
}
