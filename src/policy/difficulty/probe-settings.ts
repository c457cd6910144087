/** How the probe is trained (spec 8.2: AdamW, learning rate 1e-3, 100 epochs; the width is not stated in the paper). */
export interface ProbeSettings {
  readonly hidden: number;
  readonly epochs: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly batchSize: number;
  /** Weigh classes by the inverse of their frequency. */
  readonly balanced: boolean;
  readonly seed: number;
  readonly threads: number;
  /** Bytes of features that may be held; larger sets are read in blocks, in another order in each epoch. */
  readonly holdBytes: number;
}

export const PROBE_DEFAULTS = {
  hidden: 256,
  epochs: 100,
  learningRate: 1e-3,
  weightDecay: 0.01,
  batchSize: 64,
} as const;
