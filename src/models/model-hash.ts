import { createHash } from 'node:crypto';
import { sha256Files } from '../formats/hash.js';

/**
 * SHA-256 over the digests of a model's weight files and `config.json`: what the activations of a text depend on. Equal
 * hashes, equal statistics of equal text.
 * @throws InputError when files cannot be read
 */
export async function hashModel(path: string): Promise<string> {
  const hash = createHash('sha256');
  for (const { name, sha256 } of await sha256Files(path)) {
    if (/\.(safetensors|gguf)$/.test(name) || name === 'config.json') hash.update(`${name}:${sha256}\n`);
  }
  return hash.digest('hex');
}
