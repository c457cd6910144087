import { statSync } from 'node:fs';
import { type HashedFile, sha256Files } from '../src/formats/hash.js';
import type { InputDigest } from '../src/formats/inputs.js';

/** Hashes of the files of a model, or of any directory of tensors, under the name that the user gave. */
export async function modelDigests(
  spec: string,
  location: string,
): Promise<{ readonly digests: InputDigest[]; readonly files: readonly HashedFile[] }> {
  const files = await sha256Files(location);
  const isFile = statSync(location).isFile();
  const named = (name: string): string => (isFile ? spec : `${spec.replace(/\/$/, '')}/${name}`);
  return { files, digests: files.map(({ name, bytes, sha256 }) => ({ path: named(name), bytes, sha256 })) };
}
