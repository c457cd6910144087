import type { TextToken } from './coloured-text.js';
import { colouredText } from './coloured-text.js';
import type { Density } from './density.js';
import { densityChart } from './density.js';
import { excerptPanel, mostVariedStretch } from './excerpt.js';
import type { Figure, HeadlineFigure, Section } from './figure.js';
import type { Histogram } from './histogram.js';
import { histogramChart } from './histogram.js';
import { tableMarkup } from './html-page.js';
import { lineChart } from './line-chart.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { THIRD_WIDTH } from './panel.js';
import type { ReliabilityBin } from './reliability.js';
import { reliabilityChart } from './reliability.js';
import { oneLine } from './token-text.js';

/** Means over the tokens whose place in the window falls into one bin. */
export interface PositionMean {
  /** Mean number of tokens before the token, from 0. */
  readonly position: number;
  readonly meanEntropyNats: number;
  readonly meanSurprisalNats: number;
  readonly seEntropyNats: number;
  readonly seSurprisalNats: number;
  readonly count: number;
}

/** A notable token with what stands around it. */
export interface NotableToken {
  readonly document: string;
  readonly position: number;
  readonly before: string | Uint8Array;
  readonly token: TextToken;
  readonly after: string | Uint8Array;
}

/** What the figure of `analyze-entropy tokens` and `logits` is drawn from. */
export interface TokensFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  readonly entropyHistogram: Histogram;
  readonly surprisalHistogram?: Histogram;
  readonly meanEntropyNats: number;
  readonly meanSurprisalNats?: number;
  readonly byPosition: readonly PositionMean[];
  /** Tokens binned by entropy: mean entropy (predicted) and mean surprisal (observed). */
  readonly calibration: readonly ReliabilityBin[];
  /** Tokens binned by the probability of the likeliest token: its mean and how often that token came. */
  readonly confidence: readonly ReliabilityBin[];
  /** Entropy along x, surprisal along y. */
  readonly density?: Density;
  /** Tokens in reading order, from the start of the data. Empty when there is no text (dumps of logits). */
  readonly tokens: readonly TextToken[];
  /** Number of tokens in all, of which `tokens` may be the first ones. */
  readonly tokenTotal: number;
  readonly mostSurprising?: readonly NotableToken[];
  readonly mostUncertain?: readonly NotableToken[];
}

export interface TokensFigureOptions {
  /** Tokens of text in an HTML page (default 4,000). */
  readonly mostTokens?: number;
  /** Tokens in the excerpt of a picture (default 120). */
  readonly excerptTokens?: number;
  /** Upper end of the colour scales; fixed, so that two reports can be laid side by side (default 8 nats). */
  readonly capNats?: number;
}

const READING =
  'Strong colour over a strong bar: the model knew that it did not know. Strong colour over a faint bar: it was sure and wrong.';

function notableSection(heading: string, note: string, rows: readonly NotableToken[]): Section {
  const columns = ['document', 'position', 'before', 'token', 'after', 'surprisal, nats', 'entropy, nats', 'rank'];
  const body = tableMarkup({
    columns,
    rows: rows.map(({ document, position, before, token, after }) => [
      document,
      position,
      oneLine(before, 60),
      oneLine(token.text, 30),
      oneLine(after, 60),
      token.surprisalNats,
      token.entropyNats,
      token.rank,
    ]),
  });
  return { heading, note, body };
}

async function textSection(
  data: TokensFigureData,
  { mostTokens = 4000, capNats = 8 }: TokensFigureOptions,
): Promise<Section> {
  const { body, leftOut } = await colouredText(data.tokens, { capNats, most: mostTokens, total: data.tokenTotal });
  const shown = Math.min(mostTokens, data.tokens.length);
  const cut =
    leftOut === 0
      ? ''
      : ` The first ${formatNumber(shown)} of ${formatNumber(data.tokenTotal)} tokens; ${formatNumber(leftOut)} are left out here.`;
  const note = `Each token on the colour of its surprisal, with a bar below it for the entropy of the prediction. ${READING} Point at a token for its numbers.${cut}`;
  return { heading: 'The text as the model sees it', note, body, first: true };
}

