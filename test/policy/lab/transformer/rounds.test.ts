import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ContextSample,
  criticalBranching,
  windowBranching,
} from '../../../../src/policy/lab/transformer/branches.js';
import { generateRound } from '../../../../src/policy/lab/transformer/rollout-groups.js';
import { additionEngine, chainEngine } from '../../../../src/policy/lab/transformer/transformer-engine.js';
import type { LabProbe, LabRollout, LabRunRequest } from '../../../../src/policy/lab/types.js';
import { createRandom } from '../../../../src/random.js';
import { openSpeaker, sums, walks } from './policy.js';

const task = sums();
let opened: Awaited<ReturnType<typeof openSpeaker>>;
beforeAll(async () => {
  opened = await openSpeaker(task, 1);
});
afterAll(() => opened.student.close());

/** A response of words with given entropies. */
const response = (entropy: readonly number[]): ContextSample => ({
  context: Int32Array.of(0, 0, 0),
  tokens: Int32Array.from(entropy, () => task.vocabulary.indexOf('wait')),
  mask: new Uint8Array(entropy.length).fill(1),
  logProb: new Float64Array(entropy.length),
  entropy: Float64Array.from(entropy),
});

describe('branches', () => {
  it('cut at the critical tokens, never at the first one', () => {
    const branching = criticalBranching(task, { topK: 2, branches: 3, promptBudget: 100, randomOrder: false });
    const responses = Array.from({ length: 50 }, () => response([9, 1, 3, 0, 2, 1]));
    const branches = branching(responses, createRandom(1));
    expect(branches.map(({ count }) => count)).toEqual(new Array(50).fill(3));
    expect([...new Set(branches.map(({ position }) => position))].sort()).toEqual([2, 4]);
  });

  it('lose what of a prefix is beyond the budget', () => {
    const branching = criticalBranching(task, { topK: 1, branches: 1, promptBudget: 5, randomOrder: false });
    expect(branching([response([0, 0, 0, 0, 5])], createRandom(1))).toEqual([{ response: 0, position: 2, count: 1 }]);
  });

  it('fork at regions of windows above the mean 95th percentile', () => {
    const forks = windowBranching({ width: 2, budget: 4 })(
      [response([0, 0, 5, 5, 0, 0, 0, 0, 0, 0]), response([0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
      createRandom(1),
    );
    expect(forks.map(({ response: r, position }) => [r, position])).toEqual([[0, 2]]);
  });

  it('become members of the group with the prefix in their context', () => {
    const random = createRandom(5);
    const prompts = [0, 1].map((i) => task.prompt(random.fork(i), i));
    const branching = criticalBranching(task, { topK: 2, branches: 2, promptBudget: 100, randomOrder: false });
    const groups = generateRound(opened.speaker, { prompts, responses: 3, branching, step: 0, random });
    for (const { prompt, rollouts, size } of groups) {
      expect(size).toBe(3 + 3 * 2);
      const originals = rollouts.filter(({ branch }) => !branch);
      for (const rollout of rollouts.filter(({ branch }) => branch)) {
        const parent = originals[Number(rollout.id.split('/')[0])];
        const prefix = rollout.context.length - prompt.tokens.length;
        expect(rollout.context).toEqual(Int32Array.of(...prompt.tokens, ...parent.tokens.subarray(0, prefix)));
        const whole = Int32Array.of(...parent.tokens.subarray(0, prefix), ...rollout.tokens);
        expect(whole.length).toBeLessThanOrEqual(task.responseLimit);
        expect(task.grade(prompt, whole).reward).toBe(rollout.reward);
      }
    }
    expect(new Set(groups[0].rollouts.map(({ id }) => id)).size).toBe(9);
  });

  it('goes on with the world where the prefix left it', async () => {
    const world = walks();
    const { student, speaker } = await openSpeaker(world, 1);
    const random = createRandom(5);
    const prompts = [world.prompt(random, 0)];
    const branching = criticalBranching(world, { topK: 3, branches: 3, promptBudget: 100, randomOrder: true });
    const [{ rollouts }] = generateRound(speaker, { prompts, responses: 2, branching, step: 0, random });
    for (const { tokens, stepSpans, mask } of rollouts) {
      const last = stepSpans?.at(-1);
      expect(last).toBe(tokens.length);
      const turns = stepSpans ?? new Int32Array(0);
      const inTurn = (t: number): boolean => turns.some((from, i) => i % 2 === 0 && t >= from && t < turns[i + 1]);
      mask.forEach((one, t) => {
        expect(inTurn(t)).toBe(one === 1);
      });
    }
    await student.close();
  });
});

/** A run of a few seconds at most. */
function request(engine: typeof additionEngine, intervention: string, task: Record<string, number>): LabRunRequest {
  const initial = Object.fromEntries(Object.entries(engine.task).map(([name, { initial: value }]) => [name, value]));
  const small = {
    ...initial,
    ...{ layers: 1, hidden: 16, heads: 2, 'warm-steps': 8, prompts: 8, 'batch-prompts': 4, responses: 4 },
    ...{ 'evaluation-prompts': 8, 'evaluation-responses': 2, 'probe-prompts': 6, 'probe-responses': 3 },
  };
  return { method: { label: 'x', intervention, settings: {} }, seed: 3, steps: 3, task: { ...small, ...task } };
}

describe('runs', () => {
  it('give the same bytes again, records of a dump, and a probe', async () => {
    const run = async () => {
      const records: LabRollout[] = [];
      const probes: LabProbe[] = [];
      const sink = {
        rollouts: (more: readonly LabRollout[]) => records.push(...more),
        probe: (one: LabProbe) => probes.push(one),
      };
      const { curves } = await additionEngine.run(request(additionEngine, 'pear', {}), sink);
      return { curves, records, probes };
    };
    const [first, second] = [await run(), await run()];
    expect(second).toEqual(first);
    const { curves, records, probes } = first;
    expect(records).toHaveLength(3 * 4 * 4);
    expect(new Set(records.map(({ responseId }) => responseId)).size).toBe(records.length);
    for (const { tokens, logProb, oldLogProb, entropy, tokenText, topTokens } of records) {
      expect([logProb.length, oldLogProb.length, entropy.length, tokenText?.length]).toEqual(
        new Array(4).fill(tokens.length),
      );
      expect(topTokens?.ids).toHaveLength(4 * tokens.length);
    }
    const [probe] = probes;
    expect(probe.states).toHaveLength(6 * 16);
    expect(probe.records).toHaveLength(6 * 3);
    expect(probe.promptIds).toHaveLength(6);
    expect(curves.success[0]).toBeGreaterThanOrEqual(0);
    expect(curves.length[1]).toBeGreaterThan(0);
  });

  it('train under rules that need turns, branches and forks', async () => {
    const empg = await chainEngine.run(request(chainEngine, 'empg', {}));
    expect(empg.curves.reward).toHaveLength(3);
    const cure = await additionEngine.run(request(additionEngine, 'cure', { originals: 2, 'branch-steps': 2 }));
    expect(cure.curves.extra.branch_reward[1]).toBeGreaterThanOrEqual(0);
    expect(cure.curves.extra.branch_reward[2]).toBeNaN();
    const ares = await additionEngine.run(request(additionEngine, 'ares', { forks: 2 }));
    expect(ares.curves.usedGroups[0]).toBe(4);
  });

  it('refuses rules that need what the world does not have', async () => {
    await expect(chainEngine.run(request(chainEngine, 'pear', {}))).rejects.toThrow('thinkEnd');
    await expect(additionEngine.run(request(additionEngine, 'grpo', { hidden: 20 }))).rejects.toThrow('multiple of 8');
  });
});
