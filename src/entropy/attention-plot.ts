import { attentionFigure, type HeadAddress } from '../report/plots/attention-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { AttentionBody } from './attention-report.js';

/** Draws the figure of attention entropy from the body of its report. */
export function drawAttention(body: AttentionBody, subtitle: string): Promise<Figure> {
  const flagged = (flag: string): HeadAddress[] =>
    body.offending_heads.filter((head) => head.flag === flag).map(({ layer, head }) => ({ layer, head }));
  const interval = (name: 'mean_entropy_nats' | 'mean_normalized_entropy') => {
    const found = body.intervals?.[name];
    return found ? { interval: [found.low, found.high] as const, intervalName: '95 % document bootstrap' } : {};
  };
  return attentionFigure({
    title: 'How widely each attention head looks',
    subtitle,
    headline: [
      { label: 'Documents', value: body.documents },
      { label: 'Queries', value: body.queries },
      { label: 'Mean entropy', value: body.mean_entropy_nats, unit: 'nats', ...interval('mean_entropy_nats') },
      {
        label: 'Mean share of log(visible keys)',
        value: body.mean_normalized_entropy,
        ...interval('mean_normalized_entropy'),
      },
      { label: 'Verdict', value: body.diagnosis.verdict },
      ...(body.regulariser ? [{ label: 'Regulariser', value: body.regulariser.loss }] : []),
      ...(body.fit ? [{ label: 'After the fit', value: body.fit.loss_after }] : []),
    ],
    quarters: [
      { name: 'of the largest head', shares: body.bins.relative.shares },
      { name: 'of log(context)', shares: body.bins.absolute.shares },
      ...(body.fit ? [{ name: 'of log(context), after the fit', shares: body.fit.absolute_shares_after }] : []),
    ],
    ...(body.fit && { fittedNats: body.fit.by_head.map((head) => head.entropy_nats_after) }),
    layers: body.layers,
    heads: body.heads,
    entropyShare: body.by_head.map((head) => head.normalized_entropy),
    entropyNats: body.by_head.map((head) => head.entropy_nats),
    collapsed: flagged('collapse'),
    overloaded: flagged('overload'),
    byPosition: body.by_layer.map(({ layer, by_position }) => ({
      layer,
      positions: by_position.map(({ first, last }) => (first + last) / 2),
      entropyNats: by_position.map((place) => place.entropy_nats),
    })),
  });
}
