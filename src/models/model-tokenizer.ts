import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError } from '../errors.js';
import { openGguf } from '../formats/gguf.js';
import { tokenizerFromGguf } from '../tokenizers/gguf-tokenizer.js';
import { openTokenizer, type Tokenizer } from '../tokenizers/tokenizer.js';

/**
 * The tokenizer that belongs to a model: of its directory, of the GGUF file's metadata, or of the directory of an ONNX
 * file (or the one above it).
 * @throws InputError when there is none, saying what is there
 */
export function openModelTokenizer(path: string): Tokenizer {
  const lower = path.toLowerCase();
  if (lower.endsWith('.gguf')) {
    const store = openGguf(path);
    try {
      return tokenizerFromGguf(store.kv);
    } finally {
      store.close();
    }
  }
  if (!lower.endsWith('.onnx')) return openTokenizer(path);
  const places = [dirname(path), dirname(dirname(path))];
  const found = places.find((place) => existsSync(join(place, 'tokenizer.json')));
  if (found === undefined) {
    throw new InputError(`${path}: no tokenizer.json beside it or in the directory above; copy it there`);
  }
  return openTokenizer(found);
}
