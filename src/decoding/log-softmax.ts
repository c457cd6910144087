/** ln softmax of one row of logits in f64; -Infinity where a logit is. Throws RangeError for NaN or without a finite one. */
export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    if (Number.isNaN(logits[i])) throw new RangeError(`logit ${i} is NaN`);
    if (logits[i] > largest) largest = logits[i];
  }
  if (!Number.isFinite(largest)) throw new RangeError(`the largest logit is ${largest}`);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - largest);
  const total = largest + Math.log(sum);
  return Float64Array.from({ length: logits.length }, (_, i) => logits[i] - total);
}
