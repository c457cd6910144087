import { meanOf } from '../../compensated-sum.js';
import { emptySamples } from '../../recent-samples.js';
import { hardnessStep } from '../hardness-weights.js';
import { recentStep } from '../recent-samples.js';
import { numberSetting } from '../settings.js';
import { targetedEntropy } from '../targeted-entropy.js';
import { figure } from './points.js';
import type { MethodDetails } from './types.js';

/** The targeted term by step, each step a minibatch. */
export const targetedEntropyDetails: MethodDetails = {
  tables: [
    {
      name: 'steps',
      title: 'entropy against the target by step',
      form: 'csv',
      columns: ['step', 'tokens', 'mean_entropy_nats', 'above_target_nats', 'entropy_loss', 'entropy_gradient'],
    },
  ],
  run(rollouts, settings, context, sink) {
    const target = numberSetting(settings, 'target');
    const rows = rollouts.steps.map((step) => {
      const { facts } = targetedEntropy.prepare(step, settings, context);
      const { mean_entropy_nats: mean, above_target_nats: above, entropy_loss: loss, entropy_gradient: slope } = facts;
      sink.row('steps', [step.step, step.counted, mean, above, loss, slope]);
      return { step: step.step, mean, above };
    });
    return {
      report: {
        target_nats: target,
        steps: rows.length,
        steps_below: rows.filter(({ above }) => above < 0).length,
        steps_above: rows.filter(({ above }) => above > 0).length,
        first_entropy_nats: rows[0]?.mean ?? null,
        last_entropy_nats: rows.at(-1)?.mean ?? null,
      },
      charts: [
        {
          kind: 'lines',
          chart: {
            title: 'Entropy and its target',
            note: 'The term pushes entropy up below the line and down above it.',
            xLabel: 'step',
            yLabel: 'mean token entropy, nats',
            yZero: true,
            width: 964,
            series: [{ name: 'entropy', x: rows.map((row) => row.step), y: rows.map((row) => row.mean) }],
            references: [{ value: target, label: 'target' }],
          },
        },
      ],
      warnings: [],
    };
  },
};

/** Weight of every group by its accuracy. */
export const hardnessDetails: MethodDetails = {
  tables: [
    {
      name: 'groups',
      title: 'mean reward and weight of every group',
      form: 'csv',
      columns: ['step', 'prompt_id', 'responses', 'mean_reward', 'accuracy', 'hardness', 'excluded'],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index } = context;
    const [accuracy, hardness, mean]: number[][] = [[], [], []];
    let excluded = 0;
    let mapping = 'none';
    for (const step of rollouts.steps) {
      const weights = hardnessStep(step, index, settings);
      excluded += weights.excluded;
      mapping = weights.mapping;
      const size = new Int32Array(weights.groups.groups);
      const moving = new Uint8Array(weights.groups.groups);
      weights.groups.group.forEach((g, r) => {
        size[g]++;
        if (weights.advantage[r] !== 0) moving[g] = 1;
      });
      for (let g = 0; g < size.length; g++) {
        // A signed mean of -1 is nothing right, of 1 everything.
        const right = (weights.mean[g] + 1) / 2;
        accuracy.push(right);
        mean.push(weights.mean[g]);
        hardness.push(weights.hardness[g]);
        const prompt = index.promptIds[weights.groups.numbers[g]];
        sink.row('groups', [step.step, prompt, size[g], weights.mean[g], right, weights.hardness[g], 1 - moving[g]]);
      }
    }
    const [alpha, bias] = [numberSetting(settings, 'alpha'), numberSetting(settings, 'bias')];
    const shares = Array.from({ length: 21 }, (_, i) => i / 20);
    return {
      report: {
        groups: accuracy.length,
        groups_excluded: excluded,
        rewards_mapped: mapping,
        accuracy_mean: figure(meanOf(accuracy)),
        hardness_mean: figure(meanOf(hardness)),
        hardness_all_right: alpha + bias,
        hardness_all_wrong: bias - alpha,
      },
      charts: [
        {
          kind: 'scatter',
          chart: {
            title: 'Weight of a group and its accuracy',
            note: 'Groups at accuracy 0 and 1 are left out of training.',
            xLabel: 'accuracy of the group',
            yLabel: 'D',
            width: 964,
            series: [{ name: 'groups', ...distinct(accuracy, hardness) }],
            curve: { label: 'D = alpha mu + bias', x: shares, y: shares.map((p) => alpha * (2 * p - 1) + bias) },
          },
        },
      ],
      warnings: [],
    };
  },
};

