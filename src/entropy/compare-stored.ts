import { InputError } from '../errors.js';
import { decodeLogProbs } from '../formats/log-prob-codes.js';
import type { StoredRows } from '../formats/logit-dump.js';
import { codedKlNats, compareRows, createRowComparison, type LogitRows } from '../kernels/compare-rows.js';
import { type CodedComparison, withDeltas } from './compare.js';

/**
 * Compares stored 16-bit rows of a base model with a candidate's logits `[rows, vocabulary]` at the stored targets.
 *
 * `codedKlNats` is llama.cpp's divergence. The other measures take the decoded rows normalised again, entries of code 0
 * sharing the tail's mass; base surprisal and entropy are the exact ones where the file stores them, else the surprisal is
 * the coded one, as llama.cpp takes it. A step of the code is at most 2.5e-4 nats.
 *
 * @throws InputError when vocabularies differ or the candidate has NaN, plus infinity or an empty row
 */
export function compareStored(base: StoredRows, candidate: LogitRows, name = 'candidate logits'): CodedComparison {
  const { rows, vocabulary } = base;
  if (candidate.length !== rows * vocabulary) {
    throw new InputError(
      `${name}: ${candidate.length} logits do not fit ${rows} stored rows over a vocabulary of ${vocabulary}; ` +
        'base and candidate must share one tokenizer',
    );
  }
  const decoded = new Float64Array(rows * vocabulary);
  for (let row = 0; row < rows; row++) {
    decodeLogProbs(
      base.codes,
      row * vocabulary,
      vocabulary,
      { scale: base.scale[row], minLogProb: base.minLogProb[row] },
      base.exact === undefined ? undefined : { mass: base.exact.tailMass[row], count: base.exact.tailCount[row] },
      decoded.subarray(row * vocabulary, (row + 1) * vocabulary),
    );
  }
  const result = createRowComparison(rows);
  compareRows(decoded, candidate, vocabulary, base.targets, result, { base: 'stored base', candidate: name });
  const coded = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * vocabulary;
    const scale = base.scale[row];
    const minimum = base.minLogProb[row];
    const target = base.targets[row];
    coded[row] = codedKlNats(
      base.codes,
      start,
      scale,
      minimum,
      candidate,
      start,
      vocabulary,
      result.candidateLogSumExp[row],
    );
    if (base.exact !== undefined) {
      result.baseSurprisalNats[row] = base.exact.surprisalNats[row];
      result.baseEntropyNats[row] = base.exact.entropyNats[row];
    } else if (target >= 0) {
      result.baseSurprisalNats[row] = -(scale * base.codes[start + target] + minimum);
    }
  }
  return { ...withDeltas(result), codedKlNats: coded };
}
