import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineHost } from '../../src/models/engine-host.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { createRandom } from '../../src/random.js';
import { type BanditArguments, type BanditProgress, PLAY_BANDIT } from '../../src/steering/bandit-job.js';
import { type BanditSetting, banditBody, checkPlayed, logRow, meanOverRuns } from '../../src/steering/bandit-report.js';

let host: EngineHost;
beforeAll(async () => {
  host = await openInThread('fixtures/models/llama-sotu', {
    threads: 2,
    maxMemoryBytes: 2 ** 33,
    device: 'cpu',
    precision: 'f32',
    context: 256,
  });
});
afterAll(() => host.close());

const ARGS: BanditArguments = {
  bandit: { means: [95, 105], sigma: 10, horizon: 15 },
  prompt: { task: 'buttons', style: 'brief', arms: 2, horizon: 15 },
  runs: [0, 1, 2],
  seed: 5,
  exact: true,
};
const SETTING: BanditSetting = {
  bandit: ARGS.bandit,
  prompt: ARGS.prompt,
  pattern: undefined,
  seed: 5,
  steering: null,
  assumptions: [],
};

describe('runs of a bandit', () => {
  it('fit fifteen steps in a context of 256', async () => {
    const events: BanditProgress[] = [];
    const runs = await host.run(PLAY_BANDIT, ARGS, (value) => events.push(value as BanditProgress));
    expect(runs.map(({ steps }) => steps.length)).toEqual([15, 15, 15]);
    expect(events.filter((event) => 'steps' in event)).toHaveLength(45);
    for (const { steps } of runs) {
      steps.forEach(({ prompt, exact, pull }, t) => {
        expect(prompt.split('\n')).toHaveLength(t + 2);
        expect(exact?.probabilities.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
        if (t > 0) expect(prompt.startsWith(steps[t - 1].prompt)).toBe(true);
        if (pull && steps[t + 1]) {
          const line = `Button ${pull.action + 1}: ${pull.reward.toFixed(0)}\n`;
          expect(steps[t + 1].prompt.endsWith(line)).toBe(true);
        }
      });
    }
  });

  it('do not depend on which others are played, and survive JSON', async () => {
    const all = await host.run(PLAY_BANDIT, ARGS);
    const [alone] = await host.run(PLAY_BANDIT, { ...ARGS, runs: [2] });
    expect(alone).toEqual(all[2]);
    expect(JSON.parse(JSON.stringify(all))).toEqual(all);
  });

  it('are steered at the reply, while prompts stay as they are', async () => {
    const random = createRandom(2);
    const vector = Float32Array.from({ length: 128 }, () => random.normal());
    const term = { layer: 2, operator: 'add', vector, scale: 6 } as const;
    const [plain] = await host.run(PLAY_BANDIT, { ...ARGS, runs: [0] });
    const steering = { terms: [term], positions: { kind: 'last' } } as const;
    const [steered] = await host.run(PLAY_BANDIT, { ...ARGS, runs: [0], steering });
    const [none] = await host.run(PLAY_BANDIT, {
      ...ARGS,
      runs: [0],
      steering: { ...steering, terms: [{ ...term, scale: 0 }] },
    });
    expect(steered.steps[0].prompt).toBe(plain.steps[0].prompt);
    expect(
      Math.abs((steered.steps[0].exact?.entropyNats ?? 0) - (plain.steps[0].exact?.entropyNats ?? 0)),
    ).toBeGreaterThan(1e-3);
    expect(none.steps.map(({ pull }) => pull)).toEqual(plain.steps.map(({ pull }) => pull));
  });

  it('end where no completion parses; when all do so, the prompts are named', async () => {
    const sampling = { samples: 2, plan: { steps: [] }, maxNewTokens: 3 };
    const runs = await host.run(PLAY_BANDIT, { ...ARGS, runs: [0, 1], exact: false, sampling });
    expect(runs.map(({ steps }) => steps.length)).toEqual([1, 1]);
    expect(() => checkPlayed(runs, SETTING)).toThrow(/run 0, step 0.*run 1, step 0/);
  });

  it('carry out one of the completions that parse', async () => {
    const sampling = { samples: 8, plan: { steps: [] }, maxNewTokens: 12, pattern: '(Button 1|Button 2)' };
    const prompt = { ...ARGS.prompt, thought: 'unused' };
    const runs = await host.run(PLAY_BANDIT, { ...ARGS, prompt, runs: [0], exact: false, sampling });
    for (const { sampled, pull } of runs[0].steps) {
      if (pull) expect(sampled?.actions).toContain(pull.action);
    }
  });

  it('that outgrow the model are refused with the way out', async () => {
    const bandit = { ...ARGS.bandit, horizon: 40 };
    const prompt = { ...ARGS.prompt, horizon: 40 };
    await expect(host.run(PLAY_BANDIT, { ...ARGS, bandit, prompt, runs: [0] })).rejects.toThrow(
      /run 0, step \d+: .*256 positions.*--history/,
    );
    const [whole] = await host.run(PLAY_BANDIT, { ...ARGS, bandit, prompt: { ...prompt, history: 5 }, runs: [0] });
    expect(whole.steps).toHaveLength(40);
  });
});

describe('the report of runs', () => {
  it('takes the run as unit', () => {
    const { mean, se, low, high } = meanOverRuns([[1, 1, 1], [3], []], 0);
    expect(mean).toBeCloseTo(1.5, 12);
    expect(se).toBeGreaterThan(0);
    expect([low, high]).toEqual([1, 3]);
    expect(meanOverRuns([[2, 4]], 0)).toEqual({ mean: 3, se: null, low: null, high: null });
    expect(meanOverRuns([[]], 0).mean).toBeNull();
  });

  it('adds up, and logs what steer compute reads', async () => {
    const runs = await host.run(PLAY_BANDIT, ARGS);
    const body = banditBody(runs, SETTING);
    expect(body.steps).toBe(45);
    expect(body.complete_step_share).toBe(1);
    const entropies = runs.flatMap(({ steps }) => steps.map(({ exact }) => exact?.entropyNats ?? Number.NaN));
    expect(body.action_entropy_nats).toBeCloseTo(entropies.reduce((a, b) => a + b, 0) / 45, 12);
    expect(body.by_step[3].action_entropy_nats).toBeCloseTo(
      runs.reduce((sum, { steps }) => sum + (steps[3].exact?.entropyNats ?? Number.NaN), 0) / 3,
      12,
    );
    const actions = runs[0].steps.map(({ pull }) => pull?.action ?? Number.NaN);
    expect(body.by_run[0].cumulative_action[14]).toBe(actions.reduce((a, b) => a + b, 0));
    expect(body.by_run[0].regret).toBe(10 * actions.filter((action) => action === 0).length);
    expect(body.warnings.join()).toMatch(/forced on it/);
    const row = logRow(1, runs[1].steps[2], SETTING);
    expect(row).toMatchObject({ run: '95,105 seed 5 run 1', step: 2, rendered: false });
    expect(row.entropy_nats).toBe(runs[1].steps[2].exact?.entropyNats);
  });
});
