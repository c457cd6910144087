import { type Command, Option } from 'commander';
import { InputError } from '../src/errors.js';
import { MOST_PULSES } from '../src/kernels/pyramid.js';
import { DEFAULT_SEARCH } from '../src/quantization/encode-rows.js';
import { constraintsOf, type ExportFormat, exportPulses } from '../src/quantization/exports/export-format.js';
import { LEVEL_POLICIES } from '../src/quantization/gain-levels.js';
import {
  ALLOCATION_MODES,
  DEFAULT_FEEDBACK,
  DEFAULT_GROUP_LENGTHS,
  type QuantizeSettings,
  type RateSetting,
} from '../src/quantization/settings.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';

/** Options that decide how weights are quantised, as commander gives them. */
export interface CodeOptions {
  bpw?: string;
  groupLength?: string;
  pulses?: string;
  gainBits?: string;
  superGroup?: string;
  rotation?: string;
  levels?: string;
  gain?: string;
  search?: string;
  cap?: string;
  zeroGroups?: string;
  allocation?: string;
  sensitivityTokens?: string;
  feedback?: boolean;
  metricSearch?: boolean;
  rowRefit?: boolean;
  gainRefit?: boolean;
  passes?: string;
  damping?: string;
  actOrder?: boolean;
}

/** Options that say which tensors and which text. */
export interface SubjectOptions {
  tensors?: string[];
  keep?: string[];
  calibTokens?: string;
  calibLength?: string;
  imatrix?: string;
  hessians?: string;
  allowRequantize?: boolean;
}

export const SEARCHES = ['greedy', 'fixed-point', 'best', 'exact'] as const;
export const ROTATIONS = ['stored', 'fused', 'none'] as const;
export type RotationOption = (typeof ROTATIONS)[number];

const several = (text: string, previous?: string[]): string[] => [...(previous ?? []), text];

/** Declares which tensors are quantised and what they are calibrated on. */
export function addSubjectOptions(command: Command): Command {
  return command
    .option('--tensors <patterns>', "tensors to quantise, such as '*proj*' (* any characters); of any size", several)
    .option('--keep <patterns>', 'tensors to leave as they are', several)
    .option('--calib-tokens <n>', 'tokens of --data to calibrate on (default: all, at most 65536)')
    .option('--calib-length <n>', 'tokens of a calibration window (default --context)')
    .option('--imatrix <file>', 'importances from llama.cpp instead of --data; they weigh the search, nothing else')
    .option('--hessians <file>', 'second moments of activations: read where the file exists, else kept there')
    .option('--allow-requantize', 'take a source that is quantised already');
}

/** Declares the code. */
export function addCodeOptions(command: Command): Command {
  return command
    .option('--bpw <bits>', 'bits of the files per quantised weight, everything counted (default 3.25)')
    .option('--group-length <D>', 'weights of a group, or several to choose from, such as 16,32')
    .option('--pulses <K>', 'pulses of a group, for all tensors; instead of --bpw')
    .option('--gain-bits <b>', 'bits of a gain, with --pulses')
    .option('--super-group <m>', 'groups of a mixed-radix word (default auto: what is shortest)')
    .option('--rotation <kind>', `randomised Hadamard rotation: ${ROTATIONS.join(', ')} (default stored)`)
    .option('--levels <policy>', `gain levels: ${LEVEL_POLICIES.join(', ')} (default lloyd; data without rotation)`)
    .option('--gain <policy>', 'projection, norm (default projection)')
    .option('--search <mode>', `pulse search: ${SEARCHES.join(', ')} (default exact)`)
    .option('--cap <n>', 'most pulses of one weight')
    .option('--zero-groups <how>', 'groups of zeros: code, or bitmap (default code)')
    .option(
      '--allocation <mode>',
      `bits over tensors: ${ALLOCATION_MODES.join(', ')} (default kl, uniform without text)`,
    )
    .option('--sensitivity-tokens <n>', 'calibration tokens that --allocation kl measures on (default 1024)')
    .addOption(new Option('--no-feedback', 'do not feed rounding errors forward'))
    .addOption(new Option('--no-metric-search', 'search pulses as if inputs were white'))
    .addOption(new Option('--no-row-refit', 'do not refit row scales'))
    .option('--gain-refit', 'refit all gains of a row together')
    .option('--passes <n>', 'passes of coordinate descent (default 2)')
    .option('--damping <x>', 'first damping of a Hessian, relative to its mean diagonal (default 0.01)')
    .option('--act-order', 'important groups first; only without rotation');
}

function parseRate(own: CodeOptions): RateSetting {
  if (own.pulses === undefined) {
    if (own.gainBits !== undefined) throw new InputError('--gain-bits needs --pulses (and --group-length)');
    return { kind: 'bpw', bitsPerWeight: parseNumber('--bpw', own.bpw ?? '3.25', 0) };
  }
  if (own.bpw !== undefined) throw new InputError('--bpw and --pulses exclude each other: each sets the rate');
  return {
    kind: 'code',
    groupLength: parseInteger('--group-length', own.groupLength ?? '16', 1, 65_536),
    pulses: parseInteger('--pulses', own.pulses, 1, MOST_PULSES),
    gainBits: parseInteger('--gain-bits', own.gainBits ?? '2', 0, 8),
  };
}

