import type { Figure } from '../../report/plots/figure.js';
import { groupedBars } from '../../report/plots/grouped-bars.js';
import { lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { shareBars } from '../../report/plots/share-bars.js';
import { curvePanel } from '../../training/training-curve.js';
import type { KnowledgeBody, TargetBody } from './knowledge-report.js';

/** Names of models, short enough for legends. */
const shortNames = (names: readonly string[]): string[] =>
  names.map((name) => name.replace(/\/+$/, '').split('/').at(-1) ?? name);

async function targetPanels(target: TargetBody, many: boolean): Promise<Panel[]> {
  const models = shortNames(target.models);
  const of = many ? `, ${target.name}` : '';
  const fuses = target.strategy !== 'clm';
  const panels = [
    await shareBars({
      title: `${fuses ? 'Weight of each model' : 'Model of the least cross-entropy'} by domain${of}`,
      classes: models,
      bars: target.choice_by_domain.map(({ domain, shares, sequences }) => ({
        name: `${domain} (${sequences})`,
        shares,
      })),
    }),
    await curvePanel(target.curve, 'held-out cross-entropy'),
  ];
  if (target.gate) {
    const steps = target.gate.importance_by_step;
    panels.push(
      await lineChart({
        title: `Importance of each model over the steps${of}`,
        note: 'Share of the weights of a step.',
        xLabel: 'step',
        yLabel: 'share',
        yLow: 0,
        series: models.map((name, m) => ({
          name,
          x: steps.map(({ step }) => step),
          y: steps.map(({ shares }) => shares[m]),
        })),
        dots: false,
      }),
    );
  }
  if (target.domains.length > 0) {
    panels.push(
      await groupedBars({
        title: `Held-out perplexity${of}`,
        xLabel: 'text',
        yLabel: 'perplexity',
        places: target.domains.map(({ name }) => name),
        series: [
          { name: 'before', values: target.domains.map(({ before }) => before.perplexity.value) },
          { name: 'after', values: target.domains.map(({ after }) => after.perplexity.value) },
        ],
      }),
    );
  }
  return panels;
}

const KINDS = ['exact', 'mapped', 'one_to_many', 'many_to_one', 'fallback', 'empty'] as const;

/** Alignment of the sources, choice of models by domain, importance over steps, perplexities. */
export async function knowledgeFigure(body: KnowledgeBody, subtitle: string): Promise<Figure> {
  const panels: Panel[] = [];
  if (body.sources.length > 0) {
    const names = shortNames(body.sources.map(({ name }) => name));
    panels.push(
      await shareBars({
        title: "How the rows of the pivot's positions came about",
        note: 'Fallback rows are one-hot; empty ones take the distribution of the pivot.',
        classes: KINDS.map((kind) => kind.replaceAll('_', ' ')),
        bars: body.sources.map(({ alignment }, i) => ({
          name: names[i],
          shares: KINDS.map((kind) => alignment[kind]),
        })),
      }),
    );
  }
  for (const target of body.targets) panels.push(...(await targetPanels(target, body.targets.length > 1)));
  const [first] = body.targets;
  return {
    title: 'Fusion of knowledge',
    subtitle,
    headline: [
      { label: 'Sequences', value: body.texts.sequences },
      ...(first.fused ? [{ label: 'Interference', value: first.fused.interference }] : []),
      ...first.domains.map(({ name, after }) => ({ label: `Perplexity, ${name}`, value: after.perplexity.value })),
    ],
    panels,
    sections: [],
  };
}
