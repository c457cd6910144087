import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineSeries } from '../report/plots/line-chart.js';
import type { PromptRun } from './run-job.js';
import type { RunBody } from './run-report.js';

type Values = (continuation: PromptRun['continuations'][number]) => ArrayLike<number> | undefined;

/** Mean over continuations at each token of the reply, with its standard error. */
function byToken(prompts: readonly PromptRun[], name: string, of: Values): LineSeries {
  const all = prompts.flatMap(({ continuations }) => continuations.map(of)).filter((values) => values !== undefined);
  const longest = all.reduce((most, { length }) => Math.max(most, length), 0);
  const x = Array.from({ length: longest }, (_, i) => i + 1);
  const columns = x.map((_, i) => all.filter(({ length }) => length > i).map((values) => values[i]));
  const means = columns.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
  const standardError = columns.map((values, i) => {
    if (values.length < 2) return 0;
    const squares = values.reduce((sum, value) => sum + (value - means[i]) ** 2, 0);
    return Math.sqrt(squares / (values.length - 1) / values.length);
  });
  return { name, x, y: means, standardError };
}

/** Token by token: entropy of the prediction, and surprisal with and without steering. */
export async function runFigure(prompts: readonly PromptRun[], body: RunBody, subtitle: string): Promise<Figure> {
  const note = 'Mean over all continuations that are that long, with one standard error.';
  const shared = { xLabel: 'token of the reply', yLabel: 'nats', yZero: true, note };
  const drift = body.mean_kl_nats !== null;
  return chartFigure({
    title: body.steering.length > 0 ? 'Steered text, token by token' : 'Generated text, token by token',
    subtitle,
    headline: [
      { label: 'Tokens', value: body.tokens },
      {
        label: 'Token entropy',
        value: body.mean_entropy_nats.mean,
        unit: 'nats',
        standardError: body.mean_entropy_nats.se,
      },
      ...(body.unsteered_perplexity === null
        ? []
        : [{ label: 'Perplexity of the text, unsteered model', value: body.unsteered_perplexity }]),
    ],
    charts: [
      {
        kind: 'lines',
        chart: {
          ...shared,
          title: 'Entropy of the prediction',
          series: [byToken(prompts, 'entropy', ({ generated }) => generated.entropyNats)],
        },
      },
      {
        kind: 'lines',
        chart: {
          ...shared,
          title: 'Surprisal of the text',
          series: [
            byToken(prompts, 'as generated', ({ generated }) => generated.surprisalNats),
            ...(drift
              ? [byToken(prompts, 'under the unsteered model', (own) => own.drift?.unsteeredSurprisalNats)]
              : []),
          ],
        },
      },
      ...(drift
        ? [
            {
              kind: 'lines' as const,
              chart: {
                ...shared,
                title: 'KL from the unsteered model',
                series: [byToken(prompts, 'KL', (own) => own.drift?.klNats)],
              },
            },
          ]
        : []),
    ],
  });
}
