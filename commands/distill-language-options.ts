import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { type AttentionTrainingOptions, addAttentionOptions } from './distill-attention-options.js';
import { addLearningTextOptions, type LearningTextOptions } from './distill-text.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';

/** Own options of training a language model, as commander gives them. */
export interface LanguageOptions extends LearningTextOptions, AttentionTrainingOptions {
  readonly loraRank?: string;
  readonly loraAlpha?: string;
  readonly loraTargets?: readonly string[];
  readonly loraOutput?: string;
  readonly onPolicy?: string;
  readonly onPolicyTemperature?: string;
  readonly onPolicyTokens?: string;
  readonly vocabAlign?: string;
  readonly dtype?: string;
}

/** Declares them. */
export function addLanguageOptions(command: Command): Command {
  addLearningTextOptions(command)
    .option('--lora-rank <r>', 'train low-rank adapters W + (alpha/r) A B, the weights frozen')
    .option('--lora-alpha <x>', 'scale of the adapters (default twice the rank)')
    .option('--lora-targets <pattern...>', 'matrices that get an adapter (default all linears of the layers)')
    .option('--lora-output <form>', 'merged (a model directory) or adapter (PEFT) (default merged)')
    .option('--on-policy <share>', 'share of the batches whose continuations the student writes itself (default 0)')
    .option('--on-policy-temperature <t>', 'temperature of these (default 0.9)')
    .option('--on-policy-tokens <n>', 'tokens of these (default: the second half of a window)')
    .option('--vocab-align <how>', 'vocabularies of different sizes: error, or truncate to the common prefix')
    .option('--dtype <type>', 'type of the written weights: f32, bf16, f16 (default: as the student was stored)');
  return addAttentionOptions(command);
}

/** Low-rank adapters. */
export interface LoraSettings {
  readonly rank: number;
  readonly alpha: number;
  /** Patterns of the names of matrices; all linears of the layers when absent. */
  readonly targets?: readonly string[];
  readonly output: 'merged' | 'adapter';
}

/** @throws InputError for options of adapters without a rank */
export function parseLora(own: LanguageOptions): LoraSettings | undefined {
  if (own.loraRank === undefined) {
    const stray = (['loraAlpha', 'loraTargets', 'loraOutput'] as const).find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`--lora-${stray.slice(4).toLowerCase()} needs --lora-rank`);
    return undefined;
  }
  const rank = parseInteger('--lora-rank', own.loraRank, 1);
  return {
    rank,
    alpha: parseNumber('--lora-alpha', own.loraAlpha ?? String(2 * rank), 0),
    ...(own.loraTargets && { targets: own.loraTargets }),
    output: parseChoice('--lora-output', own.loraOutput ?? 'merged', ['merged', 'adapter'] as const),
  };
}

/** Windows that the student writes itself. */
export interface OnPolicySettings {
  /** Share of the micro-batches. */
  readonly share: number;
  readonly temperature: number;
  /** Tokens of a continuation; half of the window when absent. */
  readonly tokens?: number;
}

/** @throws InputError for options of sampling without a share */
export function parseOnPolicy(own: LanguageOptions): OnPolicySettings | undefined {
  const share = parseNumber('--on-policy', own.onPolicy ?? '0', 0, 1);
  if (share === 0) {
    if (own.onPolicyTemperature !== undefined) throw new InputError('--on-policy-temperature needs --on-policy');
    if (own.onPolicyTokens !== undefined) throw new InputError('--on-policy-tokens needs --on-policy');
    return undefined;
  }
  return {
    share,
    temperature: parseNumber('--on-policy-temperature', own.onPolicyTemperature ?? '0.9', 0),
    ...(own.onPolicyTokens !== undefined && { tokens: parseInteger('--on-policy-tokens', own.onPolicyTokens, 1) }),
  };
}

/** What a student is, as `--student` says. */
export type StudentSource =
  | { readonly kind: 'directory'; readonly spec: string }
  | { readonly kind: 'config'; readonly path: string }
  | { readonly kind: 'layers'; readonly every?: number; readonly chosen?: readonly number[] };

/**
 * `every:k` and `layers:0,2,5` copy layers of the teacher, a .json file is a configuration that starts at random, anything
 * else is a model.
 */
export function parseStudent(text: string): StudentSource {
  const [kind, rest] = text.includes(':') ? [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1)] : [];
  if (kind === 'every') return { kind: 'layers', every: parseInteger('--student every:', rest ?? '', 1) };
  if (kind === 'layers') return { kind: 'layers', chosen: parseLayers(rest ?? '') };
  if (text.toLowerCase().endsWith('.json')) return { kind: 'config', path: text };
  return { kind: 'directory', spec: text };
}

function parseLayers(text: string): number[] {
  const layers = text.split(',').map((part) => parseInteger('--student layers:', part.trim()));
  const ordered = layers.every((layer, i) => i === 0 || layer > layers[i - 1]);
  if (!ordered) throw new InputError(`--student layers:${text}: layers must be named once each, in ascending order`);
  return layers;
}
