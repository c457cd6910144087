import type { ActivationQuantization } from './activation-quantization.js';
import type { GraphComposer } from './graph.js';

export function createActivationQuantizer(
  g: GraphComposer,
  activations: ActivationQuantization | undefined,
): (value: string, width: number) => string {
  if (activations === undefined) return (value) => value;
  throw new Error(`${g.float}: not yet`);
}
