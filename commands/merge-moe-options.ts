import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { LINKAGES, parseLinkage } from '../src/linalg/agglomerative.js';
import { BUDGET_RULES, parseBudgetRule } from '../src/moe/budget.js';
import { WEIGHT_POLICIES } from '../src/moe/combine.js';
import type { ExpertModel } from '../src/moe/expert-model.js';
import {
  ALIGNMENTS,
  COMBINATIONS,
  GATE_WEIGHTS,
  type MergeSettings,
  REFIT_TARGETS,
  ROUTER_ROWS,
} from '../src/moe/merge-settings.js';
import type { ExpertMethod } from '../src/moe/methods/method.js';
import { expertMethod } from '../src/moe/methods/registry.js';
import { parseSimilarityBasis, SIMILARITY_BASES, type SimilarityBasis } from '../src/moe/similarity.js';
import { parseChoice, parseIndices, parseInteger, parseNumber } from './edge-values.js';

/** Options that decide what a merged model is, as commander gives them. */
export interface MergeOptions {
  experts?: string;
  keepRatio?: string;
  keepLayers?: string;
  budget?: string;
  similarity?: string;
  centre?: boolean;
  capacity?: string;
  linkage?: string;
  align?: string;
  assignment?: string;
  alignDown?: boolean;
  balance?: boolean;
  weights?: string;
  combine?: string;
  rank?: string;
  referenceEps?: string;
  router?: string;
  routerRows?: string;
  routerLambda?: string;
  refit?: string;
  refitLambda?: string;
  gateWeights?: string;
  keepSuperExperts?: boolean;
  topK?: string;
}

const ROUTERS = ['reduced', 'remap', 'expanded'] as const;
const ASSIGNMENTS = ['exact', 'greedy', 'auction'] as const;

/** Declares how many experts stay, how they are chosen, and what becomes of the others. */
export function addMergeOptions(command: Command): Command {
  return command
    .option('--experts <n>', 'experts kept in a layer (on average under a global budget)')
    .option('--keep-ratio <share>', 'the same as a share of the experts')
    .option('--keep-layers <list>', 'layers that keep all their experts, such as 0,5-7')
    .option('--budget <rule>', `over layers: ${BUDGET_RULES.join(', ')} (default uniform)`)
    .option('--similarity <basis>', `what is compared: ${SIMILARITY_BASES.join(', ')} (default of the method)`)
    .option('--centre', 'take the mean over the experts off the router logits of each token')
    .option('--capacity <n>', 'most members of a group')
    .option('--linkage <name>', `of hc-smoe: ${LINKAGES.join(', ')} (default average)`)
    .option('--align <basis>', `neurons of members to those of their dominant: ${ALIGNMENTS.join(', ')}`)
    .option('--assignment <mode>', `how neurons are assigned: ${ASSIGNMENTS.join(', ')} (default exact)`)
    .option('--no-align-down', 'leave the down projection out of the alignment by weights')
    .option('--balance', 'divide the gains of each matrix by its norms')
    .option('--weights <policy>', `of members: ${WEIGHT_POLICIES.join(', ')} (default of the method)`)
    .option('--combine <rule>', `members: ${COMBINATIONS.join(', ')} (default of the method)`)
    .option('--rank <n>', 'directions kept by --combine joint-svd (default all)')
    .option('--reference-eps <x>', 'added to the sum of weights (default 0; 1e-7 in released code)')
    .option('--router <form>', `of the result: ${ROUTERS.join(', ')} (default reduced; remap under a global budget)`)
    .option('--router-rows <rule>', `of a reduced router: ${ROUTER_ROWS.join(', ')} (default dominant)`)
    .option('--router-lambda <x>', 'damping of --router-rows fit (default 0)')
    .option(
      '--refit <target>',
      `what down projections are fitted to on the text: ${REFIT_TARGETS.join(', ')} (default none)`,
    )
    .option('--refit-lambda <x>', 'damping of --refit; needed where a group has fewer tokens than neurons')
    .option('--gate-weights <kind>', `of scores: ${GATE_WEIGHTS.join(', ')} (default renormalized)`)
    .option('--keep-super-experts', 'never prune experts whose outputs are far above all others')
    .option('--top-k <n>', 'a new number of experts a token');
}

/** The setting that each option decides, for errors. */
const FLAGS: Readonly<Record<string, string>> = {
  similarity: '--similarity',
  capacity: '--capacity',
  linkage: '--linkage',
  align: '--align',
  assignment: '--assignment',
  alignDown: '--no-align-down',
  balance: '--balance',
  weights: '--weights',
  combine: '--combine',
  rank: '--rank',
  referenceEpsilon: '--reference-eps',
  refit: '--refit',
  refitLambda: '--refit-lambda',
  gateWeights: '--gate-weights',
  keepSuperExperts: '--keep-super-experts',
};

