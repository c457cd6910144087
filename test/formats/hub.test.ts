import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { hubCacheDirectory, resolveModelPath } from '../../src/formats/hub.js';
import { temporaryDirectory } from './written-elsewhere.js';

const root = temporaryDirectory();
const COMMIT = '0123456789abcdef0123456789abcdef01234567';

function touch(...names: string[]): void {
  for (const name of names) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), '');
  }
}

describe('hubCacheDirectory', () => {
  it('follows huggingface_hub', () => {
    expect(hubCacheDirectory({ HF_HUB_CACHE: '/a', HF_HOME: '/b' })).toBe('/a');
    expect(hubCacheDirectory({ HF_HOME: '/b', HOME: '/h' })).toBe('/b/hub');
    expect(hubCacheDirectory({ HF_HOME: '~/b', HOME: '/h' })).toBe('/h/b/hub');
    expect(hubCacheDirectory({ XDG_CACHE_HOME: '/x', HOME: '/h' })).toBe('/x/huggingface/hub');
    expect(hubCacheDirectory({ HOME: '/h' })).toBe('/h/.cache/huggingface/hub');
  });
});

describe('resolveModelPath: paths', () => {
  const at = (name: string): string => path.join(root, name);
  const resolve = (name: string) => resolveModelPath(at(name), {});

  it('a directory with config.json and safetensors, also when it holds a GGUF', () => {
    touch('hf/config.json', 'hf/model.safetensors', 'hf/extra.gguf');
    expect(resolve('hf')).toEqual({ kind: 'directory', path: at('hf'), spec: at('hf') });
  });

  it('files, and directories with one of them', () => {
    touch('one/m.gguf', 'one/config.json', 'graph/config.json', 'graph/model.onnx', 'exported/config.json');
    touch('exported/onnx/model.onnx', 'vision/m.gguf', 'vision/mmproj-m.gguf');
    expect(resolve('one/m.gguf')).toMatchObject({ kind: 'gguf', path: at('one/m.gguf') });
    expect(resolve('one')).toMatchObject({ kind: 'gguf', path: at('one/m.gguf') });
    expect(resolve('graph')).toMatchObject({ kind: 'onnx', path: at('graph/model.onnx') });
    expect(resolve('exported')).toMatchObject({ kind: 'onnx', path: at('exported/onnx/model.onnx') });
    expect(resolve('vision')).toMatchObject({ kind: 'gguf', path: at('vision/m.gguf') });
  });

  it('a split set counts as one model', () => {
    touch('split/m-00001-of-00002.gguf', 'split/m-00002-of-00002.gguf');
    expect(resolve('split')).toMatchObject({ kind: 'gguf', path: at('split/m-00001-of-00002.gguf') });
  });

  it('says what is wrong with a directory or file that is no model', () => {
    touch(
      'two/a.gguf',
      'two/b.gguf',
      'bare/model.safetensors',
      'torch/config.json',
      'torch/pytorch_model.bin',
      'x/y.txt',
    );
    expect(() => resolve('two')).toThrow(/holds 2 .gguf files \(a.gguf, b.gguf\): name one of them/);
    expect(() => resolve('bare')).toThrow(/no config.json/);
    expect(() => resolve('torch')).toThrow(/PyTorch pickles only/);
    expect(() => resolve('x')).toThrow(/holds no model/);
    expect(() => resolve('x/y.txt')).toThrow(/not a model/);
    expect(() => resolve('bare/model.safetensors')).toThrow(/name its directory/);
    expect(() => resolve('absent')).toThrow(/no such file or directory/);
    expect(() => resolve('absent.gguf')).toThrow(InputError);
    expect(() => resolveModelPath('absent.gguf', {})).toThrow(/no such file or directory/);
  });
});

describe('resolveModelPath: hub cache', () => {
  const cache = path.join(root, 'cache');
  const env = { HF_HUB_CACHE: cache };
  const snapshot = path.join(cache, `models--org--name/snapshots/${COMMIT}`);

  it('finds main, a tag with slashes, and a commit', () => {
    touch(`cache/models--org--name/snapshots/${COMMIT}/config.json`);
    touch('cache/models--org--name/blobs/abc');
    fs.symlinkSync('../../blobs/abc', path.join(snapshot, 'model.safetensors'));
    for (const ref of ['main', 'refs/pr/1']) {
      touch(`cache/models--org--name/refs/${ref}`);
      fs.writeFileSync(path.join(cache, `models--org--name/refs/${ref}`), COMMIT);
    }
    for (const spec of ['org/name', 'org/name@main', 'org/name@refs/pr/1', `org/name@${COMMIT}`])
      expect(resolveModelPath(spec, env)).toEqual({ kind: 'directory', path: snapshot, spec });
  });

  it('prints the command that would fetch what is missing', () => {
    expect(() => resolveModelPath('org/other', env)).toThrow(/fetch it with: hf download org\/other$/);
    expect(() => resolveModelPath('org/name@v2', env)).toThrow(/hf download org\/name --revision v2$/);
    expect(() => resolveModelPath('gpt2', env)).toThrow(/hf download gpt2$/);
  });

  it('never leaves the cache', () => {
    for (const spec of ['org/..', '../x@main', 'org/name@../../x', 'org/name@', 'a/b/c'])
      expect(() => resolveModelPath(spec, env)).toThrow(InputError);
  });
});
