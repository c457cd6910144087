import type { Random } from '../../../random.js';
import { branchId } from '../../cure.js';
import type { Branch, Branching, ContextSample } from './branches.js';
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

/** A response of a round before it is graded, and its prompt. */
interface Original extends ContextSample {
  readonly prompt: Prompt;
}

function writeOriginals(speaker: Speaker, request: RoundRequest, random: Random): Original[] {
  const { task } = speaker;
  const { prompts, responses, limit = task.responseLimit, temperature = 1 } = request;
  const asked = prompts.flatMap((prompt) => Array.from({ length: responses }, () => prompt));
  const requests = asked.map((prompt, i) => ({
    context: prompt.tokens,
    episode: task.begin(prompt),
    random: random.fork(i),
    limit,
  }));
  return writeResponses(speaker, requests, { temperature }).map((sample, i) => ({
    ...sample,
    context: asked[i].tokens,
    prompt: asked[i],
  }));
}

/** Continuations of prefixes of originals, by the number of the original. */
function writeBranches(
  speaker: Speaker,
  { responses, limit = speaker.task.responseLimit, temperature = 1 }: RoundRequest,
  originals: readonly Original[],
  branches: readonly Branch[],
  random: Random,
): { readonly original: number; readonly rollout: Rollout }[] {
  const { task } = speaker;
  const written = new Int32Array(originals.length);
  const forks = branches.flatMap(({ response, position, count }) =>
    Array.from({ length: count }, () => {
      const { tokens, context } = originals[response];
      const prefix = tokens.subarray(0, position);
      const id = branchId(String(response % responses), written[response]++);
      return { response, position, id, prefix, context: join(context, prefix) };
    }),
  );
  const requests = forks.map(({ response, position, context }, i) => {
    const { prompt, tokens, mask } = originals[response];
    const episode = task.begin(prompt);
    for (let t = 0; t < position; t++) if (mask[t] === 1) episode.take(tokens[t]);
    return { context, episode, random: random.fork(i), limit: limit - position };
  });
  return writeResponses(speaker, requests, { temperature }).map(({ tokens, mask }, i) => {
    const { response: original, position, id, prefix, context } = forks[i];
    const grade = gradeOfPart(task.grade(originals[original].prompt, join(prefix, tokens)), position);
    return { original, rollout: { context, tokens, mask, id, branch: true, ...grade } };
  });
}

/** Generates the groups of a round: responses to every prompt, then, with a branching, continuations of their prefixes. */
export function generateRound(speaker: Speaker, request: RoundRequest): RolloutGroup[] {
  const { prompts, responses, branching, step, random } = request;
  const originals = writeOriginals(speaker, request, random.fork(FIRST));
  const rollouts = prompts.map((): Rollout[] => []);
  originals.forEach(({ prompt, context, tokens, mask }, i) => {
    const id = String(i % responses);
    const grade = speaker.task.grade(prompt, tokens);
    rollouts[Math.floor(i / responses)].push({ context, tokens, mask, id, branch: false, ...grade });
  });
  if (branching) {
    const branches = branching(originals, random.fork(FORKS));
    for (const { original, rollout } of writeBranches(speaker, request, originals, branches, random.fork(CONTINUED))) {
      rollouts[Math.floor(original / responses)].push(rollout);
    }
  }
  return prompts.map((prompt, p) => ({
    prompt,
    step,
    rollouts: rollouts[p],
    correct: rollouts[p].reduce((sum, { correct }) => sum + (correct ? 1 : 0), 0),
    size: rollouts[p].length,
  }));
}
