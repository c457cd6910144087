import fs from 'node:fs';
import path from 'node:path';
import { type AddressModulo, blocksWithin, DIRECT_BLOCK, type DirectRange, openDirect } from './direct-transfer.js';
import { fileError, quoted } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { layOutSafetensors, type PlannedShard, type PlannedTensor, planShards } from './safetensors-writer.js';

/** Bytes of tensors in a shard where nothing else is asked for: 5 GB. */
export const MAX_SHARD_BYTES = 5e9;

/** Where a tensor lies in a file of the output. */
export interface ShardSlot {
  /** Index into {@link ShardLayout.files}. */
  readonly file: number;
  /** First byte in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface ShardFile {
  readonly fileName: string;
  readonly header: Uint8Array;
  readonly byteLength: number;
}

/** The files of a checkpoint before a byte of it is written. */
export interface ShardLayout {
  readonly files: readonly ShardFile[];
  readonly shards: readonly PlannedShard[];
  readonly slots: ReadonlyMap<string, ShardSlot>;
  /** Bytes of all tensors. */
  readonly tensorBytes: number;
}

/**
 * Cuts a plan into shards of at most `maxShardBytes` and fixes every position.
 * @param headerMultiple headers are padded to a multiple of so many bytes (default 8)
 */
export function layOutShards(
  plan: readonly PlannedTensor[],
  maxShardBytes: number,
  metadata: Readonly<Record<string, string>>,
  headerMultiple?: number,
): ShardLayout {
  const shards = planShards(plan, maxShardBytes);
  const slots = new Map<string, ShardSlot>();
  const files = shards.map(({ fileName, tensors }, file): ShardFile => {
    const { header, offsets, byteLength } = layOutSafetensors(tensors, metadata, 0, headerMultiple);
    for (const { name, dtype, shape } of tensors)
      slots.set(name, {
        file,
        offset: header.length + (offsets.get(name) ?? 0),
        byteLength: byteLengthOf(dtype, shape),
      });
    return { fileName, header, byteLength };
  });
  const tensorBytes = files.reduce((sum, { byteLength, header }) => sum + byteLength - header.length, 0);
  return { files, shards, slots, tensorBytes };
}

/** Files that stay open from the start; more are opened when they are written. */
const MAX_OPEN = 64;

/** A write call takes less than 2^31 bytes. */
const WRITE_STEP = 1 << 30;

/** The files of a checkpoint, open for writing at any place. */
export interface ShardFiles {
  /** Bytes of tensor `name` from its byte `at` on. */
  write(name: string, at: number, bytes: Uint8Array): void;
  /** The same beside the calling thread; `bytes` must stay as they are until the promise ends. @throws as `fileError` says */
  writeBeside(name: string, at: number, bytes: Uint8Array): Promise<void>;
  /** Remainder of a position by the blocks of direct transfers: what the address of its bytes should have too. */
  phase(name: string, at: number): number;
  sync(): void;
  close(): void;
}

/**
 * Opens the files below `directory`; those that an interrupted run left with the right size are kept, others are made with
 * their header and full size.
 * @param direct writes large ranges past the page cache, where their bytes lie so that this is possible
 */
export function openShards(
  directory: string,
  layout: Pick<ShardLayout, 'files' | 'slots'>,
  direct?: AddressModulo,
): ShardFiles {
  const open = new Map<number, number>();
  const directOpen = new Map<number, number | undefined>();
  const directDescriptor = (index: number): number | undefined => {
    if (!directOpen.has(index))
      directOpen.set(index, openDirect(path.join(directory, layout.files[index].fileName), fs.constants.O_WRONLY));
    return directOpen.get(index);
  };
  const descriptor = (index: number): number => {
    const known = open.get(index);
    if (known !== undefined) return known;
    const { fileName, header, byteLength } = layout.files[index];
    const file = path.join(directory, fileName);
    const fresh = fs.statSync(file, { throwIfNoEntry: false })?.size !== byteLength;
    const fd = fs.openSync(file, fresh ? 'w+' : 'r+');
    open.set(index, fd);
    if (fresh) {
      writeFully(fd, header, 0);
      fs.ftruncateSync(fd, byteLength);
    }
    return fd;
  };
  // All exist from the start with their sizes, so that an interrupted run can be continued.
  for (const index of layout.files.keys()) {
    const fd = descriptor(index);
    if (open.size > MAX_OPEN) {
      fs.fsyncSync(fd);
      fs.closeSync(fd);
      open.delete(index);
    }
  }
  const place = (name: string, at: number, length: number): Place => {
    const slot = layout.slots.get(name);
    if (slot === undefined || at + length > slot.byteLength)
      throw new RangeError(`tensor ${quoted(name)}: bytes ${at}..${at + length} are not in the plan`);
    return { file: slot.file, fd: descriptor(slot.file), position: slot.offset + at };
  };
  return {
    write(name, at, bytes): void {
      const { fd, position } = place(name, at, bytes.length);
      writeFully(fd, bytes, position);
    },
    async writeBeside(name, at, bytes): Promise<void> {
      const { file, fd, position } = place(name, at, bytes.length);
      const blocks = direct && blocksWithin(position, bytes, direct);
      const directFd = blocks && directDescriptor(file);
      try {
        if (blocks === undefined || directFd === undefined || !(await writeBlocks(directFd, blocks))) {
          await writeFullyBeside(fd, bytes, position);
          return;
        }
        const end = blocks.before + blocks.bytes.length;
        await writeFullyBeside(fd, bytes.subarray(0, blocks.before), position);
        await writeFullyBeside(fd, bytes.subarray(end), position + end);
      } catch (error) {
        throw fileError(error, directory, 'write');
      }
    },
    phase: (name, at) => ((layout.slots.get(name)?.offset ?? 0) + at) % DIRECT_BLOCK,
    sync(): void {
      for (const fd of open.values()) fs.fsyncSync(fd);
    },
    close(): void {
      for (const fd of [...open.values(), ...directOpen.values()]) if (fd !== undefined) fs.closeSync(fd);
      open.clear();
      directOpen.clear();
    },
  };
}

interface Place {
  /** Index into the files of the layout. */
  readonly file: number;
  readonly fd: number;
  readonly position: number;
}

/** Whether the blocks went past the page cache: some file systems refuse what others allow. */
async function writeBlocks(fd: number, { bytes, position }: DirectRange): Promise<boolean> {
  try {
    await writeFullyBeside(fd, bytes, position);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false;
    throw error;
  }
}

/** Pieces keep direct writes at multiples of their block. */
async function writeFullyBeside(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; )
    done += await writeSome(fd, bytes, done, Math.min(WRITE_STEP, bytes.length - done), position + done);
}

function writeSome(fd: number, bytes: Uint8Array, from: number, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.write(fd, bytes, from, length, position, (error, written) => (error ? reject(error) : resolve(written)));
  });
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += fs.writeSync(fd, bytes, done, Math.min(WRITE_STEP, bytes.length - done), position + done);
}
