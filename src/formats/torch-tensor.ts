import { InputError } from '../errors.js';
import { decodeUtf8, quoted, withRange } from './files.js';
import { DTYPE_BYTES, type DType, elementCount } from './tensor.js';
import { openZipEntry, readZipDirectory, type ZipEntry } from './zip.js';

/** A tensor of a PyTorch archive, row-major and little-endian. */
export interface TorchTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** What the pickle of a tensor is made of; nothing else is known, and nothing is ever called. */
type Item =
  | number
  | string
  | boolean
  | null
  | readonly Item[]
  | { readonly global: string }
  | { readonly storage: StoredStorage }
  | { readonly hooks: true }
  | PickledTensor;

interface StoredStorage {
  readonly dtype: DType;
  readonly key: string;
  readonly elements: number;
}

interface PickledTensor {
  readonly tensor: StoredStorage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

const STORAGES: Readonly<Record<string, DType>> = {
  'torch FloatStorage': 'F32',
  'torch DoubleStorage': 'F64',
  'torch HalfStorage': 'F16',
  'torch BFloat16Storage': 'BF16',
};
const REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2';
const REBUILD_PARAMETER = 'torch._utils _rebuild_parameter';
const ORDERED_DICT = 'collections OrderedDict';
const KNOWN_GLOBALS: ReadonlySet<string> = new Set([
  REBUILD_TENSOR,
  REBUILD_PARAMETER,
  ORDERED_DICT,
  ...Object.keys(STORAGES),
]);

/** The pickle of one tensor takes some 200 bytes. */
const MAX_PICKLE_BYTES = 1 << 16;
const MAX_ELEMENTS = 1 << 28;

/**
 * The one tensor of a file that `torch.save(tensor, file)` wrote (the ZIP format, PyTorch 1.6 and later).
 *
 * Pickles can run code. This reader knows only the opcodes and names that the pickle of a single tensor or parameter is
 * made of; it builds a description and calls nothing.
 * @throws InputError for everything else, naming it
 */
export function readTorchTensor(path: string): TorchTensor {
  return withRange(path, (file) => {
    const magic = new Uint8Array(Math.min(4, file.size));
    file.readInto(0, magic.length, magic);
    if (magic[0] === 0x80) {
      throw new InputError(`${path}: PyTorch's format of before 1.6: load it and save it again, or save it as .npy`);
    }
    if (magic[0] !== 0x50 || magic[1] !== 0x4b) {
      throw new InputError(`${path}: not a ZIP archive of torch.save: save the tensor as .npy or safetensors`);
    }
    const entries = new Map(readZipDirectory(file).map((entry) => [entry.name.replace(/^[^/]*\//, ''), entry]));
    const bytesOf = (name: string, limit: number): Uint8Array => {
      const entry: ZipEntry | undefined = entries.get(name);
      if (entry === undefined) throw new InputError(`${path}: holds no ${quoted(name)}: not an archive of torch.save`);
      if (entry.byteLength > limit) {
        throw new InputError(`${path}: ${quoted(name)} has ${entry.byteLength} bytes: not the file of one tensor`);
      }
      const bytes = new Uint8Array(entry.byteLength);
      openZipEntry(file, entry).readInto(0, bytes.length, bytes);
      return bytes;
    };
    if (entries.has('byteorder') && decodeUtf8(bytesOf('byteorder', 16), path).trim() !== 'little') {
      throw new InputError(`${path}: written on a big-endian machine: save it again on another`);
    }
    const { tensor, offset, shape, strides } = unpickle(bytesOf('data.pkl', MAX_PICKLE_BYTES), path);
    const width = DTYPE_BYTES[tensor.dtype];
    const stored = bytesOf(`data/${tensor.key}`, MAX_ELEMENTS * width);
    file.close();
    if (stored.length !== tensor.elements * width) {
      throw new InputError(`${path}: its storage has ${stored.length} bytes, not ${tensor.elements} elements: damaged`);
    }
    return { dtype: tensor.dtype, shape, bytes: gather(stored, width, { offset, shape, strides }, path) };
  });
}

/** Elements of a strided view in row-major order. */
function gather(
  stored: Uint8Array,
  width: number,
  view: Pick<PickledTensor, 'offset' | 'shape' | 'strides'>,
  path: string,
): Uint8Array {
  const { offset, shape, strides } = view;
  const count = elementCount(shape);
  const reach = shape.reduce((last, extent, axis) => last + (extent - 1) * strides[axis], offset);
  if (count > MAX_ELEMENTS || (count > 0 && (reach + 1) * width > stored.length)) {
    throw new InputError(`${path}: its tensor reaches beyond its storage: damaged`);
  }
  const bytes = new Uint8Array(count * width);
  const index = new Array<number>(shape.length).fill(0);
  let at = offset;
  for (let i = 0; i < count; i++) {
    bytes.set(stored.subarray(at * width, (at + 1) * width), i * width);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis];
      if (++index[axis] < shape[axis]) break;
      at -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return bytes;
}

/** The machine of a pickle: a stack, marks in it, and a memo. */
interface Machine {
  readonly bytes: Uint8Array;
  at: number;
  readonly stack: Item[];
  readonly marks: number[];
  readonly memo: Map<number, Item>;
  readonly path: string;
}

function refuse(machine: Pick<Machine, 'path'>, what: string): never {
  throw new InputError(
    `${machine.path}: holds ${what}, which the file of one tensor does not: save the tensor alone, or as .npy or safetensors`,
  );
}

function pop(machine: Machine): Item {
  const item = machine.stack.pop();
  if (item === undefined) throw new InputError(`${machine.path}: damaged pickle`);
  return item;
}

function take(machine: Machine, length: number): Uint8Array {
  const from = machine.at;
  if (from + length > machine.bytes.length) throw new InputError(`${machine.path}: the pickle ends early: damaged`);
  machine.at += length;
  return machine.bytes.subarray(from, from + length);
}

function unsigned(machine: Machine, width: 1 | 2 | 4): number {
  return take(machine, width).reduce((sum, byte, i) => sum + byte * 256 ** i, 0);
}

function text(machine: Machine, length: number): string {
  return decodeUtf8(take(machine, length), `${machine.path}: a text of the pickle`);
}

function line(machine: Machine): string {
  const end = machine.bytes.indexOf(0x0a, machine.at);
  if (end < 0) throw new InputError(`${machine.path}: the pickle ends early: damaged`);
  const words = text(machine, end - machine.at);
  machine.at++;
  return words;
}

function globalOf(machine: Machine, module: Item, name: Item): Item {
  const full = `${String(module)} ${String(name)}`;
  if (!KNOWN_GLOBALS.has(full)) refuse(machine, `the name ${quoted(full.replace(' ', '.'))}`);
  return { global: full };
}

function signed(machine: Machine, width: number): number {
  const bytes = take(machine, width);
  if (width === 0) return 0;
  if (width > 8) refuse(machine, `a number of ${width} bytes`);
  const low = bytes.reduce((sum, byte, i) => sum + BigInt(byte) * 256n ** BigInt(i), 0n);
  return Number(BigInt.asIntN(8 * width, low));
}

function tuple(machine: Machine, length: number): Item {
  return Array.from({ length }, () => pop(machine)).reverse();
}

function marked(machine: Machine): Item {
  const mark = machine.marks.pop();
  if (mark === undefined || mark > machine.stack.length) throw new InputError(`${machine.path}: damaged pickle`);
  return machine.stack.splice(mark);
}

function recall(machine: Machine, key: number): Item {
  const item = machine.memo.get(key);
  if (item === undefined) throw new InputError(`${machine.path}: damaged pickle`);
  return item;
}

function remember(machine: Machine, key: number): void {
  machine.memo.set(key, machine.stack.at(-1) ?? null);
}

/** What each opcode pushes (protocols 2 to 5). */
const PUSHES: Readonly<Record<number, (machine: Machine) => Item>> = {
  99: (m) => globalOf(m, line(m), line(m)),
  147: (m) => {
    const name = pop(m);
    return globalOf(m, pop(m), name);
  },
  88: (m) => text(m, unsigned(m, 4)),
  140: (m) => text(m, unsigned(m, 1)),
  74: (m) => signed(m, 4),
  75: (m) => unsigned(m, 1),
  77: (m) => unsigned(m, 2),
  138: (m) => signed(m, unsigned(m, 1)),
  78: () => null,
  136: () => true,
  137: () => false,
  41: () => [],
  133: (m) => tuple(m, 1),
  134: (m) => tuple(m, 2),
  135: (m) => tuple(m, 3),
  116: marked,
  104: (m) => recall(m, unsigned(m, 1)),
  106: (m) => recall(m, unsigned(m, 4)),
  81: storageOf,
  82: reduce,
};

/** Opcodes that push nothing. */
const EFFECTS: Readonly<Record<number, (machine: Machine) => void>> = {
  128: (m) => void take(m, 1),
  149: (m) => void take(m, 8),
  40: (m) => void m.marks.push(m.stack.length),
  113: (m) => remember(m, unsigned(m, 1)),
  114: (m) => remember(m, unsigned(m, 4)),
  148: (m) => remember(m, m.memo.size),
};

const STOP = 0x2e;

/** The persistent id of a storage: ('storage', type, key, device, elements). */
function storageOf(machine: Machine): Item {
  const id = pop(machine);
  if (!Array.isArray(id) || id.length !== 5) return refuse(machine, 'a reference that is no storage');
  const [kind, type, key, , elements] = id;
  const dtype = isRecord(type) && 'global' in type ? STORAGES[type.global] : undefined;
  if (kind !== 'storage' || dtype === undefined) return refuse(machine, 'a storage of a type that is not a float');
  if (typeof key !== 'string' || !/^\d+$/.test(key) || !isCount(elements)) return refuse(machine, 'a damaged storage');
  return { storage: { dtype, key, elements } };
}

/** The only calls that are understood: a tensor, a parameter of a tensor, no hooks. */
function reduce(machine: Machine): Item {
  const args = pop(machine);
  const callee = pop(machine);
  if (!isRecord(callee) || !('global' in callee) || !Array.isArray(args)) return refuse(machine, 'a call');
  if (callee.global === ORDERED_DICT && args.length === 0) return { hooks: true };
  if (callee.global === REBUILD_PARAMETER && isRecord(args[0]) && 'tensor' in args[0]) return args[0];
  const [source, offset, shape, strides] = args;
  if (callee.global !== REBUILD_TENSOR || !isRecord(source) || !('storage' in source)) {
    return refuse(machine, `a call of ${quoted(callee.global)}`);
  }
  if (!isCount(offset) || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) {
    return refuse(machine, 'a damaged tensor');
  }
  return { tensor: source.storage, offset, shape, strides };
}

function isRecord(item: Item | undefined): item is Exclude<Item, number | string | boolean | null | readonly Item[]> {
  return typeof item === 'object' && item !== null && !Array.isArray(item);
}

function isCount(item: Item | undefined): item is number {
  return typeof item === 'number' && Number.isSafeInteger(item) && item >= 0;
}

function isCounts(item: Item | undefined): item is readonly number[] {
  return Array.isArray(item) && item.every(isCount);
}

function unpickle(bytes: Uint8Array, path: string): PickledTensor {
  const machine: Machine = { bytes, at: 0, stack: [], marks: [], memo: new Map(), path };
  for (;;) {
    const opcode = unsigned(machine, 1);
    if (opcode === STOP) break;
    const effect = EFFECTS[opcode];
    const push = PUSHES[opcode];
    if (effect) effect(machine);
    else if (push) machine.stack.push(push(machine));
    else refuse(machine, `the pickle opcode 0x${opcode.toString(16).padStart(2, '0')} (a dictionary, list or object)`);
  }
  const result = pop(machine);
  if (!isRecord(result) || !('tensor' in result)) return refuse(machine, 'something that is no tensor');
  return result;
}
