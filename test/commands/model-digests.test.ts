import { describe, expect, it } from 'vitest';
import { modelDigests } from '../../commands/model-digests.js';

describe('modelDigests', () => {
  it('names a file as the user did, and the files of a directory below it', async () => {
    const file = 'fixtures/gguf/llama-llama3.f16.gguf';
    expect((await modelDigests('my.gguf', file)).digests.map(({ path }) => path)).toEqual(['my.gguf']);
    const { digests, files } = await modelDigests('org/name/', 'fixtures/architectures/mixtral');
    expect(digests.map(({ path }) => path)).toContain('org/name/model.safetensors');
    expect(digests.map(({ sha256 }) => sha256)).toEqual(files.map(({ sha256 }) => sha256));
  });
});
