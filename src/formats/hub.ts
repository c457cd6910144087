import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import { fileError } from './files.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where a model was found. */
export interface ModelLocation {
  /** `directory`: config.json with safetensors. `gguf`, `onnx`: `path` is the file (of a split set the first). */
  readonly kind: 'directory' | 'gguf' | 'onnx';
  readonly path: string;
  /** As the user gave it: what reports show. */
  readonly spec: string;
}

const REPOSITORY = /^[A-Za-z0-9][\w.-]*(\/[A-Za-z0-9][\w.-]*)?$/;
const COMMIT = /^[0-9a-f]{40}$/;

/** The hub's cache directory: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub, as huggingface_hub. */
export function hubCacheDirectory(env: Environment): string {
  const cache = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  const home = env.HOME || env.USERPROFILE || '.';
  const expand = (place: string): string => (/^~(?=\/|$)/.test(place) ? home + place.slice(1) : place);
  if (cache) return expand(cache);
  const hfHome = env.HF_HOME || path.join(env.XDG_CACHE_HOME || path.join(home, '.cache'), 'huggingface');
  return path.join(expand(hfHome), 'hub');
}

function listNames(directory: string): string[] {
  try {
    return fs.readdirSync(directory).sort();
  } catch (error) {
    throw fileError(error, directory, 'list');
  }
}

/** Files that stand for one model each: of a split GGUF set only the first, no multimodal projectors. */
function modelFiles(names: readonly string[], extension: '.gguf' | '.onnx'): string[] {
  return names.filter((name) => {
    const split = /-(\d{5})-of-\d{5}\.gguf$/.exec(name);
    return name.endsWith(extension) && !name.startsWith('mmproj') && (split === null || Number(split[1]) === 1);
  });
}

/** What a directory holds. Safetensors come before GGUF, GGUF before ONNX. */
function locateInDirectory(directory: string, spec: string): ModelLocation {
  const names = listNames(directory);
  if (names.includes('config.json') && names.some((name) => /\.safetensors(\.index\.json)?$/.test(name)))
    return { kind: 'directory', path: directory, spec };
  const folders: [string, readonly string[]][] = [[directory, names]];
  const onnxFolder = path.join(directory, 'onnx');
  // Repositories of exported models often keep their graphs one level down.
  if (names.includes('onnx') && fs.statSync(onnxFolder).isDirectory())
    folders.push([onnxFolder, listNames(onnxFolder)]);
  for (const [folder, found] of folders) {
    for (const kind of ['gguf', 'onnx'] as const) {
      const files = modelFiles(found, `.${kind}`);
      if (files.length === 1) return { kind, path: path.join(folder, files[0]), spec };
      if (files.length > 1)
        throw new InputError(
          `${spec}: holds ${files.length} .${kind} files (${files.slice(0, 4).join(', ')}${files.length > 4 ? ', ...' : ''}): name one of them, e.g. ${path.join(folder, files[0])}`,
        );
    }
  }
  if (names.some((name) => name.endsWith('.safetensors')))
    throw new InputError(`${spec}: holds safetensors but no config.json: fetch the model's config.json beside them`);
  if (names.some((name) => /^pytorch_model.*\.bin$/.test(name)))
    throw new InputError(`${spec}: holds PyTorch pickles only: fetch or save the model as safetensors`);
  throw new InputError(`${spec}: holds no model: neither config.json with safetensors, nor one .gguf or .onnx`);
}

function locateFile(file: string, spec: string): ModelLocation {
  if (file.endsWith('.gguf')) return { kind: 'gguf', path: file, spec };
  if (file.endsWith('.onnx')) return { kind: 'onnx', path: file, spec };
  if (
    file.endsWith('.safetensors') ||
    file.endsWith('.safetensors.index.json') ||
    path.basename(file) === 'config.json'
  )
    throw new InputError(`${spec}: one file of a model: name its directory, ${path.dirname(file)}`);
  throw new InputError(`${spec}: not a model: name a directory, a .gguf, an .onnx, or org/name[@revision]`);
}

/** The directory of a revision in the cache, or undefined when it is not there. */
function findSnapshot(cache: string, repository: string, revision: string): string | undefined {
  const root = path.join(cache, `models--${repository.replaceAll('/', '--')}`);
  let commit = revision;
  if (!COMMIT.test(revision)) {
    try {
      commit = fs.readFileSync(path.join(root, 'refs', revision), 'utf8').trim();
    } catch {
      return undefined;
    }
    if (!COMMIT.test(commit)) return undefined;
  }
  const snapshot = path.join(root, 'snapshots', commit);
  return fs.existsSync(snapshot) ? snapshot : undefined;
}

/**
 * Finds the model that `spec` names: an existing path (a directory with config.json and safetensors, a directory with
 * exactly one .gguf or .onnx, or such a file), else `org/name[@revision]` in the local hub cache, where the revision is
 * a branch, a tag or a full commit hash (default `main`). Nothing is downloaded.
 * @param env the environment: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME.
 * @throws InputError with the command that would fetch the model when it is not there.
 */
export function resolveModelPath(spec: string, env: Environment): ModelLocation {
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(spec);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw fileError(error, spec, 'open');
  }
  if (stat !== undefined) return stat.isDirectory() ? locateInDirectory(spec, spec) : locateFile(spec, spec);

  const at = spec.indexOf('@');
  const repository = at < 0 ? spec : spec.slice(0, at);
  const revision = at < 0 ? 'main' : spec.slice(at + 1);
  const looksLikeFile = /\.(gguf|onnx|safetensors|json)$/.test(repository);
  if (!REPOSITORY.test(repository) || looksLikeFile || repository.includes('..'))
    throw new InputError(`${spec}: no such file or directory: check the path, or name a model as org/name[@revision]`);
  if (!/^[\w][\w./-]*$/.test(revision) || revision.includes('..'))
    throw new InputError(
      `${spec}: ${JSON.stringify(revision)} is not a revision: use a branch, a tag or a full commit hash`,
    );

  const cache = hubCacheDirectory(env);
  const snapshot = findSnapshot(cache, repository, revision);
  if (snapshot !== undefined) return locateInDirectory(snapshot, spec);
  const fetch = `hf download ${repository}${at < 0 ? '' : ` --revision ${revision}`}`;
  throw new InputError(`${spec}: neither a path nor in the hub cache ${cache}: fetch it with: ${fetch}`);
}

/**
 * The directory that `spec` names, whatever it holds (an adapter, a tokenizer): an existing path, else a snapshot of the hub
 * cache as {@link resolveModelPath} finds it.
 * @throws InputError with the command that would fetch it
 */
export function resolveDirectory(spec: string, env: Environment): string {
  if (fs.statSync(spec, { throwIfNoEntry: false })?.isDirectory()) return spec;
  const [repository, revision = 'main'] = spec.split('@');
  const cache = hubCacheDirectory(env);
  const found = REPOSITORY.test(repository) ? findSnapshot(cache, repository, revision) : undefined;
  if (found !== undefined) return found;
  throw new InputError(
    `${spec}: neither a directory nor in the hub cache ${cache}: check the path, or fetch it with: hf download ${repository}` +
      (revision === 'main' ? '' : ` --revision ${revision}`),
  );
}
