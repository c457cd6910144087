import { pearson, spearman } from '../../../linalg/correlation.js';
import { meanOf } from '../../compensated-sum.js';
import { FILTER_SHARES, filterThinking } from '../../pear.js';
import { pearStep, phaseSpanOf } from '../pear.js';
import { countedPositions, entropiesOf } from '../record-effects.js';
import { choiceSetting, numberSetting } from '../settings.js';
import { figure, histogramOf, RECORD_COLUMNS, recordCells, strideOf, thinned, thinningNote } from './points.js';
import type { DetailChart, MethodDetails } from './types.js';

/** What is kept of every response: a few numbers. */
interface Collected {
  readonly length: number[];
  readonly entropy: number[];
  readonly thinkLength: number[];
  readonly think: number[];
  readonly answerLength: number[];
  readonly answer: number[];
  readonly reward: number[];
  readonly correct: number[];
}

function correlations(entropy: readonly number[], length: readonly number[]) {
  const [x, y] = [Float64Array.from(entropy), Float64Array.from(length)];
  return { pearson: figure(pearson(x, y)), spearman: figure(spearman(x, y)), responses: x.length };
}

function chartsOf(seen: Collected): DetailChart[] {
  const stride = strideOf(seen.length.length);
  const phase = (name: string, x: readonly number[], y: readonly number[]) => {
    // A phase without tokens has no place on the axes.
    const there = Array.from(x.keys()).filter((i) => x[i] > 0);
    return {
      name,
      x: thinned(
        there.map((i) => x[i]),
        stride,
      ),
      y: thinned(
        there.map((i) => y[i]),
        stride,
      ),
    };
  };
  const range: [number, number] = [
    seen.reward.reduce((least, value) => Math.min(least, value), 0),
    seen.reward.reduce((most, value) => Math.max(most, value), 1),
  ];
  const rewards = (right: number) => seen.reward.filter((_, i) => seen.correct[i] === right);
  return [
    {
      kind: 'scatter',
      chart: {
        title: 'Length and entropy by phase',
        note: `One point a response and phase; the marker is in neither.${thinningNote(stride)}`,
        xLabel: 'tokens of the phase',
        yLabel: 'mean entropy, nats',
        series: [phase('thinking', seen.thinkLength, seen.think), phase('answer', seen.answerLength, seen.answer)],
      },
    },
    {
      kind: 'histogram',
      chart: {
        title: 'Rewards of PEAR',
        note: 'A correct answer to the left of the wrong ones is punished for its uncertain thinking.',
        xLabel: 'reward',
        unit: 'unit of reward',
        items: 'responses',
        height: 250,
        series: [
          { name: 'correct', histogram: histogramOf(rewards(1), 40, range), mean: meanOf(rewards(1)) },
          { name: 'wrong', histogram: histogramOf(rewards(0), 40, range), mean: meanOf(rewards(0)) },
        ],
      },
    },
  ];
}

