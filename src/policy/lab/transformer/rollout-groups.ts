import type { Random } from '../../../random.js';
import { branchId } from '../../cure.js';
import type { Branching } from './branches.js';
import type { IncrementalDecoder } from './incremental-decoder.js';
import type { PolicyRecord } from './policy-batch.js';
import { type Sample, type SampleRequest, type SamplingOptions, sampleResponses } from './sampling.js';
import type { Grade, PolicyTask, Prompt } from './task.js';

/** One response that can be trained on: what was newly written behind its context. */
export interface Rollout extends PolicyRecord, Grade {
  /** Unique in its group. */
  readonly id: string;
  /** Written behind a prefix of another response. */
  readonly branch: boolean;
}

/** All responses to a prompt of one round; their rewards are compared with each other. */
export interface RolloutGroup {
  readonly prompt: Prompt;
  /** Step that generated it. */
  readonly step: number;
  readonly rollouts: readonly Rollout[];
  /** Responses that are right, and all. */
  readonly correct: number;
  readonly size: number;
}

/** A policy that can be asked. */
export interface Speaker {
  readonly task: PolicyTask;
  readonly decoder: IncrementalDecoder;
  /** Sequences that the decoder reads at once. */
  readonly rows: number;
}

/** Writes any number of responses, as many at once as the decoder has rows. */
export function writeResponses(
  { task, decoder, rows }: Speaker,
  requests: readonly SampleRequest[],
  options?: SamplingOptions,
): Sample[] {
  const samples: Sample[] = [];
  for (let from = 0; from < requests.length; from += rows) {
    samples.push(...sampleResponses(decoder, task.vocabulary.length, requests.slice(from, from + rows), options));
  }
  return samples;
}

const join = (prefix: Int32Array, tokens: Int32Array): Int32Array => {
  const whole = new Int32Array(prefix.length + tokens.length);
  whole.set(prefix);
  whole.set(tokens, prefix.length);
  return whole;
};

/**
 * What of a graded response lies in its last part: positions are those of the part.
 * @param cut tokens of the response that stand before the part
 */
function gradeOfPart(grade: Grade, cut: number): Grade {
  const { thinkEnd, stepSpans, correct, reward } = grade;
  const spans = stepSpans && [...stepSpans].map((position) => Math.max(0, position - cut));
  const kept = spans?.flatMap((from, i) => (i % 2 === 0 && spans[i + 1] > from ? [from, spans[i + 1]] : []));
  return {
    correct,
    reward,
    ...(thinkEnd !== undefined && thinkEnd >= cut && { thinkEnd: thinkEnd - cut }),
    ...(kept && { stepSpans: Int32Array.from(kept) }),
  };
}

export interface RoundRequest {
  readonly prompts: readonly Prompt[];
  /** Responses to every prompt before branches. */
  readonly responses: number;
  /** Most tokens of a response, where it is less than the task's. */
  readonly limit?: number;
  readonly temperature?: number;
  /** Where further responses begin. */
  readonly branching?: Branching;
  readonly step: number;
  readonly random: Random;
}

const [FIRST, FORKS, CONTINUED] = [0, 1, 2];

/** Generates the groups of a round: responses to every prompt, then, with a branching, continuations of their prefixes. */
export function generateRound(speaker: Speaker, request: RoundRequest): RolloutGroup[] {
  const { task } = speaker;
  const { prompts, responses, branching, step, random, limit = task.responseLimit, temperature = 1 } = request;
  const first = random.fork(FIRST);
  const originals = writeResponses(
    speaker,
    prompts.flatMap((prompt, p) =>
      Array.from({ length: responses }, (_, r) => ({
        context: prompt.tokens,
        episode: task.begin(prompt),
        random: first.fork(p * responses + r),
        limit,
      })),
    ),
    { temperature },
  );
  const rollouts = prompts.map((prompt, p) =>
    originals.slice(p * responses, (p + 1) * responses).map(
      ({ tokens, mask }, r): Rollout => ({
        context: prompt.tokens,
        tokens,
        mask,
        id: String(r),
        branch: false,
        ...task.grade(prompt, tokens),
      }),
    ),
  );
  if (branching) {
    const promptOf = (response: number): Prompt => prompts[Math.floor(response / responses)];
    const read = originals.map((sample, i) => ({ ...sample, context: promptOf(i).tokens }));
    const forks = branching(read, random.fork(FORKS)).flatMap(({ response, position, count }) =>
      Array.from({ length: count }, (_, number) => ({ response, position, number })),
    );
    const continued = random.fork(CONTINUED);
    const samples = writeResponses(
      speaker,
      forks.map(({ response, position }, i) => {
        const prompt = promptOf(response);
        const { tokens, mask } = originals[response];
        const episode = task.begin(prompt);
        for (let t = 0; t < position; t++) if (mask[t] === 1) episode.take(tokens[t]);
        return {
          context: join(prompt.tokens, originals[response].tokens.subarray(0, position)),
          episode,
          random: continued.fork(i),
          limit: limit - position,
        };
      }),
      { temperature },
    );
    const written = new Map<string, number>();
    forks.forEach(({ response, position }, i) => {
      const prompt = promptOf(response);
      const parent = String(response % responses);
      const key = `${response}`;
      const number = written.get(key) ?? 0;
      written.set(key, number + 1);
      const { tokens, mask } = samples[i];
      const whole = join(originals[response].tokens.subarray(0, position), tokens);
      rollouts[Math.floor(response / responses)].push({
        context: join(prompt.tokens, originals[response].tokens.subarray(0, position)),
        tokens,
        mask,
        id: branchId(parent, number),
        branch: true,
        ...gradeOfPart(task.grade(prompt, whole), position),
      });
    });
  }
  return prompts.map((prompt, p) => ({
    prompt,
    step,
    rollouts: rollouts[p],
    correct: rollouts[p].reduce((sum, { correct }) => sum + (correct ? 1 : 0), 0),
    size: rollouts[p].length,
  }));
}
