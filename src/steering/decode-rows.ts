import type { DecodeResult } from '../decoding/decode-job.js';
import type { PathsOfPrompt } from '../decoding/path-generation.js';
import { truncationDivergence } from '../decoding/top-h.js';
import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import type { DecodeBody, SamplerBody } from './decode-report.js';

/** Columns of `--path-steps`: one row a step of path nucleus. */
export const PATH_STEP_COLUMNS = [
  'prompt',
  'id',
  'step',
  'candidates',
  'joint_entropy_nats',
  'effective_paths',
  'nucleus_candidates',
  'nucleus_mass',
  'paths',
  'finished',
] as const;

const known = (value: number | undefined): number | null => (value === undefined || Number.isNaN(value) ? null : value);

/** What a step says in the table, whichever way it was made. */
export interface StepRow {
  readonly sampler: string;
  readonly prompt: number;
  readonly id: string;
  readonly sample: number;
  readonly step: number;
  readonly token: number;
  readonly tokenBytes: Uint8Array | string;
  readonly surprisalNats: number;
  /** Mean surprisal of the sequence up to and with this token. */
  readonly runningSurprisalNats: number;
  readonly entropyNats: number;
  /** Of the tempered distribution before the cut, where it is known. */
  readonly temperedEntropyNats?: number;
  readonly entropyAfterNats: number;
  readonly keptMass: number;
  readonly keptCount: number;
  readonly boundNats?: number;
  readonly exactMass?: number;
  readonly optimalityRatio?: number;
  readonly unsteeredSurprisalNats?: number;
}

function ratioOf({ entropyAfterNats, temperedEntropyNats }: StepRow): number | null {
  if (temperedEntropyNats === undefined || Number.isNaN(temperedEntropyNats)) return null;
  return temperedEntropyNats > 0 ? entropyAfterNats / temperedEntropyNats : 0;
}

/** A row of `--table`, in the order of `DECODE_STEP_COLUMNS`. */
export function stepCells(row: StepRow): Cell[] {
  return [
    row.sampler,
    row.prompt,
    row.id,
    row.sample,
    row.step,
    row.token,
    escapeToken(row.tokenBytes),
    row.surprisalNats,
    Math.exp(row.runningSurprisalNats),
    row.entropyNats,
    known(row.temperedEntropyNats),
    row.entropyAfterNats,
    ratioOf(row),
    row.keptMass,
    row.keptCount,
    truncationDivergence(row.keptMass),
    known(row.boundNats),
    known(row.exactMass),
    known(row.optimalityRatio),
    known(row.unsteeredSurprisalNats),
  ];
}

/** Rows of `--table` of what was generated. */
export function* decodedRows(
  names: readonly string[],
  decoded: DecodeResult['decoded'],
  ids: readonly string[],
  bytesOf: (token: number) => Uint8Array,
): Generator<Cell[]> {
  for (const [s, prompts] of decoded.entries()) {
    for (const [prompt, samples] of prompts.entries()) {
      for (const [sample, sequence] of samples.entries()) {
        let surprisal = 0;
        for (const [step, token] of sequence.tokens.entries()) {
          surprisal += sequence.surprisalNats[step];
          yield stepCells({
            sampler: names[s],
            prompt,
            id: ids[prompt],
            sample,
            step,
            token,
            tokenBytes: bytesOf(token),
            surprisalNats: sequence.surprisalNats[step],
            runningSurprisalNats: surprisal / (step + 1),
            entropyNats: sequence.entropyNats[step],
            temperedEntropyNats: sequence.review?.temperedEntropyNats[step],
            entropyAfterNats: sequence.entropyAfterNats[step],
            keptMass: sequence.keptMass[step],
            keptCount: sequence.keptCount[step],
            boundNats: sequence.review?.boundNats[step],
            exactMass: sequence.review?.exactMass[step],
            optimalityRatio: sequence.review?.optimalityRatio[step],
            unsteeredSurprisalNats: sequence.unsteeredSurprisalNats?.[step],
          });
        }
      }
    }
  }
}

/** Rows of `--path-steps`. */
export function* pathStepRows(prompts: readonly PathsOfPrompt[], ids: readonly string[]): Generator<Cell[]> {
  for (const [prompt, { steps }] of prompts.entries()) {
    for (const [step, figures] of steps.entries()) {
      yield [
        prompt,
        ids[prompt],
        step,
        figures.candidates,
        figures.jointEntropyNats,
        figures.effectivePaths,
        figures.nucleusCandidates,
        figures.nucleusMass,
        figures.paths,
        figures.finished,
      ];
    }
  }
}

/** Rows of `--out`, in the order of `DECODE_COLUMNS`. */
export function* samplerRows({ samplers, rows, path_nucleus }: DecodeBody): Generator<Cell[]> {
  for (const sampler of samplers) yield samplerCells(sampler, rows);
  if (path_nucleus) {
    const plan = Object.entries(path_nucleus.settings).map(([name, value]) => `${name}=${value}`);
    const { text } = path_nucleus;
    yield samplerCells({ name: 'path-nucleus', plan: plan.join(','), text, kept: null, exact: null }, null);
  }
}

function samplerCells({ name, plan, text, kept, exact }: SamplerBody, rows: number | null): Cell[] {
  return [
    name,
    plan,
    text?.generations ?? null,
    text?.tokens ?? null,
    text?.ended_share ?? null,
    text?.mean_surprisal_nats.mean ?? null,
    text?.mean_surprisal_nats.se ?? null,
    text?.perplexity ?? null,
    text?.distinct_1 ?? null,
    text?.distinct_2 ?? null,
    text?.distinct_3 ?? null,
    text?.repetition_4.mean ?? null,
    text?.self_bleu_4.mean ?? null,
    text?.vendi_score.mean ?? null,
    text?.edit_distance_share.mean ?? null,
    kept ? rows : null,
    kept?.mean_entropy_tempered_nats.mean ?? null,
    kept?.mean_entropy_after_nats.mean ?? null,
    kept?.mean_kept_mass.mean ?? null,
    kept?.mean_kept_count.mean ?? null,
    kept?.kept_count_quantiles[2] ?? null,
    kept?.mean_divergence_nats.mean ?? null,
    kept?.bound_held_share ?? null,
    exact?.mean_ratio.mean ?? null,
  ];
}

/** `--generations`: one JSON object a line and continuation; paths come with log-probability and weight. */
export function generationLines(
  names: readonly string[],
  decoded: DecodeResult['decoded'],
  paths: readonly PathsOfPrompt[] | undefined,
  ids: readonly string[],
  textOf: (tokens: ArrayLike<number>) => string,
): string {
  const lines: string[] = [];
  const mean = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  decoded.forEach((prompts, s) => {
    prompts.forEach((samples, prompt) => {
      samples.forEach(({ tokens, ended, surprisalNats }, sample) => {
        lines.push(
          JSON.stringify({
            sampler: names[s],
            prompt,
            id: ids[prompt],
            sample,
            ended,
            mean_surprisal_nats: mean(surprisalNats),
            text: textOf(tokens),
            token_ids: Array.from(tokens),
          }),
        );
      });
    });
  });
  paths?.forEach((of, prompt) => {
    of.paths.forEach(({ tokens, logProbability, finished, weight }, sample) => {
      lines.push(
        JSON.stringify({
          sampler: 'path-nucleus',
          prompt,
          id: ids[prompt],
          sample,
          ended: finished ? 'stop' : 'length',
          log_probability_nats: logProbability,
          weight,
          text: textOf(tokens),
          token_ids: [...tokens],
        }),
      );
    });
  });
  return lines.map((line) => `${line}\n`).join('');
}
