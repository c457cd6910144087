import { createHash } from 'node:crypto';
import type { Tokenizer } from './tokenizer.js';

/**
 * SHA-256 of what the ids of a tokenizer stand for: the bytes of every token in order, and whether it is special. Equal
 * digests mean that distributions over ids can be compared; how text is cut into tokens is not part of it.
 */
export function tokenizerDigest(tokenizer: Pick<Tokenizer, 'vocabularySize' | 'tokenBytes' | 'isSpecial'>): string {
  const hash = createHash('sha256');
  const head = Buffer.alloc(5);
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    const bytes = tokenizer.tokenBytes(id);
    head.writeUInt32LE(bytes.length, 0);
    head[4] = tokenizer.isSpecial(id) ? 1 : 0;
    hash.update(head);
    hash.update(bytes);
  }
  return hash.digest('hex');
}

/**
 * The first id that stands for something else in the other tokenizer, of those that both have; undefined when there is
 * none.
 */
export function firstDifference(
  a: Pick<Tokenizer, 'vocabularySize' | 'tokenBytes'>,
  b: Pick<Tokenizer, 'vocabularySize' | 'tokenBytes'>,
): number | undefined {
  const shared = Math.min(a.vocabularySize, b.vocabularySize);
  for (let id = 0; id < shared; id++) {
    if (Buffer.compare(a.tokenBytes(id), b.tokenBytes(id)) !== 0) return id;
  }
  return undefined;
}
