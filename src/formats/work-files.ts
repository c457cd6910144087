import { createHash } from 'node:crypto';
import fs from 'node:fs';

/** The key at which two JSON values differ first, parts joined by dots; undefined when they are equal. For messages. */
export function differingKey(before: unknown, now: unknown, at = ''): string | undefined {
  if (JSON.stringify(before) === JSON.stringify(now)) return undefined;
  const objects = [before, now].every((value) => typeof value === 'object' && value !== null);
  if (!objects) return at;
  const [a, b] = [before, now] as [Record<string, unknown>, Record<string, unknown>];
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const inner = differingKey(a[key], b[key], at === '' ? key : `${at}.${key}`);
    if (inner !== undefined) return inner;
  }
  return at;
}

/** A JSON file that an interrupted run left; undefined when it is missing or was cut off. */
export function readWorkFile(file: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

/** SHA-256, hexadecimal. */
export function hashBytes(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
