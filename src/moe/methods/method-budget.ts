import { type LayerBudget, layerBudget } from '../budget.js';
import type { GroupingRequest } from './method.js';

/** Groups of every layer by the budget of the settings; a reduced router keeps at least as many as a token chooses. */
export function methodBudget({ layers, merged, settings }: GroupingRequest): LayerBudget {
  const chosen = Math.max(...layers.map(({ rule }) => settings.topK ?? rule.topK));
  return layerBudget(
    settings.budget,
    layers.map(({ usage }) => usage),
    { groupsPerLayer: settings.experts, merged, least: settings.router === 'reduced' ? chosen : 1 },
  );
}
