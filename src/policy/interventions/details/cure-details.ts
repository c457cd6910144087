import { branchId, isBranchId, regenerationGroupSize, rewardsByOrigin } from '../../cure.js';
import type { RolloutIndex, Rollouts, TokenBlock } from '../../rollouts/types.js';
import { createCureReader } from '../cure.js';
import { eachRecord, wholeSetting } from '../record-effects.js';
import { choiceSetting } from '../settings.js';
import type { InterventionContext } from '../types.js';
import { figure, histogramOf, RECORD_COLUMNS, recordCells } from './points.js';
import { textAround, textBetween } from './token-context.js';
import type { DetailChart, DetailSink, MethodDetails } from './types.js';

const BINS = 20;
/** Columns of numbers in which dumps store how many tokens a prompt has. */
const PROMPT_LENGTHS = ['prompt_length', 'prompt_tokens', 'num_prompt_tokens', 'prompt_len'];

interface Frequency {
  count: number;
  drawn: number;
  entropy: number;
}

/** Relative positions are binned, not kept: a dump has twenty critical tokens a response. */
interface Seen {
  readonly critical: Float64Array;
  readonly drawn: Float64Array;
  readonly texts: Map<string, Frequency>;
}

function binOf(position: number, length: number): number {
  return Math.min(BINS - 1, Math.floor((position / length) * BINS));
}

function idOf(index: RolloutIndex, record: number): string {
  return index.responseIds?.[record] ?? `record-${record}`;
}

/** Writes the prefixes of one response for its continuations. */
function writePrefixes(
  sink: DetailSink,
  rollouts: Rollouts,
  block: TokenBlock,
  context: InterventionContext,
  cut: { record: number; from: number; position: number; kept: number; truncated: boolean; branches: number },
): void {
  const { index, textOf } = context;
  const { tokens } = block;
  const { record, from, position, kept, truncated, branches } = cut;
  const group = index.group[record];
  const parent = idOf(index, record);
  const text = textOf === undefined ? undefined : textBetween(block, textOf, from, from + kept);
  const ids = tokens === undefined ? undefined : [...tokens.subarray(from, from + kept)];
  const prompt = rollouts.promptOf?.(group);
  for (let branch = 0; branch < branches; branch++) {
    const id = branchId(parent, branch);
    sink.row('prefixes', [id, index.step[record], index.promptIds[group], prompt, text, ids, position, truncated]);
  }
}

function entropyBySteps(rollouts: Rollouts, index: RolloutIndex): DetailChart[] {
  if (!rollouts.columns.has('entropy')) return [];
  const origins = [false, true].map((branch) => ({ branch, x: [] as number[], y: [] as number[] }));
  for (const step of rollouts.steps) {
    const sums = [0, 0];
    const tokens = [0, 0];
    for (const block of step.blocks()) {
      eachRecord(block, (record, from, to) => {
        const side = isBranchId(index.responseIds?.[record] ?? '') ? 1 : 0;
        for (let i = from; i < to; i++) {
          if (block.mask[i] === 0) continue;
          sums[side] += block.entropy?.[i] ?? 0;
          tokens[side]++;
        }
      });
    }
    origins.forEach(({ x, y }, side) => {
      if (tokens[side] === 0) return;
      x.push(step.step);
      y.push(sums[side] / tokens[side]);
    });
  }
  const series = origins
    .filter(({ x }) => x.length > 0)
    .map(({ branch, x, y }) => ({ name: branch ? 'branches' : 'originals', x, y }));
  const chart = { title: 'Entropy by step', xLabel: 'step', yLabel: 'mean token entropy, nats', yZero: true, series };
  return [{ kind: 'lines', chart }];
}