/** Groups of one accuracy have one weight: each such point once. */
function distinct(x: readonly number[], y: readonly number[]): { x: number[]; y: number[] } {
  const points = new Map(x.map((value, i) => [value, y[i]]));
  return { x: [...points.keys()], y: [...points.values()] };
}

/** The buffer of recent samples over the steps of a dump, each step a round of generation. */
export const recentDetails: MethodDetails = {
  tables: [
    {
      name: 'rounds',
      title: 'generation, use and buffers by round',
      form: 'csv',
      columns: [
        'step',
        'generated',
        'legitimate',
        'used',
        'rounds_of_update',
        'age_mean_rounds',
        'age_most_rounds',
        'buffered',
        'recovered',
        'generated_per_used',
      ],
    },
    {
      name: 'used',
      title: 'groups of every update, oldest first',
      form: 'csv',
      columns: ['step', 'prompt_id', 'generated_at_step', 'age_rounds'],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index } = context;
    const stepOfRound = rollouts.steps.map(({ step }) => step);
    const passes = ['yes', 'no'].map((recovery) => {
      let state = emptySamples<number>();
      let [generated, used, updates, since, ageSum] = [0, 0, 0, 0, 0];
      const [steps, ratio, age]: number[][] = [[], [], []];
      for (const step of rollouts.steps) {
        const { round } = recentStep(step, index, { ...settings, recovery }, state);
        const now = state.round;
        state = round.next;
        generated += round.generated;
        since += round.generated;
        const ages = (round.used ?? []).map((group) => now - group.round);
        const perUsed = round.used === undefined ? undefined : since / round.used.length;
        if (perUsed !== undefined) {
          used += ages.length;
          updates++;
          ageSum += ages.reduce((a, b) => a + b, 0);
          steps.push(step.step);
          ratio.push(perUsed);
          age.push(meanOf(ages));
          since = 0;
        }
        if (recovery !== settings.recovery) continue;
        sink.row('rounds', [
          step.step,
          round.generated,
          round.legitimate,
          ages.length,
          round.rounds,
          ages.length === 0 ? undefined : meanOf(ages),
          ages.length === 0 ? undefined : ages.reduce((most, one) => Math.max(most, one)),
          round.buffered,
          round.recovered,
          perUsed,
        ]);
        for (const group of round.used ?? [])
          sink.row('used', [step.step, index.promptIds[group.id], stepOfRound[group.round], now - group.round]);
      }
      const report = {
        recovery: recovery === 'yes',
        groups_generated: generated,
        groups_used: used,
        updates,
        rounds_per_update: figure(rollouts.steps.length / updates),
        generated_per_used: figure(generated / used),
        age_mean_rounds: figure(ageSum / used),
        left_in_buffers: state.buffer.length + state.carried.length,
      };
      return { recovery, report, steps, ratio, age };
    });
    const idle = passes[0].report.updates === 0;
    return {
      report: { batch: numberSetting(settings, 'batch'), simulations: passes.map(({ report }) => report) },
      charts: [
        {
          kind: 'lines',
          chart: {
            title: 'Groups generated for each group used',
            xLabel: 'step',
            yLabel: 'generated / used',
            yZero: true,
            series: passes.map(({ recovery, steps, ratio }) => ({
              name: recovery === 'yes' ? 'with recovery' : 'without',
              x: steps,
              y: ratio,
            })),
          },
        },
        {
          kind: 'lines',
          chart: {
            title: 'Age of the groups of an update',
            xLabel: 'step',
            yLabel: 'mean age, rounds',
            yZero: true,
            series: passes.map(({ recovery, steps, age }) => ({
              name: recovery === 'yes' ? 'with recovery' : 'without',
              x: steps,
              y: age,
            })),
          },
        },
      ],
      warnings: idle
        ? [
            `the dump never fills a batch of ${numberSetting(settings, 'batch')} groups; the setting batch=N makes it smaller`,
          ]
        : [],
    };
  },
};
