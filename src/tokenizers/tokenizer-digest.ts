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
