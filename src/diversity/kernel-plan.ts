import { InputError } from '../errors.js';

/** What makes two items similar. `matrix` is a similarity matrix that is given. */
export type KernelName = 'cosine' | 'rbf' | 'ngram' | 'edit' | 'match' | 'matrix';
export type MethodName = 'exact' | 'dual' | 'fkea' | 'nystrom' | 'slq' | 'counts';

export const KERNELS: readonly Exclude<KernelName, 'matrix'>[] = ['cosine', 'rbf', 'ngram', 'edit', 'match'];
export const METHODS = ['auto', 'exact', 'dual', 'fkea', 'nystrom', 'slq'] as const;

/** Above this many items a kernel matrix is decomposed only on demand. */
const MOST_EXACT = 5000;
/** Above this many columns a second moment is decomposed only where the kernel matrix is larger still. */
const MOST_COLUMNS = 12_000;

/** Which kernels a method can serve. */
const SERVES: Readonly<Record<MethodName, readonly KernelName[]>> = {
  exact: ['cosine', 'rbf', 'ngram', 'edit', 'match', 'matrix'],
  dual: ['cosine'],
  fkea: ['rbf'],
  nystrom: ['cosine', 'rbf'],
  slq: ['cosine', 'rbf', 'ngram'],
  counts: ['match'],
};

/** The path that will be taken, and why. */
export interface KernelPlan {
  readonly method: MethodName;
  /** Order of the matrix that is decomposed. */
  readonly order: number;
  /** About what the kernel takes in memory. */
  readonly bytes: number;
  readonly reason: string;
}

export interface PlanRequest {
  readonly kernel: KernelName;
  readonly method: MethodName | 'auto';
  readonly items: number;
  /** Of features; 0 for texts. */
  readonly columns: number;
  readonly maxMemoryBytes: number;
  /** Random frequencies of FKEA, so that features have twice as many columns. */
  readonly frequencies: number;
  readonly landmarks: number;
  /** Of the features as quadrature holds them; 0 for texts, whose counts are sparse. */
  readonly pointBytes: number;
}

/** The matrix itself, and its scaled copy that is decomposed. */
const exactBytes = (items: number): number => 2 * 8 * items * items;
const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/**
 * Chooses how the spectrum is reached. Cosine: the second moment when there are fewer columns than items, which needs
 * memory for columns² alone. Other kernels: the matrix up to 5,000 items, beyond that random features (rbf) or
 * quadrature (n-grams).
 * @throws InputError when the method cannot serve the kernel, or the matrix does not fit into --max-memory
 */
export function planKernel(request: PlanRequest): KernelPlan {
  const { kernel, items, columns, frequencies, landmarks } = request;
  const wanted = request.method;
  const memory = request.maxMemoryBytes;
  if (wanted !== 'auto' && !SERVES[wanted].includes(kernel)) {
    throw new InputError(
      `--method ${wanted} does not serve the kernel ${kernel}; it is for ${SERVES[wanted].join(', ')}; use --method auto`,
    );
  }
  const method = wanted === 'auto' ? automatic(request, memory) : wanted;
  const order = orderOf(method, items, columns, frequencies, landmarks);
  const bytes = method === 'slq' ? 2 * request.pointBytes : method === 'counts' ? 16 * items : exactBytes(order);
  if (bytes > memory && method === 'slq') {
    throw new InputError(
      `the ${items} rows that --method slq holds, and their scaled copy, take ${mebibytes(bytes)}, more than --max-memory ` +
        `allows (${mebibytes(memory)}); ${wayOut(method, kernel)}`,
    );
  }
  if (bytes > memory) {
    throw new InputError(
      `the matrix of ${order} x ${order} that --method ${method} decomposes takes ${mebibytes(bytes)}, more than ` +
        `--max-memory allows (${mebibytes(memory)}); ${wayOut(method, kernel)}`,
    );
  }
  return { method, order, bytes, reason: reasonOf(method, wanted, request) };
}

function automatic({ kernel, items, columns }: PlanRequest, memory: number): MethodName {
  const fits = items <= MOST_EXACT && exactBytes(items) <= memory;
  if (kernel === 'match') return 'counts';
  if (kernel === 'cosine') {
    if (columns < items && columns <= MOST_COLUMNS && exactBytes(columns) <= memory) return 'dual';
    return fits ? 'exact' : 'slq';
  }
  if (kernel === 'rbf') return fits ? 'exact' : 'fkea';
  if (kernel === 'ngram') return fits ? 'exact' : 'slq';
  return 'exact';
}

function orderOf(method: MethodName, items: number, columns: number, frequencies: number, landmarks: number): number {
  if (method === 'dual') return columns;
  if (method === 'fkea') return 2 * frequencies;
  if (method === 'nystrom') return Math.min(landmarks, items);
  return items;
}

function wayOut(method: MethodName, kernel: KernelName): string {
  if (method === 'fkea') return 'lower --features';
  if (method === 'nystrom') return 'lower --landmarks';
  if (method === 'slq')
    return `use --method ${kernel === 'cosine' ? 'dual or nystrom' : 'fkea or nystrom'}, or allow more`;
  const other = { cosine: '--method slq', rbf: '--method fkea', ngram: '--method slq' }[kernel as string];
  return other === undefined ? 'use fewer items with --limit, or allow more' : `use ${other}, or allow more`;
}

function reasonOf(method: MethodName, wanted: MethodName | 'auto', { items, columns }: PlanRequest): string {
  if (wanted !== 'auto') return 'asked for';
  if (method === 'dual') return `${columns} columns are fewer than ${items} items`;
  if (method === 'counts') return 'eigenvalues are shares of classes';
  if (method === 'exact') return `${items} items`;
  return `${items} items are too many for a kernel matrix`;
}
