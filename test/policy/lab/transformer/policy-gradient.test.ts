import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findIntervention } from '../../../../src/policy/interventions/registry.js';
import { completeSettings } from '../../../../src/policy/interventions/settings.js';
import {
  addLogitGradients,
  policyBatch,
  scoreTokens,
  windowLength,
} from '../../../../src/policy/lab/transformer/policy-batch.js';
import { randomPolicy } from '../../../../src/policy/lab/transformer/policy-network.js';
import { scoreMinibatch, updatePolicy } from '../../../../src/policy/lab/transformer/policy-update.js';
import { generateRound, type RolloutGroup } from '../../../../src/policy/lab/transformer/rollout-groups.js';
import { sampleResponses } from '../../../../src/policy/lab/transformer/sampling.js';
import { createRandom } from '../../../../src/random.js';
import { openDecoderStudent } from '../../../../src/training/decoder-student.js';
import { createOptimizer } from '../../../../src/training/optimizer.js';
import { openSpeaker, walks } from './policy.js';

const task = walks();
let opened: Awaited<ReturnType<typeof openSpeaker>>;
let groups: RolloutGroup[];
beforeAll(async () => {
  opened = await openSpeaker(task);
  const random = createRandom(5);
  const prompts = [0, 1, 2].map((i) => task.prompt(random.fork(i), i));
  groups = generateRound(opened.speaker, { prompts, responses: 4, step: 0, random });
});
afterAll(() => opened.student.close());

describe('sampling', () => {
  it('sees the same distributions as the student', async () => {
    const { student, speaker } = opened;
    const requests = groups.flatMap(({ prompt, rollouts }) =>
      rollouts.map((_, r) => ({
        context: prompt.tokens,
        episode: task.begin(prompt),
        random: createRandom(9).fork(r),
        limit: task.responseLimit,
      })),
    );
    const samples = sampleResponses(speaker.decoder, task.vocabulary.length, requests);
    const records = samples.map(({ tokens, mask }, i) => ({ context: requests[i].context, tokens, mask }));
    const batch = policyBatch(records, windowLength(records));
    await student.evaluate(
      batch.windows,
      (block) => {
        const { logProb, entropy } = scoreTokens(batch, block);
        samples.forEach((sample, r) => {
          sample.tokens.forEach((_, t) => {
            expect(sample.logProb[t]).toBeCloseTo(logProb[batch.offsets[r] + t], 4);
            expect(sample.entropy[t]).toBeCloseTo(entropy[batch.offsets[r] + t], 4);
          });
        });
      },
      { wholeBatch: true },
    );
    expect(samples.some(({ mask }) => mask.includes(0))).toBe(true);
  });

  it('does not depend on what is written beside', () => {
    const { speaker } = opened;
    const [{ prompt }] = groups;
    const request = (fork: number) => ({
      context: prompt.tokens,
      episode: task.begin(prompt),
      random: createRandom(9).fork(fork),
      limit: task.responseLimit,
    });
    const [alone] = sampleResponses(speaker.decoder, task.vocabulary.length, [request(3)]);
    const beside = sampleResponses(
      speaker.decoder,
      task.vocabulary.length,
      [0, 1, 2, 3, 4].map((fork) => request(fork)),
    );
    expect(beside[3].tokens).toEqual(alone.tokens);
  });
});

describe('gradients', () => {
  it('agree with finite differences through the whole policy, for log-probabilities and entropies', async () => {
    const positions = task.promptLimit + task.responseLimit;
    const sizes = { layers: 2, hidden: 16, heads: 2, vocabulary: task.vocabulary.length, positions };
    const student = await openDecoderStudent(randomPolicy(sizes, createRandom(6)), {
      precision: 'f64',
      threads: 1,
      batch: 4,
      length: positions,
    });
    const records = groups[0].rollouts;
    const batch = policyBatch(records, windowLength(records));
    const random = createRandom(8);
    const byLogProb = Float64Array.from(batch.tokens, () => random.normal());
    const byEntropy = Float64Array.from(batch.tokens, () => random.normal());
    const value = async (): Promise<number> => {
      let sum = 0;
      await student.evaluate(
        batch.windows,
        (block) => {
          const { logProb, entropy } = scoreTokens(batch, block);
          batch.mask.forEach((one, i) => {
            if (one === 1) sum += byLogProb[i] * logProb[i] + byEntropy[i] * entropy[i];
          });
        },
        { wholeBatch: true },
      );
      return sum;
    };
    await student.accumulate(batch.windows, (block) => addLogitGradients(batch, block, byLogProb, byEntropy), {
      wholeBatch: true,
    });
    const { values, gradients, parameters } = student.parameters;
    for (const { offset, length } of parameters) {
      const place = offset + random.integer(length);
      const before = values[place];
      values[place] = before + 1e-5;
      const above = await value();
      values[place] = before - 1e-5;
      const below = await value();
      values[place] = before;
      const estimate = (above - below) / 2e-5;
      expect(Math.abs(estimate - gradients[place]) / (1 + Math.abs(estimate))).toBeLessThan(1e-7);
    }
    await student.close();
  });
});

describe('updates', () => {
  it('begin with ratios of exactly 1, so that the penalty of KL-Cov vanishes in the first', async () => {
    const { student } = opened;
    const { values } = student.parameters;
    const start = values.slice();
    const length = windowLength(groups.flatMap(({ rollouts }) => rollouts));
    /** Rewards that differ, whatever the untrained policy has earned. */
    const rewarded = groups.map((group, g) => ({
      ...group,
      rollouts: group.rollouts.map((rollout, r) => ({ ...rollout, reward: (g + r) % 2 })),
    }));
    const minibatch = await scoreMinibatch(student, rewarded, length, 0);
    const after: Float32Array[] = [];
    for (const name of ['grpo', 'kl-cov']) {
      values.set(start);
      const intervention = findIntervention(name);
      const settings = completeSettings(intervention, name === 'kl-cov' ? { fraction: 0.2, beta: 4 } : {});
      const optimizer = createOptimizer(student.parameters, { method: 'adamw', weightDecay: 0 });
      const rule = { intervention, settings, seed: 1, plain: {}, carried: {} };
      for (let number = 0; number < 2; number++) {
        const options = { learningRate: 0.01, maxNorm: 1, number };
        const update = await updatePolicy(student, optimizer, minibatch, rule, task, options);
        if (number === 0) expect(update.logProb).toEqual(minibatch.old.logProb);
        else expect(update.logProb).not.toEqual(minibatch.old.logProb);
        after.push(Float32Array.from(values));
      }
    }
    const [plainFirst, plainSecond, first, second] = after;
    expect(first).toEqual(plainFirst);
    expect(second).not.toEqual(plainSecond);
    values.set(start);
  });
});
