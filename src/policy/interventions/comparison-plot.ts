import { dotRows } from '../../report/plots/dot-rows.js';
import type { Figure } from '../../report/plots/figure.js';
import { heatMap } from '../../report/plots/heat-map.js';
import { tableMarkup } from '../../report/plots/html-page.js';
import { formatNumber } from '../../report/plots/numbers.js';
import { HALF_WIDTH, type Panel } from '../../report/plots/panel.js';
import type { InterventionsBody, MethodReport } from './comparison-report.js';

const orMissing = (value: number | null): number => value ?? Number.NaN;

/** Shares on a logarithmic axis: methods touch from one token in thousands to all of them. */
async function sharePanels(methods: readonly MethodReport[]): Promise<Panel[]> {
  const rows = methods.map(({ method }) => method);
  const positive = (key: 'touched_share' | 'gradient_mass_touched_share' | 'gradient_mass_moved_share') =>
    methods.map((method) => (method[key] > 0 ? method[key] : Number.NaN));
  const shared = { xLabel: 'share', xScale: 'log', rows, width: HALF_WIDTH } as const;
  return [
    await dotRows({
      ...shared,
      title: 'Tokens whose loss is not plain GRPO’s',
      note: 'Share of the tokens that count. A row without a dot: none.',
      series: [{ name: 'touched', values: positive('touched_share') }],
    }),
    await dotRows({
      ...shared,
      title: 'Gradient mass',
      note: 'Share of the sum of |A rho| on touched tokens, and of plain GRPO’s gradient that is moved.',
      series: [
        { name: '|A rho| of touched tokens', values: positive('gradient_mass_touched_share') },
        { name: 'gradient moved', values: positive('gradient_mass_moved_share') },
      ],
    }),
  ];
}

async function changePanels(body: InterventionsBody): Promise<Panel[]> {
  const rows = body.methods.map(({ method }) => method);
  const exact = body.exact_predictions !== 'not possible';
  const panels: Panel[] = [];
  if (body.predictions === 'not possible') return panels;
  const errors = (key: 'predicted_entropy_change_nats_se' | 'predicted_entropy_change_exact_nats_se') =>
    body.methods.map((method) => method[key] ?? 0);
  panels.push(
    await dotRows({
      title: 'Predicted change of the mean entropy (STEER’s metric)',
      note: `First order, per unit of step size${body.steps > 1 ? `; mean of ${body.steps} steps with standard errors` : ''}. Left of 0: the entropy falls.`,
      xLabel: 'nats per unit of step size',
      rows,
      width: exact ? HALF_WIDTH : undefined,
      series: [
        {
          name: 'STEER',
          values: body.methods.map((method) => orMissing(method.predicted_entropy_change_nats)),
          standardErrors: errors('predicted_entropy_change_nats_se'),
        },
      ],
    }),
  );
  if (exact) {
    panels.push(
      await dotRows({
        title: 'Predicted change of the mean entropy (exact form)',
        note: 'First order in a free softmax, from the likeliest tokens of every position.',
        xLabel: 'nats per unit of step size',
        rows,
        width: HALF_WIDTH,
        series: [
          {
            name: 'exact',
            values: body.methods.map((method) => orMissing(method.predicted_entropy_change_exact_nats)),
            standardErrors: errors('predicted_entropy_change_exact_nats_se'),
          },
        ],
      }),
    );
  }
  return panels;
}

function overlapPanel(body: InterventionsBody, key: 'jaccard' | 'weighted_jaccard'): Promise<Panel> {
  const { methods } = body.overlap;
  const weighted = key === 'weighted_jaccard';
  return heatMap({
    title: weighted ? 'Overlap of the gradients moved' : 'Overlap of touched tokens',
    note: weighted
      ? 'Sum over tokens of the smaller change of the gradient by the sum of the larger.'
      : 'Jaccard index: tokens touched by both methods, of those touched by either.',
    rows: methods,
    columns: methods,
    rowLabel: '',
    columnLabel: '',
    values: body.overlap[key].flat().map(orMissing),
    valueLabel: weighted ? 'weighted Jaccard index' : 'Jaccard index',
    kind: 'amount',
    domain: [0, 1],
    width: HALF_WIDTH,
  });
}

/** Draws the comparison from the body of its report. */
export async function drawInterventions(body: InterventionsBody, subtitle: string): Promise<Figure> {
  const panels = [...(await sharePanels(body.methods.slice(1))), ...(await changePanels(body))];
  if (body.overlap.methods.length > 1) {
    panels.push(await overlapPanel(body, 'jaccard'), await overlapPanel(body, 'weighted_jaccard'));
  }
  const [plain] = body.methods;
  return {
    title: 'What each intervention would do to one dump',
    subtitle,
    headline: [
      { label: 'Steps', value: body.steps },
      { label: 'Tokens', value: body.tokens },
      ...(plain.predicted_entropy_change_nats === null
        ? []
        : [
            {
              label: 'Plain GRPO, predicted change of entropy',
              value: plain.predicted_entropy_change_nats,
              unit: 'nats per unit of step size',
              ...(plain.predicted_entropy_change_nats_se !== null && {
                standardError: plain.predicted_entropy_change_nats_se,
              }),
            },
          ]),
    ],
    panels,
    sections: [
      {
        heading: 'Facts and warnings',
        body: tableMarkup({
          columns: ['method', 'what it says'],
          rows: body.methods.flatMap(({ method, facts, warnings }) => [
            [
              method,
              Object.entries(facts)
                .map(([name, value]) => `${name} ${formatNumber(value)}`)
                .join(', ') || '-',
            ],
            ...warnings.map((warning): [string, string] => [method, warning]),
          ]),
        }),
      },
      ...(body.unavailable.length === 0
        ? []
        : [
            {
              heading: 'Methods that this dump cannot show',
              body: tableMarkup({
                columns: ['method', 'reason'],
                rows: body.unavailable.map(({ method, reason }) => [method, reason]),
              }),
            },
          ]),
    ],
  };
}
