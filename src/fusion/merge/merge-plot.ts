import type { Figure } from '../../report/plots/figure.js';
import { heatMap } from '../../report/plots/heat-map.js';
import { FULL_WIDTH, HALF_WIDTH, type Panel } from '../../report/plots/panel.js';
import type { DocumentResult, MergedTensor } from './merge-report.js';

/** Maps of at most this many modules stand side by side. */
const NARROW_COLUMNS = 12;

/** `self_attn.q_proj` of `self_attn.q_proj.weight`. */
const shortModule = (module: string): string => module.replace(/\.weight$/, '');

interface Grid {
  readonly layers: readonly number[];
  readonly modules: readonly string[];
  at(layer: number, module: string): MergedTensor | undefined;
}

function gridOf(tensors: readonly MergedTensor[]): Grid {
  const byPlace = new Map<string, MergedTensor>();
  const layers = new Set<number>();
  const modules = new Set<string>();
  for (const tensor of tensors) {
    if (tensor.layer === null) continue;
    layers.add(tensor.layer);
    modules.add(tensor.module);
    byPlace.set(`${tensor.layer} ${tensor.module}`, tensor);
  }
  return {
    layers: [...layers].sort((a, b) => a - b),
    modules: [...modules],
    at: (layer, module) => byPlace.get(`${layer} ${module}`),
  };
}

/** A figure of every tensor of the layers, modules across. */
function layerMap(
  grid: Grid,
  about: { readonly title: string; readonly note: string; readonly valueLabel: string; readonly signed?: boolean },
  of: (tensor: MergedTensor) => number | null | undefined,
): Promise<Panel> | undefined {
  const values = grid.layers.flatMap((layer) =>
    grid.modules.map((module) => {
      const tensor = grid.at(layer, module);
      return (tensor && of(tensor)) ?? Number.NaN;
    }),
  );
  if (!values.some(Number.isFinite)) return undefined;
  return heatMap({
    title: about.title,
    note: about.note,
    rows: grid.layers.map(String),
    columns: grid.modules.map(shortModule),
    rowLabel: 'layer',
    columnLabel: 'module',
    values,
    valueLabel: about.valueLabel,
    kind: about.signed ? 'signed' : 'amount',
    width: grid.modules.length > NARROW_COLUMNS ? FULL_WIDTH : HALF_WIDTH,
  });
}

const mean = (values: readonly number[]): number | null =>
  values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : null;

/** Mean over the models of ||delta|| / ||base||. */
function relativeDelta({ inputs, record }: MergedTensor): number | null {
  const { measures } = record;
  if (!measures?.delta_norms) return null;
  const base = inputs.findIndex((input) => input.base);
  const size = base < 0 ? Number.NaN : measures.norms[base];
  return mean(measures.delta_norms.filter((_, i) => i !== base).map((norm) => norm / size));
}

/** The last part of a path. */
const shortName = (model: string): string => model.split('/').at(-1) ?? model;

/** Cosines of pairs of models, means over all tensors weighted by their elements. */
function cosineMatrix(document: DocumentResult): Promise<Panel> | undefined {
  const models = [
    ...new Set(document.tensors.flatMap(({ inputs }) => inputs.filter(({ base }) => !base).map(({ model }) => model))),
  ];
  if (models.length < 2) return undefined;
  const sums = new Float64Array(models.length ** 2);
  const weights = new Float64Array(models.length ** 2);
  for (const { inputs, record, shape } of document.tensors) {
    const others = inputs.filter(({ base }) => !base).map(({ model }) => models.indexOf(model));
    const elements = shape.reduce((a, b) => a * b, 1);
    let pair = 0;
    for (const [a, i] of others.entries())
      for (const j of others.slice(a + 1)) {
        const cosine = record.measures?.cosines[pair++] ?? Number.NaN;
        if (!Number.isFinite(cosine)) continue;
        for (const cell of [i * models.length + j, j * models.length + i]) {
          sums[cell] += cosine * elements;
          weights[cell] += elements;
        }
      }
  }
  const values = sums.map((sum, cell) => (cell % (models.length + 1) === 0 ? 1 : sum / weights[cell]));
  return heatMap({
    title: document.base === null ? 'Cosines of the models' : 'Cosines of the task vectors',
    note: 'Means over tensors, weighted by their elements.',
    rows: models.map(shortName),
    columns: models.map(shortName),
    rowLabel: 'model',
    columnLabel: 'model',
    values,
    valueLabel: 'cosine',
    kind: 'signed',
    domain: [-1, 1],
    width: HALF_WIDTH,
  });
}

/** The figure of a merge: what differs where, in how far the models agree, what was kept. */
export async function mergeFigure(document: DocumentResult): Promise<Figure> {
  const grid = gridOf(document.tensors);
  const { summary, method } = document;
  const panels = [
    layerMap(
      grid,
      { title: 'Task vectors', note: 'Mean over the models of ||delta|| / ||base||.', valueLabel: 'relative norm' },
      relativeDelta,
    ),
    layerMap(
      grid,
      {
        title: 'Conflict of signs',
        note: 'Share of the elements where two weighted task vectors have opposite signs.',
        valueLabel: 'share',
      },
      ({ record }) => record.measures?.sign_conflict,
    ),
    layerMap(
      grid,
      { title: 'Cosines', note: 'Mean over pairs of models.', valueLabel: 'cosine', signed: true },
      ({ record }) => mean((record.measures?.cosines ?? []).filter((cosine) => cosine !== null)),
    ),
    layerMap(
      grid,
      { title: 'Spectral entropy of the task vectors', note: 'Mean over the models.', valueLabel: 'nats' },
      ({ record }) => mean((record.spectra ?? []).flatMap((found) => (found ? [found.spectral_entropy_nats] : []))),
    ),
    layerMap(
      grid,
      { title: 'Kept elements', note: 'Mean over the models.', valueLabel: 'share' },
      ({ record, inputs }) => mean((record.kept_density ?? []).filter((_, i) => !inputs[i].base)),
    ),
    layerMap(
      grid,
      { title: 'Change', note: '||merged - base|| / ||base||.', valueLabel: 'relative norm' },
      ({ record }) => record.measures?.relative_change,
    ),
    cosineMatrix(document),
  ];
  return {
    title: `Merge by ${method.name}`,
    subtitle: document.models.map(shortName).join(', '),
    headline: [
      { label: 'Tensors', value: document.tensors.length },
      { label: 'Elements', value: summary.elements },
      ...(summary.relative_change === null ? [] : [{ label: 'Relative change', value: summary.relative_change }]),
      ...(summary.mean_cosine === null ? [] : [{ label: 'Mean cosine', value: summary.mean_cosine }]),
      ...(summary.sign_conflict === null ? [] : [{ label: 'Conflict of signs', value: summary.sign_conflict }]),
    ],
    panels: await Promise.all(panels.flatMap((panel) => (panel ? [panel] : []))),
    sections: [],
  };
}
