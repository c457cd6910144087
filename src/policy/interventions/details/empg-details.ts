import { pearson } from '../../../linalg/correlation.js';
import { addTo, createCompensatedSum, meanOf, totalOf } from '../../compensated-sum.js';
import type { RolloutStep } from '../../rollouts/types.js';
import { empgBatch } from '../empg.js';
import { figure, RECORD_COLUMNS, recordCells, strideOf, thinned, thinningNote } from './points.js';
import type { DetailChart, MethodDetails } from './types.js';

const DECILES = 10;

interface Turns {
  readonly entropy: number[];
  readonly scale: number[];
  readonly final: number[];
  readonly tokens: number[];
  /** 1, 0, or NaN where it is not known. */
  readonly success: number[];
}

/** Share of |A_final| that the turns of every tenth by entropy carry, from the least uncertain. */
function decileShares({ entropy, final }: Turns) {
  const order = Int32Array.from(entropy, (_, i) => i).sort((a, b) => entropy[a] - entropy[b] || a - b);
  const total = final.reduce((sum, value) => sum + Math.abs(value), 0);
  return Array.from({ length: DECILES }, (_, d) => {
    const from = Math.floor((d * order.length) / DECILES);
    const to = Math.floor(((d + 1) * order.length) / DECILES);
    let sum = 0;
    for (let i = from; i < to; i++) sum += Math.abs(final[order[i]]);
    return {
      decile: d + 1,
      turns: to - from,
      entropy_from_nats: to > from ? entropy[order[from]] : null,
      entropy_to_nats: to > from ? entropy[order[to - 1]] : null,
      share_of_advantage: figure(sum / total),
    };
  });
}

function chartsOf(turns: Turns): DetailChart[] {
  const stride = strideOf(turns.entropy.length);
  const kinds = [
    ['success', (value: number) => value > 0],
    ['failure', (value: number) => value <= 0],
    ['not known', (value: number) => Number.isNaN(value)],
  ] as const;
  const chart = (title: string, note: string, yLabel: string, values: readonly number[]): DetailChart => ({
    kind: 'scatter',
    chart: {
      title,
      note: `${note}${thinningNote(stride)}`,
      xLabel: 'mean entropy of the turn, nats',
      yLabel,
      series: kinds
        .map(([name, holds]) => {
          const own = Array.from(values.keys()).filter((i) => holds(turns.success[i]));
          return {
            name,
            x: thinned(
              own.map((i) => turns.entropy[i]),
              stride,
            ),
            y: thinned(
              own.map((i) => values[i]),
              stride,
            ),
          };
        })
        .filter(({ x }) => x.length > 0),
    },
  });
  return [
    chart('Scale of a turn', 'Above 1 a turn is amplified; the mean over turns is 1.', 'g', turns.scale),
    chart('Advantage of a turn', 'Final advantage, without its mean over all turns.', 'final advantage', turns.final),
  ];
}

/**
 * Bounds on the mean of E ||grad log pi||^2 = 1 - sum pi^2 from top-k log-probabilities: the squares of the tail sum to between
 * 0 and tail mass * min(tail mass, smallest kept probability).
 */
function scoreNormBounds(steps: readonly RolloutStep[]): { lower: number; upper: number } | undefined {
  const [lower, upper] = [createCompensatedSum(), createCompensatedSum()];
  let tokens = 0;
  for (const step of steps) {
    for (const { topTokens, mask } of step.blocks()) {
      if (topTokens === undefined) return undefined;
      const { k, logProbs } = topTokens;
      for (let i = 0; i < mask.length; i++) {
        if (mask[i] === 0) continue;
        let [mass, squares, smallest] = [0, 0, 1];
        for (let j = i * k; j < (i + 1) * k && logProbs[j] > Number.NEGATIVE_INFINITY; j++) {
          const p = Math.exp(logProbs[j]);
          mass += p;
          squares += p * p;
          smallest = p;
        }
        const tail = Math.max(0, 1 - mass);
        addTo(upper, Math.max(0, 1 - squares));
        addTo(lower, Math.max(0, 1 - squares - tail * Math.min(tail, smallest)));
        tokens++;
      }
    }
  }
  return { lower: totalOf(lower) / tokens, upper: totalOf(upper) / tokens };
}

/** EMPG by turn: entropy, scale, bonus and advantages. */
export const empgDetails: MethodDetails = {
  tables: [
    {
      name: 'steps',
      title: 'entropy, scale, bonus and advantages of every turn',
      form: 'csv',
      columns: [
        ...RECORD_COLUMNS,
        'turn',
        'tokens',
        'entropy_nats',
        'entropy_normalised',
        'g',
        'bonus',
        'advantage',
        'advantage_modulated',
        'advantage_final',
      ],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index } = context;
    const turns: Turns = { entropy: [], scale: [], final: [], tokens: [], success: [] };
    const ranges: { [key: string]: number | string | null }[] = [];
    let single = 0;
    for (const step of rollouts.steps) {
      const { entropy, tokens, span, offsets, advantage, steps } = empgBatch(step, index, settings);
      const placeOf = new Int32Array(entropy.length);
      for (let r = 0; r < step.records.length; r++) {
        if (offsets[r + 1] - offsets[r] === 1) single++;
        for (let j = offsets[r]; j < offsets[r + 1]; j++) {
          placeOf[j] = r;
          turns.entropy.push(entropy[j]);
          turns.scale.push(steps.scale[j]);
          turns.final.push(steps.final[j]);
          turns.tokens.push(tokens[j]);
          turns.success.push(index.correct?.[step.records[r]] ?? Number.NaN);
          sink.row('steps', [
            ...recordCells(rollouts, step.records[r]),
            span[j],
            tokens[j],
            entropy[j],
            steps.normalised[j],
            steps.scale[j],
            steps.bonus[j],
            advantage[r],
            steps.modulated[j],
            steps.final[j],
          ]);
        }
      }
      ranges.push({
        step: step.step,
        least_nats: entropy[steps.least],
        least_record: step.records[placeOf[steps.least]],
        least_turn: span[steps.least],
        most_nats: entropy[steps.most],
        most_record: step.records[placeOf[steps.most]],
        most_turn: span[steps.most],
      });
    }
    const weighted = createCompensatedSum();
    turns.final.forEach((value, j) => {
      addTo(weighted, value * turns.tokens[j]);
    });
    const tokens = turns.tokens.reduce((sum, one) => sum + one, 0);
    const norm = scoreNormBounds(rollouts.steps);
    return {
      report: {
        turns: turns.entropy.length,
        tokens,
        trajectories_of_one_turn: single,
        final_mean_over_turns: figure(meanOf(turns.final)),
        final_mean_over_tokens: figure(totalOf(weighted) / tokens),
        pearson_length_entropy: figure(pearson(Float64Array.from(turns.tokens), Float64Array.from(turns.entropy))),
        ranges,
        entropy_deciles: decileShares(turns),
        score_norm_squared: norm === undefined ? null : { lower: norm.lower, upper: norm.upper },
      },
      charts: chartsOf(turns),
      warnings: single > 0 ? [`${single} trajectories have one turn, which gets no bonus`] : [],
    };
  },
};