/** The size of an exported file is that of its blocks, whatever is coded: K suits the format unless it is given. */
function exportRate(own: CodeOptions, format: ExportFormat): RateSetting {
  if (own.bpw !== undefined) {
    throw new InputError(`--format ${format} has blocks of one size: --bpw does not change it; choose another format`);
  }
  const { groupMultiple } = constraintsOf(format);
  const fallback = String(Math.max(groupMultiple, format === 'onnx-nbits' ? 32 : 16));
  const groupLength = parseInteger('--group-length', own.groupLength ?? fallback, 1, 65_536);
  const pulses = own.pulses === undefined ? exportPulses(format, groupLength) : parseInteger('--pulses', own.pulses, 1);
  // Every block has a factor of its own in the file: gains may be as fine as they come.
  return { kind: 'code', groupLength, pulses, gainBits: parseInteger('--gain-bits', own.gainBits ?? '8', 0, 8) };
}

function capOf(own: CodeOptions, format: ExportFormat | undefined): Pick<QuantizeSettings, 'cap'> {
  const cap = own.cap === undefined ? Number.POSITIVE_INFINITY : parseInteger('--cap', own.cap, 1);
  const limits = format && constraintsOf(format);
  const positive = Math.min(cap, limits?.cap ?? cap);
  const negative = Math.min(cap, limits?.negativeCap ?? cap);
  return Number.isFinite(positive) ? { cap: { positive, negative } } : {};
}

/** @throws InputError for values that do not exist or contradict each other */
export function parseSettings(
  own: CodeOptions,
  run: {
    readonly seed: number;
    /** There is a Hessian. */
    readonly calibrated: boolean;
    /** There is text to calibrate on. */
    readonly text: boolean;
    /** There are importances. */
    readonly weighted: boolean;
    readonly exported?: ExportFormat;
  },
): { readonly settings: QuantizeSettings; readonly rotation: RotationOption } {
  const { exported } = run;
  const plain = run.weighted || exported !== undefined || own.actOrder === true;
  const rotation = parseChoice('--rotation', own.rotation ?? (plain ? 'none' : 'stored'), ROTATIONS);
  if (run.weighted && rotation !== 'none') {
    throw new InputError('--imatrix weighs columns, which a rotation mixes: it needs --rotation none');
  }
  if (exported !== undefined && rotation === 'stored') {
    throw new InputError(`--format ${exported} has no place for a stored rotation; use --rotation fused or none`);
  }
  const levels = parseChoice('--levels', own.levels ?? (rotation === 'none' ? 'data' : 'lloyd'), LEVEL_POLICIES);
  const onlyCalibrated = (['gainRefit', 'passes', 'damping', 'actOrder'] as const).find(
    (name) => own[name] !== undefined,
  );
  if (onlyCalibrated && !run.calibrated) {
    throw new InputError(`${flagOf(onlyCalibrated)} needs a Hessian: give text with --data, or --hessians`);
  }
  if (own.actOrder && rotation !== 'none') {
    throw new InputError('--act-order needs --rotation none: after a rotation all groups matter alike');
  }
  const rate = exported === undefined ? parseRate(own) : exportRate(own, exported);
  const allocation = parseChoice(
    '--allocation',
    own.allocation ?? (run.text && rate.kind === 'bpw' ? 'kl' : 'uniform'),
    ALLOCATION_MODES,
  );
  if (allocation === 'kl' && !run.text) {
    throw new InputError('--allocation kl measures predictions: give text with --data');
  }
  if (own.sensitivityTokens !== undefined && allocation !== 'kl') {
    throw new InputError('--sensitivity-tokens needs --allocation kl, which is the default with --data and --bpw');
  }
  if (!run.calibrated && (allocation === 'hessian' || allocation === 'relative')) {
    throw new InputError(`--allocation ${allocation} needs a Hessian: give text with --data, or --hessians`);
  }
  if (run.calibrated && own.zeroGroups === 'bitmap') {
    throw new InputError('--zero-groups bitmap goes without a Hessian: feedback fills groups of zeros');
  }
  if (run.calibrated && own.gain === 'norm') {
    throw new InputError('--gain norm goes without a Hessian: gains are least squares in its metric');
  }
  return {
    rotation,
    settings: {
      rate,
      groupLengths: (own.groupLength ?? DEFAULT_GROUP_LENGTHS.join(','))
        .split(',')
        .map((text) => parseInteger('--group-length', text, 1, 65_536)),
      superGroup:
        own.superGroup === undefined || own.superGroup === 'auto'
          ? 'auto'
          : parseInteger('--super-group', own.superGroup, 1, 64),
      rotation: rotation === 'stored' ? 'stored' : 'none',
      levels,
      gain: parseChoice('--gain', own.gain ?? 'projection', ['projection', 'norm'] as const),
      search: parseChoice('--search', own.search ?? DEFAULT_SEARCH, SEARCHES),
      ...capOf(own, exported),
      zeroGroups: parseChoice('--zero-groups', own.zeroGroups ?? 'code', ['code', 'bitmap'] as const),
      allocation,
      feedback: {
        errorFeedback: own.feedback !== false,
        metricSearch: own.metricSearch !== false,
        rowRefit: own.rowRefit !== false,
        gainRefit: own.gainRefit === true,
        passes: own.passes === undefined ? DEFAULT_FEEDBACK.passes : parseInteger('--passes', own.passes, 0, 100),
        damping: own.damping === undefined ? DEFAULT_FEEDBACK.damping : parseNumber('--damping', own.damping, 1e-8, 1),
        actOrder: own.actOrder === true,
      },
      seed: String(run.seed),
    },
  };
}
