import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { comparisonReserveBytes } from '../src/entropy/compare-scoring.js';
import type { TokenisedDocument } from '../src/entropy/tokenised-document.js';
import type { WindowOptions } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { createInputLedger, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { startEngine } from '../src/models/engine-host.js';
import { type DivergenceSensitivity, SENSITIVITY_TOKENS } from '../src/quantization/divergence-sensitivity.js';
import { quantizeModel } from '../src/quantization/quantize-model.js';
import { measureMethod } from '../src/quantization/rate-distortion.js';
import type { LeftOut, SweepCandidate } from '../src/quantization/sweep-plan.js';
import { pvqPoints, pvqSettings } from '../src/quantization/sweep-pvq.js';
import { type SweepChoices, type SweepRow, sweepTotals } from '../src/quantization/sweep-report.js';
import type { Progress } from '../src/report/progress.js';
import type { ReportObject } from '../src/report/values.js';
import type { Checkpoint } from './edge-checkpoint.js';
import { closeBeforeExit, removeBeforeExit } from './edge-run.js';
import { toolVersion } from './edge-version.js';
import { DEFAULT_CONTEXT, type ModelSession, openModelSession, type Precision } from './model-session.js';
import { type CalibrationRequest, prepareHessians } from './quantize-calibration.js';
import type { SweepShared, SweepSubject } from './quantize-pvq-sweep.js';
import { runInThread } from './run-in-thread.js';
import type { RunTimings } from './run-timings.js';
import { describeConvention, documentsOf, type ScoredTextOptions, windowOptions } from './scored-text.js';
import { answerChoices, compareWithOriginal, evaluationOf, firstTokens } from './sweep-evaluation.js';

/** What a stopped sweep keeps. */
export interface SweepState {
  rows: SweepRow[];
  leftOut: LeftOut[];
  documents: number;
  scoredTokens: number;
  base?: { perplexity: number; perplexity_se: number };
  baseChoices?: SweepChoices;
}

export interface SweepWork {
  readonly options: SweepShared;
  readonly text: ScoredTextOptions;
  readonly subject: SweepSubject;
  readonly calibration: readonly string[];
  readonly calibrated: boolean;
  readonly evalData: readonly string[];
  readonly evalTokens?: number;
  readonly choices: readonly string[];
  readonly calibTokens?: number;
  readonly calibLength?: number;
  readonly hessians?: string;
  readonly damping: number;
  readonly workDir?: string;
  readonly precision: Precision;
  readonly ledger: InputLedger;
  readonly progress: Progress;
  readonly timings: RunTimings;
  readonly checkpoint: Checkpoint<SweepState>;
  warn(message: string): void;
}

export interface SweepOutcome {
  readonly state: SweepState;
  readonly convention: ReportObject | null;
  readonly calibrationTokens: number | null;
  readonly modelType: string;
  readonly digests: readonly InputDigest[];
}

/** A candidate whose weights lie ready. */
interface Prepared {
  readonly candidate: SweepCandidate;
  readonly row: Omit<SweepRow, 'evaluation' | 'choices'>;
  /** The engine's model, and the file of weights that replace its own. */
  readonly path: string;
  readonly replacements?: string;
  readonly files: readonly string[];
}

/** A file of Hessians and the model it is of. */
interface Moments {
  readonly path: string;
  readonly modelSha256: string;
  /** Measured once, at the middle of the rates, for the variants that allocate by it. */
  readonly divergence?: DivergenceSensitivity;
}

/** Candidates that are tried beside one pass of the original, at most. */
const MOST_TOGETHER = 4;
/** What an engine needs beside its weights. */
const ENGINE_BYTES = 300 << 20;

/** Quantises every candidate that is not done, and measures it against the original. */
export async function runSweep(work: SweepWork): Promise<SweepOutcome> {
  const { subject, checkpoint, timings } = work;
  const state = checkpoint.found ?? { rows: [], leftOut: [], documents: 0, scoredTokens: 0 };
  const done = new Set([...state.rows.map(({ id }) => id), ...state.leftOut.map(({ method }) => method)]);
  const waiting = subject.plan.candidates.filter(({ id }) => !done.has(id));
  const folder = mkdtempSync(join(work.workDir ?? tmpdir(), 'surprisal-sweep-'));
  const remove = removeBeforeExit(folder);
  let session: ModelSession | undefined;
  try {
    const calibration = work.calibrated ? await calibrated(work, folder) : undefined;
    const evaluated = work.evalData.length > 0 || work.choices.length > 0;
    const together = evaluated ? candidatesTogether(work) : 1;
    timings.begin('open the model');
    session = await openModelSession(subject.spec, sessionOptions(work, together));
    const windows = work.evalData.length > 0 ? windowsOf(work, session) : undefined;
    if (work.choices.length > 0 && !state.baseChoices) {
      state.baseChoices = await answerChoices(session.host, work.choices, readerOf(work, session), work.ledger);
    }
    for (let first = 0; first < waiting.length; first += together) {
      const prepared: Prepared[] = [];
      for (const candidate of waiting.slice(first, first + together)) {
        timings.begin(`quantise ${candidate.id}`);
        const ready = await prepare(work, candidate, folder, calibration);
        if ('reason' in ready) state.leftOut.push(ready);
        else prepared.push(ready);
      }
      timings.begin(`measure ${prepared.map(({ candidate }) => candidate.id).join(', ')}`);
      await measure(work, state, prepared, { session, windows, together, first: first === 0 });
      for (const { files } of prepared) for (const file of files) rmSync(file, { recursive: true, force: true });
      checkpoint.save(state);
    }
    timings.begin('hash the inputs');
    return {
      state,
      convention: windows ? describeConvention(windows, session.host.info.modelType) : null,
      calibrationTokens: calibration?.tokens ?? null,
      modelType: session.host.info.modelType,
      digests: await session.digests(),
    };
  } finally {
    await session?.close();
    remove();
  }
}

/** The Hessians of the run: of the file that is named, or made from `--data`. */
async function calibrated(work: SweepWork, folder: string): Promise<Moments & { readonly tokens: number }> {
  const { subject, calibTokens, calibLength } = work;
  const sensitivity = sensitivityRequest(work);
  const { path, modelSha256, tokens, divergence } = await prepareHessians({
    ...work,
    ...(sensitivity && { sensitivity }),
    spec: subject.spec,
    path: subject.path,
    files: subject.files,
    selected: subject.selection.selected,
    data: work.calibration,
    ...(calibTokens !== undefined && { tokens: calibTokens }),
    ...(calibLength !== undefined && { length: calibLength }),
    file: work.hessians ?? join(folder, 'hessians.safetensors'),
  });
  return { path, modelSha256, tokens, ...(divergence && { divergence }) };
}

/** Noise of the middle one of the rates that are allocated by their effect on predictions. */
function sensitivityRequest({ subject, options }: SweepWork): CalibrationRequest['sensitivity'] {
  const rates = subject.plan.candidates.flatMap(({ run }) =>
    run.kind === 'pvq' && run.variant.allocation === 'kl' ? run.bitsPerWeight : [],
  );
  if (rates.length === 0) return undefined;
  const bitsPerWeight = rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)];
  return { tokens: SENSITIVITY_TOKENS, explicit: false, bitsPerWeight, seed: String(options.seed) };
}