/** PEAR by response: phases, penalty, reward, advantage with and without the penalty; the entropy-filtering experiment. */
export const pearDetails: MethodDetails = {
  tables: [
    {
      name: 'records',
      title: 'phases, penalty and reward of every response',
      form: 'csv',
      columns: [
        ...RECORD_COLUMNS,
        'correct',
        'n_think',
        'n_answer',
        'h_think_nats',
        'h_answer_nats',
        'penalty_nats',
        'reward',
        'advantage',
        'advantage_without_penalty',
        'sign_flip',
      ],
    },
    {
      name: 'filter',
      title: 'thinking tokens that stay when those of highest entropy are left out',
      form: 'csv',
      columns: [...RECORD_COLUMNS, 'kept_share', 'n_think_kept', 'n_answer', 'h_think_kept_nats', 'threshold_nats'],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index } = context;
    const which = choiceSetting(settings, 'entropy');
    const seen: Collected = {
      length: [],
      entropy: [],
      thinkLength: [],
      think: [],
      answerLength: [],
      answer: [],
      reward: [],
      correct: [],
    };
    const filtered = FILTER_SHARES.map((share) => ({ share, thinking: 0, answer: 0, entropy: 0 }));
    let [flips, below, withoutMarker, floored] = [0, 0, 0, 0];
    const floor = numberSetting(settings, 'floor');
    for (const step of rollouts.steps) {
      const result = pearStep(step, index, settings, (record, one, block, from, to) => {
        const { markerStart, markerEnd } = phaseSpanOf(index, record, from, to);
        const behind = markerEnd < 0 ? to : Math.min(to, from + (markerStart < 0 ? markerEnd : markerStart));
        const entropy = entropiesOf(block, which, 'pear');
        const positions = countedPositions(block.mask, from, behind);
        const ascending = Float64Array.from(positions, (t) => entropy[from + t]).sort();
        filterThinking(ascending).forEach(({ kept, meanEntropy, threshold }, f) => {
          filtered[f].thinking += kept;
          filtered[f].answer += one.answerTokens;
          filtered[f].entropy += kept * meanEntropy;
          sink.row('filter', [
            ...recordCells(rollouts, record),
            FILTER_SHARES[f],
            kept,
            one.answerTokens,
            kept === 0 ? undefined : meanEntropy,
            kept === 0 ? undefined : threshold,
          ]);
        });
      });
      result.records.forEach((one, r) => {
        const record = step.records[r];
        const tokens = one.thinkTokens + one.answerTokens;
        const total = one.think * one.thinkTokens + one.answer * one.answerTokens;
        seen.length.push(tokens);
        seen.entropy.push(tokens === 0 ? 0 : total / tokens);
        seen.thinkLength.push(one.thinkTokens);
        seen.think.push(one.think);
        seen.answerLength.push(one.answerTokens);
        seen.answer.push(one.answer);
        seen.reward.push(one.reward);
        seen.correct.push(result.correct[r]);
        if (one.belowWrong) below++;
        if (result.correct[r] === 1 && one.reward === floor) floored++;
        const flip = result.correct[r] === 1 && result.advantage[r] < 0 && result.before[r] >= 0;
        sink.row('records', [
          ...recordCells(rollouts, record),
          result.correct[r],
          one.thinkTokens,
          one.answerTokens,
          one.think,
          one.answer,
          one.penalty,
          one.reward,
          result.advantage[r],
          result.before[r],
          flip ? 1 : 0,
        ]);
      });
      flips += result.flips;
      withoutMarker += result.withoutMarker;
    }
    const correct = seen.correct.filter((one) => one === 1).length;
    const rewards = (right: number) => figure(meanOf(seen.reward.filter((_, i) => seen.correct[i] === right)));
    return {
      report: {
        entropies: which,
        entropies_from: rollouts.provenance[which === 'full' ? 'entropy' : 'entropyLower'] ?? 'the dump',
        responses: seen.length.length,
        responses_without_marker: withoutMarker,
        correct,
        h_think_nats: figure(meanOf(seen.think)),
        h_answer_nats: figure(meanOf(seen.answer)),
        n_think_mean: figure(meanOf(seen.thinkLength)),
        n_answer_mean: figure(meanOf(seen.answerLength)),
        reward_correct_mean: rewards(1),
        reward_wrong_mean: rewards(0),
        correct_below_wrong: below,
        correct_at_floor: floored,
        advantage_sign_flips: flips,
        entropy_with_length: correlations(seen.entropy, seen.length),
        thinking_entropy_with_length: correlations(seen.think, seen.thinkLength),
        filtering: filtered.map(({ share, thinking, answer, entropy }) => ({
          kept_share: share,
          thinking_tokens: thinking,
          answer_tokens: answer,
          thinking_entropy_nats: figure(entropy / thinking),
        })),
      },
      charts: chartsOf(seen),
      warnings:
        below > 0
          ? [`${below} of ${correct} correct answers are rewarded less than wrong ones; floor=0 holds them`]
          : [],
    };
  },
};
