import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { FUSION_LOSSES, type FusionLoss, LAMBDA_SCHEDULES } from '../src/fusion/knowledge/fusion-functions.js';
import type { StatisticsRule } from '../src/fusion/knowledge/mapping-statistics.js';
import { FEEDBACK_WEIGHT, SELECTION_THRESHOLD } from '../src/fusion/knowledge/selector.js';
import { moveRuleOf } from '../src/fusion/knowledge/source-map.js';
import { type GateMode, STRATEGIES, type StrategySettings } from '../src/fusion/knowledge/strategies.js';
import type { CostRule } from '../src/fusion/knowledge/token-pair.js';
import type { TokenTextMode } from '../src/fusion/knowledge/token-text.js';
import type { MoveOptions, MoveRule, TokenMapKind } from '../src/fusion/knowledge/types.js';
import type { ReportValue } from '../src/report/values.js';
import type { TrainOptions } from './distill-options.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import type { FusionTextOptions } from './fuse-knowledge-text.js';

/** Own options of `fuse knowledge`, as commander gives them. */
export interface KnowledgeOptions extends TrainOptions, FusionTextOptions {
  readonly pivot?: string;
  readonly source?: readonly string[];
  readonly strategy?: string;
  readonly map?: string;
  readonly move?: string;
  readonly tokenText?: string;
  readonly msRule?: string;
  readonly fallback?: string;
  readonly alignmentMatrix?: boolean;
  readonly topK?: string;
  readonly temperature?: string;
  readonly lambda?: string;
  readonly lambdaSchedule?: string;
  readonly fusionLoss?: string;
  readonly mask?: string;
  readonly gate?: string;
  readonly gateThreshold?: string;
  readonly gateRate?: string;
  readonly feedbackWeight?: string;
  readonly nearTie?: string;
  readonly pairwise?: boolean;
  readonly merge?: string;
  readonly sceSelect?: string;
  readonly captures?: string;
  readonly dropNan?: boolean;
  readonly dtype?: string;
}

export const MERGES = ['varm', 'sce', 'linear'] as const;
const MAPS = ['ms', 'mined', 'cooccurrence', 'exact'] as const satisfies readonly TokenMapKind[];
const RULES = ['fusechat', 'fusellm-soft', 'fusellm-hard'] as const satisfies readonly MoveRule[];

/** Declares them, those of steps and of text apart. */
export function addKnowledgeOptions(command: Command): Command {
  return command
    .option('--pivot <model>', 'the model that learns, a directory')
    .option('--source <model>', 'a model that it learns from; repeatable', (text: string, all: string[] = []) => [
      ...all,
      text,
    ])
    .option('--strategy <name>', `${STRATEGIES.join(', ')}: how sources become one target (default mince)`)
    .option('--map <kind>', `${MAPS.join(', ')}: which pivot token stands for a source's (default ms)`)
    .option('--move <rule>', `${RULES.join(', ')}: how distributions are moved (default: as the map's project)`)
    .option('--token-text <mode>', 'compare tokens as the vocabulary writes them (vocab) or decoded (default vocab)')
    .option('--ms-rule <rule>', 'of --map ms: frequency or fusechat (default frequency)')
    .option('--fallback <rule>', 'one-hot row of a position without a source: next or fusellm (default next)')
    .option('--no-alignment-matrix', 'of --move fusechat: no row where several source tokens meet a pivot token')
    .option('--top-k <n>', 'likeliest tokens that are kept of each position (default 10)')
    .option('--temperature <t>', 'of the kept logits (default 1)')
    .option('--lambda <x>', 'weight of the language modelling loss (default 0.9)')
    .option('--lambda-schedule <name>', `${LAMBDA_SCHEDULES.join(', ')} (default constant)`)
    .option('--fusion-loss <name>', `${FUSION_LOSSES.join(', ')}: of the fused target (default ce)`)
    .option('--mask <rows>', 'positions of the fused loss: attention or labels (default labels)')
    .option('--gate <mode>', 'of --strategy fusion-x: trained, random, or a file of fuse select (default trained)')
    .option('--gate-threshold <x>', `of --strategy fusion-x: models above it are kept (default ${SELECTION_THRESHOLD})`)
    .option('--gate-rate <x>', "learning rate of the selector over the student's (default 100)")
    .option('--feedback-weight <x>', `of --strategy fusion-x (default ${FEEDBACK_WEIGHT})`)
    .option('--near-tie <nats>', 'gap of cross-entropies that is reported as a near tie (default 0.008)')
    .option('--pairwise', 'one target for each source, trained alone (FuseChat)')
    .option('--merge <method>', `of --pairwise: ${MERGES.join(', ')}: merge the targets`)
    .option('--sce-select <share>', 'of --merge sce: share of the elements that is merged (default 0.1)')
    .option('--captures <directory>', 'keep the captures here, and use those that are here')
    .option('--drop-nan', 'leave out sequences whose cross-entropy is no number')
    .option('--domain-field <name>', 'field that names the domain of a text (default: its file)')
    .option('--dtype <type>', 'type of the written weights: f32, bf16, f16 (default: as the pivot was stored)');
}

/** How captured distributions become the pivot's. */
export interface MoveSettings {
  readonly map: TokenMapKind;
  readonly statistics: StatisticsRule;
  readonly cost: CostRule;
  readonly move: MoveOptions;
  readonly tokenText: TokenTextMode;
}

/** The options of fusion, parsed. */
export interface KnowledgeSettings extends MoveSettings {
  readonly strategy: Omit<StrategySettings, 'steps'>;
  readonly kind: FusionLoss;
  readonly mask: 'attention' | 'labels';
  readonly topK: number;
  readonly temperature: number;
  readonly nearTie: number;
}