/** Engines that fit beside the original's. */
function candidatesTogether({ options, subject }: SweepWork): number {
  const each = 4 * subject.modelWeights + ENGINE_BYTES;
  const free = options.maxMemory - process.memoryUsage.rss();
  return Math.min(MOST_TOGETHER, Math.max(1, Math.floor(free / each) - 1));
}

/** An equal share of memory for the original and each candidate beside it; two engines work at a time. */
function sessionOptions({ options, precision }: SweepWork, together: number) {
  const used = process.memoryUsage.rss();
  return {
    ...options,
    precision,
    maxMemory: used + Math.floor(Math.max(0, options.maxMemory - used) / (together + 1)),
    threads: Math.max(1, Math.floor(options.threads / 2)),
    reserveBytes: comparisonReserveBytes(precision),
  };
}

function windowsOf({ options, text }: SweepWork, { host, tokenizer, context }: ModelSession): WindowOptions {
  return windowOptions(options, text, {
    name: host.info.path,
    ...(tokenizer && { tokenizer }),
    vocabularySize: host.info.vocabularySize,
    maxPositions: host.info.maxPositions,
    context,
  });
}

function readerOf({ options }: SweepWork, { tokenizer, context }: ModelSession) {
  return { tokenizer, context, seed: options.seed };
}