/** CURE by response: critical tokens with context, their texts by frequency, and prefixes that any generator can continue. */
export const cureDetails: MethodDetails = {
  tables: [
    {
      name: 'critical',
      title: 'critical tokens of every response, highest entropy first',
      form: 'csv',
      columns: [...RECORD_COLUMNS, 'rank', 'position', 'relative_position', 'entropy_nats', 'text', 'context', 'drawn'],
    },
    {
      name: 'frequencies',
      title: 'texts of critical tokens by frequency',
      form: 'csv',
      columns: ['text', 'count', 'share', 'drawn', 'entropy_mean_nats'],
    },
    {
      name: 'prefixes',
      title: 'prompts and prefixes of the responses to be continued, one line a continuation',
      form: 'jsonl',
      columns: [
        'response_id',
        'step',
        'prompt_id',
        'prompt',
        'response_prefix',
        'response_prefix_tokens',
        'position',
        'truncated',
      ],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index, textOf } = context;
    const branches = wholeSetting(settings, 'branches', 'cure');
    const budget = wholeSetting(settings, 'prompt-budget', 'cure');
    const seen: Seen = { critical: new Float64Array(BINS), drawn: new Float64Array(BINS), texts: new Map() };
    const promptLengths = PROMPT_LENGTHS.map((name) => index.components?.get(name)).find((one) => one !== undefined);
    let [critical, fallbacks, truncated, prefixTokens] = [0, 0, 0, 0];
    for (const step of rollouts.steps) {
      const reader = createCureReader(step, settings, context);
      for (const block of step.blocks()) {
        eachRecord(block, (record, from, to) => {
          const cured = reader.read(block, record, from, to);
          const length = to - from;
          cured.critical.forEach((position, rank) => {
            const i = from + position;
            const around = textAround(block, textOf, i, [from, to]);
            const text = around?.text ?? '';
            const entropy = block.entropy?.[i] ?? block.entropyLower?.[i] ?? 0;
            const chosen = position === cured.position;
            const before = seen.texts.get(text) ?? { count: 0, drawn: 0, entropy: 0 };
            seen.texts.set(text, {
              count: before.count + 1,
              drawn: before.drawn + (chosen ? 1 : 0),
              entropy: before.entropy + entropy,
            });
            seen.critical[binOf(position, length)]++;
            sink.row('critical', [
              ...recordCells(rollouts, record),
              rank,
              position,
              position / length,
              entropy,
              text,
              around?.context,
              chosen ? 1 : 0,
            ]);
          });
          critical += cured.critical.length;
          if (cured.critical.length === 0) fallbacks++;
          else seen.drawn[binOf(cured.position, length)]++;
          const prompt = promptLengths?.[record] ?? 0;
          const kept = Math.min(cured.position, Math.max(0, budget - prompt));
          const cutOff = prompt + cured.position > budget;
          if (cutOff) truncated++;
          prefixTokens += kept;
          const cut = { record, from, position: cured.position, kept, truncated: cutOff, branches };
          writePrefixes(sink, rollouts, block, context, cut);
        });
      }
    }
    const texts = [...seen.texts].sort(([a, x], [b, y]) => y.count - x.count || (a < b ? -1 : 1));
    for (const [text, { count, drawn, entropy }] of texts)
      sink.row('frequencies', [text, count, count / critical, drawn, entropy / count]);
    const origin =
      index.reward && rewardsByOrigin(index.reward, (record) => isBranchId(index.responseIds?.[record] ?? ''));
    const { edges } = histogramOf([], BINS, [0, 1]);
    const size = index.records / index.groups;
    return {
      report: {
        order: choiceSetting(settings, 'order'),
        responses: index.records,
        critical_tokens: critical,
        critical_texts: texts.length,
        responses_without_critical_tokens: fallbacks,
        branches: index.records * branches,
        responses_of_a_prompt_mean: size,
        group_size: Number.isInteger(size) ? regenerationGroupSize(size, branches) : null,
        prefix_tokens_mean: figure(prefixTokens / index.records),
        prefixes_truncated: truncated,
        prompt_tokens_known: promptLengths !== undefined,
        reward_by_origin:
          origin === undefined
            ? null
            : {
                originals: { responses: origin.originals.records, mean: figure(origin.originals.meanReward) },
                branches: { responses: origin.branches.records, mean: figure(origin.branches.meanReward) },
              },
        most_frequent: texts.slice(0, 20).map(([text, { count }]) => ({ text, count })),
      },
      charts: [
        {
          kind: 'histogram',
          chart: {
            title: 'Where critical tokens stand',
            note: 'Position over the length of the response; a cut is drawn uniformly among the critical tokens.',
            xLabel: 'relative position',
            unit: 'unit of position',
            items: 'tokens',
            height: 250,
            series: [
              { name: 'critical', histogram: { edges, counts: seen.critical } },
              { name: 'drawn', histogram: { edges, counts: seen.drawn } },
            ],
          },
        },
        ...entropyBySteps(rollouts, index),
      ],
      warnings: [
        ...(truncated > 0
          ? [`${truncated} prefixes are longer than ${budget} tokens and lose their critical point`]
          : []),
        ...(promptLengths === undefined
          ? [
              'the dump does not say how long prompts are (column prompt_length); the prompt budget was held against the prefixes of the responses alone',
            ]
          : []),
      ],
    };
  },
};