/** @throws InputError for an option that nothing would read */
function refuseStray(own: KnowledgeOptions, names: readonly (keyof KnowledgeOptions)[], needs: string): void {
  const stray = names.find((name) => own[name] !== undefined);
  if (stray) throw new InputError(`${flagOf(stray)} needs ${needs}`);
}

/** @throws InputError for values out of range, and for options that have no meaning beside others */
export function parseKnowledge(own: KnowledgeOptions, seed: number): KnowledgeSettings {
  const strategy = parseChoice('--strategy', own.strategy ?? 'mince', STRATEGIES);
  const map = parseChoice('--map', own.map ?? 'ms', MAPS);
  const rule = parseChoice('--move', own.move ?? moveRuleOf(map), RULES);
  if (map !== 'ms') refuseStray(own, ['msRule'], '--map ms');
  if (rule !== 'fusechat' && own.alignmentMatrix === false) {
    throw new InputError('--no-alignment-matrix needs --move fusechat');
  }
  if (strategy !== 'fusion-x') {
    refuseStray(own, ['gate', 'gateThreshold', 'gateRate', 'feedbackWeight'], '--strategy fusion-x');
  }
  if (strategy === 'clm') {
    refuseStray(own, ['lambda', 'lambdaSchedule', 'fusionLoss', 'mask', 'merge'], 'another --strategy than clm');
  }
  const gate = gateModeOf(own.gate);
  if (gate !== 'trained') refuseStray(own, ['gateRate'], '--gate trained');
  const schedule = parseChoice('--lambda-schedule', own.lambdaSchedule ?? 'constant', LAMBDA_SCHEDULES);
  if (schedule === 'soft') refuseStray(own, ['lambda'], 'a --lambda-schedule that reads it');
  if (own.merge !== undefined && !own.pairwise) throw new InputError('--merge needs --pairwise');
  if (own.merge !== 'sce') refuseStray(own, ['sceSelect'], '--merge sce');
  const fallback = parseChoice('--fallback', own.fallback ?? 'next', ['next', 'fusellm'] as const);
  return {
    strategy: {
      strategy,
      lambda: strategy === 'clm' ? 1 : parseNumber('--lambda', own.lambda ?? '0.9', 0, 1),
      schedule,
      seed,
      gate: {
        mode: gate,
        threshold: parseNumber('--gate-threshold', own.gateThreshold ?? String(SELECTION_THRESHOLD), 0, 1),
        feedbackWeight: parseNumber('--feedback-weight', own.feedbackWeight ?? String(FEEDBACK_WEIGHT), 0),
        rateRatio: positive('--gate-rate', own.gateRate ?? '100'),
      },
    },
    kind: parseChoice('--fusion-loss', own.fusionLoss ?? 'ce', FUSION_LOSSES),
    mask: parseChoice('--mask', own.mask ?? 'labels', ['attention', 'labels'] as const),
    topK: parseInteger('--top-k', own.topK ?? '10', 1),
    temperature: positive('--temperature', own.temperature ?? '1'),
    nearTie: parseNumber('--near-tie', own.nearTie ?? '0.008', 0),
    map,
    statistics: { rule: parseChoice('--ms-rule', own.msRule ?? 'frequency', ['frequency', 'fusechat'] as const) },
    cost: rule === 'fusechat' ? 'fusechat' : 'fusellm',
    move: { rule, fallback, alignmentMatrix: own.alignmentMatrix !== false },
    tokenText: parseChoice('--token-text', own.tokenText ?? 'vocab', ['vocab', 'decoded'] as const),
  };
}

/** Share of the elements that SCE merges; FuseChat's recipe where nothing is said. */
export const sceShare = (own: KnowledgeOptions): number => parseNumber('--sce-select', own.sceSelect ?? '0.1', 0, 1);

/** A file is a gate that stays as it is. */
function gateModeOf(text = 'trained'): GateMode {
  if (text.toLowerCase().endsWith('.safetensors')) return 'fixed';
  return parseChoice('--gate', text, ['trained', 'random'] as const);
}

function positive(flag: string, text: string): number {
  const value = parseNumber(flag, text, 0);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: must be above 0`);
}

/** What a report says of them. */
export function knowledgeParameters(own: KnowledgeOptions, settings: KnowledgeSettings): Record<string, ReportValue> {
  const { strategy, gate, ...weights } = settings.strategy;
  const selects = strategy === 'fusion-x';
  return {
    pivot: own.pivot ?? null,
    sources: [...(own.source ?? [])],
    strategy,
    lambda: weights.schedule === 'soft' ? null : weights.lambda,
    lambda_schedule: weights.schedule,
    fusion_loss: settings.kind,
    mask: settings.mask,
    map: settings.map,
    move: settings.move.rule,
    token_text: settings.tokenText,
    ms_rule: settings.map === 'ms' ? settings.statistics.rule : null,
    fallback: settings.move.fallback ?? 'next',
    alignment_matrix: settings.move.alignmentMatrix ?? true,
    top_k: settings.topK,
    temperature: settings.temperature,
    gate: selects ? (own.gate ?? gate.mode) : null,
    gate_threshold: selects ? gate.threshold : null,
    gate_rate: selects && gate.mode === 'trained' ? gate.rateRatio : null,
    feedback_weight: selects ? gate.feedbackWeight : null,
    near_tie_nats: settings.nearTie,
    pairwise: own.pairwise ?? false,
    merge: own.merge ?? null,
    sce_select: own.merge === 'sce' ? sceShare(own) : null,
    drop_nan: own.dropNan ?? false,
    domain_field: own.domainField ?? null,
  };
}
