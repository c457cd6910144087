import { InputError } from '../../errors.js';
import { readArray } from '../../features/trajectories.js';
import { encodeSafetensors } from '../../formats/safetensors-writer.js';
import { openTensorFile } from '../../formats/tensor-file.js';
import { DIFFICULTIES } from './labels.js';
import type { DifficultyProbe } from './probe.js';

const FORMAT = 'surprisal/difficulty-probe';

/** Bytes of a probe as safetensors: W1, b1, W2, b2, and mean and scale of the features. */
export function probeBytes(probe: DifficultyProbe, metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  const { features, hidden, classes, standardisation } = probe;
  const f32 = (values: ArrayLike<number>): Float32Array => Float32Array.from(values);
  const tensors = [
    { name: 'W1', shape: [hidden, features], data: f32(probe.w1) },
    { name: 'b1', shape: [hidden], data: f32(probe.b1) },
    { name: 'W2', shape: [classes, hidden], data: f32(probe.w2) },
    { name: 'b2', shape: [classes], data: f32(probe.b2) },
  ].map((tensor) => ({ ...tensor, dtype: 'F32' as const }));
  const scales = standardisation
    ? (['mean', 'scale'] as const).map((name) => ({
        ...{ name, dtype: 'F64' as const, shape: [features] },
        data: Float64Array.from(standardisation[name]),
      }))
    : [];
  return encodeSafetensors([...tensors, ...scales], { format: FORMAT, classes: DIFFICULTIES.join(), ...metadata });
}

/** A probe that `probeBytes` wrote. @throws InputError for another file, missing tensors or shapes that do not fit */
export function readProbe(path: string): DifficultyProbe {
  const store = openTensorFile(path);
  try {
    const of = (name: string, shape?: readonly number[]): ReturnType<typeof readArray> => {
      if (!store.tensors.has(name)) {
        throw new InputError(
          `${path}: no tensor ${name}; give a probe that analyze-policy difficulty --probe-out wrote`,
        );
      }
      const found = readArray(store, name);
      if (shape && found.shape.join() !== shape.join()) {
        throw new InputError(
          `${path}: tensor ${name} is [${found.shape.join(', ')}], it should be [${shape.join(', ')}]`,
        );
      }
      return found;
    };
    const [hidden, features] = of('W1').shape;
    const [classes] = of('b2').shape;
    if (classes !== DIFFICULTIES.length) {
      throw new InputError(`${path}: ${classes} classes, not ${DIFFICULTIES.join(', ')}`);
    }
    const single = (name: string, shape: readonly number[]): Float32Array => Float32Array.from(of(name, shape).data);
    const vector = (name: string): Float64Array => of(name, [features]).data;
    return {
      ...{ features, hidden, classes },
      w1: single('W1', [hidden, features]),
      b1: single('b1', [hidden]),
      w2: single('W2', [classes, hidden]),
      b2: single('b2', [classes]),
      ...(store.tensors.has('mean') && { standardisation: { mean: vector('mean'), scale: vector('scale') } }),
    };
  } finally {
    store.close();
  }
}
