import { readFileSync } from 'node:fs';

/** A JSON file of fixtures/tokenizers. */
export function readFixture<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../fixtures/tokenizers/${name}`, import.meta.url), 'utf8')) as T;
}

/** FNV-1a of ids as 32-bit words, as make.py writes them. */
export function fnv1a(ids: ArrayLike<number>): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < ids.length; i++) hash = Math.imul(hash ^ ids[i], 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

export const lines = readFixture<string[]>('lines.json');
