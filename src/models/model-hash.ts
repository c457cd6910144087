import { createHash } from 'node:crypto';
import { type HashedFile, sha256Files } from '../formats/hash.js';

/**
 * SHA-256 over the digests of a model's weight files and `config.json`: what the activations of a text depend on. Equal
 * hashes, equal statistics of equal text.
 * @throws InputError when files cannot be read
 */
export async function hashModel(path: string): Promise<string> {
  return hashModelFiles(await sha256Files(path));
}

/** The same of files that are hashed already, as `sha256Files` gives them. */
export function hashModelFiles(files: readonly HashedFile[]): string {
  const hash = createHash('sha256');
  for (const { name, sha256 } of files) {
    if (/\.(safetensors|gguf)$/.test(name) || name === 'config.json') hash.update(`${name}:${sha256}\n`);
  }
  return hash.digest('hex');
}
