import { existsSync } from 'node:fs';
import { InputError } from '../../errors.js';
import type { ModelFiles } from '../../models/model-files.js';
import { carrierType, type ExportFormat, isLossy, type LossyFormat } from './export-format.js';
import { type EncodedTensors, type ExportOptions, type ExportReport, exportGguf } from './gguf-export.js';
import { exportOnnx } from './onnx-export.js';

export type { ExportShape } from './carriers.js';
export type { EncodedTensors, ExportedTensor, ExportOptions, ExportReport } from './gguf-export.js';

/**
 * Writes a model with coded tensors in a format of another program, exactly up to the rounding that `constraintsOf`
 * states. `source` is the model that was coded: the original one, or the fused one (`fuseModel`); codes of rotated rows
 * whose rotation is stored beside them have no place in these formats.
 * The types of LOSSY_FORMATS hold no codes: there weights are quantised a second time, and the report says what that adds.
 * @param target the file (GGUF) or directory (ONNX)
 * @throws InputError for what the format cannot hold, by name, before anything is written
 */
export async function exportModel(
  format: ExportFormat | LossyFormat,
  source: ModelFiles,
  encoded: EncodedTensors,
  target: string,
  options: ExportOptions = {},
): Promise<ExportReport> {
  if (!options.force && existsSync(target)) {
    throw new InputError(`${target}: already exists: pass --force to replace it, or choose another path`);
  }
  return !isLossy(format) && carrierType(format) === undefined
    ? exportOnnx(source, encoded, target, options)
    : exportGguf(format, source, encoded, target, options);
}