async function excerpt(
  data: TokensFigureData,
  { excerptTokens = 120, capNats = 8 }: TokensFigureOptions,
): Promise<Panel> {
  const { start, end } = mostVariedStretch(data.tokens, excerptTokens, capNats);
  const document = data.tokens[start].document;
  const where = `Tokens ${formatNumber(start + 1)} to ${formatNumber(end)}${document === undefined ? '' : ` (${oneLine(document, 60)})`}, the stretch where surprisal varies most.`;
  return excerptPanel(
    {
      title: 'The text as the model sees it',
      note: `${where} ${READING}`,
    },
    data.tokens.slice(start, end),
    capNats,
  );
}

function positionChart(rows: readonly PositionMean[]): Promise<Panel> {
  const ordered = [...rows].sort((a, b) => a.position - b.position);
  const x = ordered.map(({ position }) => position);
  return lineChart({
    title: 'Entropy and surprisal by position in the window',
    note: 'Means over the tokens of a bin of positions; bands of one standard error.',
    xLabel: 'tokens of context before the token',
    yLabel: 'nats',
    xScale: 'position',
    series: [
      {
        name: 'entropy',
        x,
        y: ordered.map(({ meanEntropyNats }) => meanEntropyNats),
        standardError: ordered.map(({ seEntropyNats }) => seEntropyNats),
      },
      {
        name: 'surprisal',
        x,
        y: ordered.map(({ meanSurprisalNats }) => meanSurprisalNats),
        standardError: ordered.map(({ seSurprisalNats }) => seSurprisalNats),
      },
    ],
    height: 300,
  });
}

/** The figure of token measures: text coloured by surprisal, histograms, curves by position, calibration. */
export async function tokensFigure(data: TokensFigureData, options: TokensFigureOptions = {}): Promise<Figure> {
  const panels: Panel[] = [];
  const sections: Section[] = [];
  if (data.tokens.length > 0) {
    panels.push(await excerpt(data, options));
    sections.push(await textSection(data, options));
  }
  const series = [{ name: 'entropy', histogram: data.entropyHistogram, mean: data.meanEntropyNats }];
  if (data.surprisalHistogram !== undefined) {
    const surprisal = { name: 'surprisal', histogram: data.surprisalHistogram };
    series.push({ ...surprisal, mean: data.meanSurprisalNats ?? Number.NaN });
  }
  panels.push(
    await histogramChart({
      title:
        series.length === 1 ? 'Entropy of the predictions' : 'Entropy of the predictions and surprisal of the text',
      note: series.length === 1 ? undefined : 'Equal means are necessary for calibration; the shapes need not agree.',
      xLabel: 'nats',
      unit: 'nat',
      items: 'tokens',
      series,
      height: 300,
    }),
  );
  if (data.byPosition.length > 0) panels.push(await positionChart(data.byPosition));
  if (data.density !== undefined) {
    panels.push(
      await densityChart({
        title: 'Surprisal against entropy',
        note: 'Above the line the text was more surprising than the model expected.',
        xLabel: 'entropy, nats',
        yLabel: 'surprisal, nats',
        items: 'tokens',
        density: data.density,
        line: 'identity',
        lineLabel: 'surprisal = entropy',
        width: THIRD_WIDTH,
        height: 320,
      }),
    );
  }
  if (data.calibration.length > 0) {
    panels.push(
      await reliabilityChart({
        title: 'Calibration of entropy',
        note: 'Mean surprisal of the tokens in a bin of entropy. Above the line the model is overconfident.',
        xLabel: 'mean entropy in the bin, nats',
        yLabel: 'mean surprisal, nats',
        items: 'tokens',
        bins: data.calibration,
        probability: false,
        width: THIRD_WIDTH,
        height: 320,
      }),
    );
  }
  if (data.confidence.length > 0) {
    panels.push(
      await reliabilityChart({
        title: 'Calibration of the likeliest token',
        note: 'How often the likeliest token came. Below the line the model is overconfident.',
        xLabel: 'mean probability of the likeliest token',
        yLabel: 'share of tokens where it came',
        items: 'tokens',
        bins: data.confidence,
        probability: true,
        width: THIRD_WIDTH,
        height: 320,
      }),
    );
  }
  if (data.mostSurprising !== undefined && data.mostSurprising.length > 0) {
    sections.push(notableSection('Most surprising tokens', 'Highest surprisal first.', data.mostSurprising));
  }
  if (data.mostUncertain !== undefined && data.mostUncertain.length > 0) {
    sections.push(notableSection('Most uncertain places', 'Highest entropy first.', data.mostUncertain));
  }
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections };
}