const number = (flag: string, text: string | undefined): number | undefined =>
  text === undefined ? undefined : parseNumber(flag, text);

const count = (flag: string, text: string | undefined): number | undefined =>
  text === undefined ? undefined : parseInteger(flag, text, 1);

/** What the user asked for, by setting; what was not asked for is absent. */
function asked(own: MergeOptions): Partial<MergeSettings> {
  const all: { [K in keyof MergeSettings]?: MergeSettings[K] | undefined } = {
    similarity: similarityOf(own),
    capacity: count('--capacity', own.capacity),
    linkage: own.linkage === undefined ? undefined : parseLinkage(own.linkage),
    budget: own.budget === undefined ? undefined : parseBudgetRule(own.budget),
    align: own.align === undefined ? undefined : parseChoice('--align', own.align, ALIGNMENTS),
    assignment: own.assignment === undefined ? undefined : parseChoice('--assignment', own.assignment, ASSIGNMENTS),
    alignDown: own.alignDown === false ? false : undefined,
    balance: own.balance,
    weights: own.weights === undefined ? undefined : parseChoice('--weights', own.weights, WEIGHT_POLICIES),
    combine: own.combine === undefined ? undefined : parseChoice('--combine', own.combine, COMBINATIONS),
    rank: count('--rank', own.rank),
    referenceEpsilon: number('--reference-eps', own.referenceEps),
    router: own.router === undefined ? undefined : parseChoice('--router', own.router, ROUTERS),
    routerRows: own.routerRows === undefined ? undefined : parseChoice('--router-rows', own.routerRows, ROUTER_ROWS),
    routerLambda: number('--router-lambda', own.routerLambda),
    refit: own.refit === undefined ? undefined : parseChoice('--refit', own.refit, REFIT_TARGETS),
    refitLambda: number('--refit-lambda', own.refitLambda),
    gateWeights:
      own.gateWeights === undefined ? undefined : parseChoice('--gate-weights', own.gateWeights, GATE_WEIGHTS),
    keepSuperExperts: own.keepSuperExperts,
    topK: count('--top-k', own.topK),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function similarityOf(own: MergeOptions): SimilarityBasis | undefined {
  const basis = own.similarity === undefined ? undefined : parseSimilarityBasis(own.similarity);
  if (own.centre !== true) return basis;
  if (basis !== undefined && basis !== 'router-logits')
    throw new InputError('--centre is of --similarity router-logits');
  return 'router-logits.centred';
}

export interface SettingsRequest {
  readonly method: string;
  readonly variant: string | undefined;
  readonly seed: number;
}

/** Settings of a method on a model: its defaults, those of a variant, and what the user asked for, the last winning. */
export function parseMergeSettings(
  own: MergeOptions,
  model: Pick<ExpertModel, 'path' | 'layers'>,
  { method: name, variant, seed }: SettingsRequest,
): MergeSettings {
  const method = expertMethod(name);
  const given = asked(own);
  for (const setting of method.unused) {
    if (setting in given) throw new InputError(`${FLAGS[setting] ?? setting} has no meaning for --method ${name}`);
  }
  const chosen = { ...method.defaults, ...variantOf(method, variant), ...given };
  const budget = chosen.budget ?? 'uniform';
  const settings: MergeSettings = {
    similarity: 'router-logits',
    linkage: 'average',
    align: 'none',
    assignment: 'exact',
    alignDown: true,
    balance: false,
    weights: 'usage',
    combine: 'mean',
    referenceEpsilon: 0,
    router: budget === 'uniform' || method.kind === 'prune' ? 'reduced' : 'remap',
    routerRows: 'dominant',
    refit: 'none',
    gateWeights: 'renormalized',
    keepSuperExperts: false,
    ...chosen,
    budget,
    method: name,
    experts: keptExperts(own, model, budget),
    excluded: keptLayers(own.keepLayers, model),
    seed,
  };
  checkTogether(method, settings);
  for (const setting of unread(settings)) {
    if (setting in given) {
      const how = `--combine ${settings.combine}, --align ${settings.align}`;
      throw new InputError(`${FLAGS[setting] ?? setting} is not read with ${how}: leave it out`);
    }
  }
  return settings;
}

/** Settings of merges that these others leave without a use. */
function unread({ combine, align, similarity }: MergeSettings): (keyof MergeSettings)[] {
  const aligns = align !== 'none' && ['mean', 'joint-svd', 'fisher'].includes(combine);
  const byWeights = aligns && align === 'weights';
  const zipsWeights = combine === 'zip' && align !== 'activations';
  return [
    ...(aligns || similarity === 'activation-correlation.lsa' ? [] : (['assignment'] as const)),
    ...(byWeights ? [] : (['balance'] as const)),
    ...(byWeights || zipsWeights ? [] : (['alignDown'] as const)),
    ...(combine === 'fisher' ? (['weights'] as const) : []),
    ...(['joint-svd', 'fixed-dominant'].includes(combine) ? (['referenceEpsilon'] as const) : []),
  ];
}

function variantOf(method: ExpertMethod, variant: string | undefined): Partial<MergeSettings> {
  if (variant === undefined) return {};
  const known = Object.keys(method.variants ?? {});
  const found = method.variants?.[variant];
  if (found) return found;
  const ways = known.length > 0 ? `known: ${known.join(', ')}` : 'it has none';
  throw new InputError(`--variant ${variant}: not of --method ${method.name}; ${ways}`);
}

function keptExperts(own: MergeOptions, { layers }: Pick<ExpertModel, 'layers'>, budget: string): number {
  if (own.experts !== undefined && own.keepRatio !== undefined) {
    throw new InputError('--experts and --keep-ratio say the same: give one of them');
  }
  const most = Math.max(...layers.map(({ experts }) => experts));
  if (own.experts !== undefined) {
    const experts =
      budget === 'uniform' ? parseInteger('--experts', own.experts, 1) : parseNumber('--experts', own.experts);
    if (experts > most) throw new InputError(`--experts ${own.experts}: the layers have ${most}`);
    return experts;
  }
  if (own.keepRatio === undefined) {
    throw new InputError('--experts or --keep-ratio is missing: how many experts of a layer stay');
  }
  const ratio = parseNumber('--keep-ratio', own.keepRatio);
  if (!(ratio > 0 && ratio <= 1))
    throw new InputError(`--keep-ratio ${own.keepRatio}: expected a share above 0, at most 1`);
  return budget === 'uniform' ? Math.max(1, Math.round(ratio * most)) : ratio * most;
}

/** 0-based layers of a list such as 0,5-7. */
function keptLayers(list: string | undefined, { path, layers }: Pick<ExpertModel, 'path' | 'layers'>): number[] {
  if (list === undefined) return [];
  const kept = parseIndices('--keep-layers', list);
  for (const layer of kept) {
    if (!layers.some((place) => place.layer === layer)) {
      throw new InputError(`--keep-layers ${list}: layer ${layer} of ${path} has no experts`);
    }
  }
  if (kept.length === layers.length) throw new InputError(`--keep-layers ${list}: no layer is left to merge`);
  return [...kept];
}

/** @throws InputError for settings that contradict each other */
function checkTogether(method: ExpertMethod, settings: MergeSettings): void {
  const { router, combine, align, routerRows } = settings;
  if (router !== 'reduced' && routerRows !== 'dominant') {
    throw new InputError(`--router-rows ${routerRows} is of --router reduced: the router of ${router} stays as it was`);
  }
  if (settings.routerLambda !== undefined && routerRows !== 'fit') {
    throw new InputError('--router-lambda needs --router-rows fit');
  }
  if (settings.topK !== undefined && router !== 'reduced') throw new InputError('--top-k needs --router reduced');
  if (settings.refitLambda !== undefined && settings.refit === 'none') {
    throw new InputError('--refit-lambda needs --refit group or layer');
  }
  if (method.kind === 'prune') {
    if (settings.refit === 'group') {
      throw new InputError(`--refit group: --method ${method.name} makes no groups; --refit layer fits what stays`);
    }
    if (router === 'expanded') {
      throw new InputError(
        `--router expanded: --method ${method.name} drops experts, and there is nothing to copy in their place`,
      );
    }
    if (routerRows !== 'dominant') {
      throw new InputError(
        `--router-rows ${routerRows}: experts that stay keep their rows under --method ${method.name}`,
      );
    }
    return;
  }
  if (settings.rank !== undefined && combine !== 'joint-svd') throw new InputError('--rank needs --combine joint-svd');
  if (combine === 'fixed-dominant' && align !== 'none') {
    throw new InputError('--combine fixed-dominant places neurons itself: leave out --align, or give --align none');
  }
}

/** What decides the bytes of the result, for report and manifest. */
export function settingsRecord(settings: MergeSettings): Record<string, string | number | boolean | null | number[]> {
  return {
    method: settings.method,
    experts: settings.experts,
    keep_layers: [...settings.excluded],
    budget: settings.budget,
    similarity: settings.similarity,
    capacity: settings.capacity ?? null,
    linkage: settings.linkage,
    align: settings.align,
    assignment: settings.assignment,
    align_down: settings.alignDown,
    balance: settings.balance,
    weights: settings.weights,
    combine: settings.combine,
    rank: settings.rank ?? null,
    reference_eps: settings.referenceEpsilon,
    router: settings.router,
    router_rows: settings.routerRows,
    router_lambda: settings.routerLambda ?? null,
    refit: settings.refit,
    refit_lambda: settings.refitLambda ?? null,
    gate_weights: settings.gateWeights,
    keep_super_experts: settings.keepSuperExperts,
    top_k: settings.topK ?? null,
    seed: settings.seed,
  };
}