const MEASURE_METHOD = {
  module: new URL('../src/quantization/rate-distortion.js', import.meta.url).href,
  job: measureMethod,
};
const QUANTIZE_MODEL = {
  module: new URL('../src/quantization/quantize-model.js', import.meta.url).href,
  job: quantizeModel,
};

/** Quantises one candidate; a rate that its method cannot reach is left out, with the reason. */
async function prepare(
  work: SweepWork,
  candidate: SweepCandidate,
  folder: string,
  hessians: Moments | undefined,
): Promise<Prepared | LeftOut> {
  if (candidate.run.kind === 'baseline')
    return prepareBaseline(work, candidate, candidate.run.settings, folder, hessians);
  try {
    return await preparePvq(work, candidate, candidate.run, folder, hessians);
  } catch (error) {
    if (!(error instanceof InputError) || !/reach/.test(error.message)) throw error;
    return {
      method: candidate.id,
      asked_bits_per_weight: candidate.askedBitsPerWeight[0] ?? null,
      bits_per_weight: null,
      reason: error.message,
    };
  }
}

function rowHead(candidate: SweepCandidate) {
  const { id, method, title, askedBitsPerWeight } = candidate;
  return { id, method, title, asked_bits_per_weight: askedBitsPerWeight };
}

async function prepareBaseline(
  work: SweepWork,
  candidate: SweepCandidate,
  settings: Readonly<Record<string, number>>,
  folder: string,
  hessians: Moments | undefined,
): Promise<Prepared> {
  const { subject, options, progress } = work;
  const evaluated = work.evalData.length > 0 || work.choices.length > 0;
  const out = join(folder, `${candidate.id.replace(/[^\w.-]/g, '_')}.safetensors`);
  let weights = 0;
  const { points, warnings } = await runInThread(
    MEASURE_METHOD,
    {
      model: subject.path,
      selection: subject.patterns,
      choice: { method: candidate.method, settings },
      seed: String(options.seed),
      ...(hessians && { hessians }),
      damping: work.damping,
      ...(evaluated && { out }),
      threads: options.threads,
    },
    (value) => {
      const { rows, columns } = value as { rows: number; columns: number };
      weights += rows * columns;
      progress.update(weights, candidate.id);
    },
    options.threads,
  );
  return {
    candidate,
    row: { ...rowHead(candidate), ...sweepTotals(points, subject.kept), warnings, tensors: points },
    path: subject.path,
    ...(evaluated && { replacements: out }),
    files: evaluated ? [out] : [],
  };
}

