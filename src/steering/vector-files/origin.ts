import { didYouMean, InputError } from '../../errors.js';
import { INTERVENTION_KINDS, type InterventionKind } from '../../models/interventions.js';
import type { VectorOrigin } from '../types.js';

/** Names of {@link VectorOrigin}'s fields in files. */
const KEYS = {
  modelType: 'model',
  layers: 'model_layers',
  modelSha256: 'model_sha256',
  method: 'method',
  scale: 'scale',
  positions: 'positions',
  operator: 'operator',
} as const satisfies Readonly<Record<keyof VectorOrigin, string>>;

/** The known fields as text by their names in files, in a fixed order. */
export function originEntries(origin: VectorOrigin): Record<string, string> {
  const entries: Record<string, string> = {};
  for (const [field, key] of Object.entries(KEYS)) {
    const value = origin[field as keyof VectorOrigin];
    if (value !== undefined) entries[key] = String(value);
  }
  return entries;
}

/** @throws InputError for an operator that is not known and a number of layers that is none */
export function originOf(entries: Readonly<Record<string, unknown>>, path: string): VectorOrigin {
  const text = (key: string): string | undefined => {
    const value = entries[key];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const modelType = text(KEYS.modelType);
  const layers = text(KEYS.layers);
  const modelSha256 = text(KEYS.modelSha256);
  const method = text(KEYS.method);
  const scale = text(KEYS.scale);
  const positions = text(KEYS.positions);
  const operator = text(KEYS.operator);
  if (layers !== undefined && !/^[1-9]\d{0,6}$/.test(layers)) {
    throw new InputError(`${path}: ${KEYS.layers} is ${JSON.stringify(layers)}, not a number of blocks`);
  }
  return {
    ...(modelType !== undefined && { modelType }),
    ...(layers !== undefined && { layers: Number(layers) }),
    ...(modelSha256 !== undefined && { modelSha256 }),
    ...(method !== undefined && { method }),
    ...(scale !== undefined && { scale }),
    ...(positions !== undefined && { positions }),
    ...(operator !== undefined && { operator: operatorOf(operator, path) }),
  };
}

function operatorOf(name: string, path: string): InterventionKind {
  const known = INTERVENTION_KINDS.find((kind) => kind === name);
  if (known === undefined) {
    throw new InputError(
      `${path}: operator ${JSON.stringify(name)} is not known${didYouMean(name, INTERVENTION_KINDS)}`,
    );
  }
  return known;
}

/** What is lost where a format knows no operator but `add`. */
export function requireAdd(origin: VectorOrigin, format: string): void {
  if (origin.operator !== undefined && origin.operator !== 'add') {
    throw new InputError(
      `${format}: these vectors are meant for ${origin.operator}, and the readers of this format only add: export safetensors or json`,
    );
  }
}