async function preparePvq(
  work: SweepWork,
  candidate: SweepCandidate,
  run: Extract<SweepCandidate['run'], { kind: 'pvq' }>,
  folder: string,
  hessians: Moments | undefined,
): Promise<Prepared> {
  const { subject, options, progress } = work;
  const out = join(folder, candidate.id.replace(/[^\w.-]/g, '_'));
  const { body } = await runInThread(
    QUANTIZE_MODEL,
    {
      source: subject.path,
      shown: subject.spec,
      out,
      selection: subject.patterns,
      settings: pvqSettings(run.variant, run.bitsPerWeight, { seed: String(options.seed), damping: work.damping }),
      ...(hessians && run.variant.hessian && { hessians }),
      ...(hessians?.divergence && run.variant.allocation === 'kl' && { divergence: hessians.divergence }),
      head: {
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'quantize-pvq sweep',
        parameters: {},
        inputs: [],
      },
      force: true,
      resume: false,
      threads: options.threads,
    },
    (value) => progress.update((value as { weights: number }).weights, candidate.id),
    options.threads,
  );
  const points = pvqPoints(body, candidate.method);
  const totals = sweepTotals(points, subject.kept);
  // The whole of the files, metadata and gain levels that tensors share included.
  const modelBytes = body.quantized.bytes + subject.kept.bytes;
  return {
    candidate,
    row: {
      ...rowHead(candidate),
      ...totals,
      bits_per_weight: body.quantized.bits_per_weight,
      quantized_bytes: body.quantized.bytes,
      model_bytes: modelBytes,
      model_bits_per_weight: (8 * modelBytes) / subject.modelWeights,
      warnings: body.warnings,
      tensors: points,
    },
    path: out,
    files: [out],
  };
}

/** Tries prepared candidates beside the original. */
async function measure(
  work: SweepWork,
  state: SweepState,
  prepared: readonly Prepared[],
  run: { session: ModelSession; windows: WindowOptions | undefined; together: number; first: boolean },
): Promise<void> {
  const { options, precision } = work;
  const { session, windows } = run;
  if (prepared.length === 0) return;
  if (!windows && work.choices.length === 0) {
    for (const { row } of prepared) state.rows.push({ ...row, evaluation: null, choices: null });
    return;
  }
  const { maxMemory, threads, reserveBytes } = sessionOptions(work, run.together);
  const hosts = await Promise.all(
    prepared.map(({ path, replacements }) =>
      startEngine(path, {
        threads,
        maxMemoryBytes: maxMemory,
        device: options.device,
        precision,
        context: options.context ?? DEFAULT_CONTEXT,
        reserveBytes,
        ...(replacements !== undefined && { replacements }),
      }),
    ),
  );
  const forget = closeBeforeExit(async () => {
    await Promise.all(hosts.map((host) => host.close()));
  });
  try {
    const named = prepared.map(({ candidate }, i) => ({ name: candidate.id, host: hosts[i] }));
    const compared =
      windows &&
      (await compareWithOriginal(session.host, named, textOf(work, session, windows, run.first), () => undefined));
    if (compared) {
      const [first] = compared.candidates;
      state.documents = compared.documents;
      state.scoredTokens = compared.scoredTokens;
      state.base = { perplexity: first.base_perplexity, perplexity_se: first.base_perplexity_se };
    }
    for (const [i, { row }] of prepared.entries()) {
      const choices =
        work.choices.length > 0
          ? await answerChoices(hosts[i], work.choices, readerOf(work, session), createInputLedger())
          : null;
      state.rows.push({ ...row, evaluation: compared ? evaluationOf(compared.candidates[i]) : null, choices });
    }
  } finally {
    forget();
    await Promise.all(hosts.map((host) => host.close()));
  }
}

function textOf(work: SweepWork, { host, tokenizer }: ModelSession, windows: WindowOptions, hashed: boolean) {
  const { options, text, evalData, evalTokens } = work;
  const vocabulary = host.info.vocabularySize;
  return {
    windows,
    vocabulary,
    seed: options.seed,
    documents(): AsyncIterable<TokenisedDocument> {
      // Only the first pass hashes what it reads.
      const ledger = hashed ? work.ledger : createInputLedger();
      const subject = { ...(tokenizer && { tokenizer }), vocabularySize: vocabulary };
      const all = documentsOf(evalData, { ...options, shard: undefined }, text, ledger, subject);
      return firstTokens(all, evalTokens);
    },
  };
}
