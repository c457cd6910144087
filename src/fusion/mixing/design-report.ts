import type { Figure } from '../../report/plots/figure.js';
import { HALF_WIDTH, type Panel } from '../../report/plots/panel.js';
import { scatterChart } from '../../report/plots/scatter-chart.js';

/** Schema of the report of a laid-out sweep. */
export const DESIGN_SCHEMA = 'fuse-mix-design';

/** Body of the report. */
export interface DesignBody {
  readonly mixtures: number;
  readonly groups: readonly string[];
  readonly least_proportion: number;
  readonly greatest_proportion: number;
  /** Distances to the nearest other mixture. */
  readonly least_distance: number | null;
  readonly mean_distance: number | null;
}

/** What a design covers. @param mixtures [n, k] */
export function designBody(mixtures: Float64Array, groups: readonly string[]): DesignBody {
  const k = groups.length;
  const count = mixtures.length / k;
  const nearest = Array.from({ length: count }, (_, a) => {
    let best = Number.POSITIVE_INFINITY;
    for (let b = 0; b < count; b++) {
      if (a === b) continue;
      let sum = 0;
      for (let j = 0; j < k; j++) sum += (mixtures[a * k + j] - mixtures[b * k + j]) ** 2;
      best = Math.min(best, Math.sqrt(sum));
    }
    return best;
  });
  return {
    mixtures: count,
    groups,
    least_proportion: mixtures.reduce((a, b) => Math.min(a, b)),
    greatest_proportion: mixtures.reduce((a, b) => Math.max(a, b)),
    least_distance: count < 2 ? null : Math.min(...nearest),
    mean_distance: count < 2 ? null : nearest.reduce((a, b) => a + b, 0) / count,
  };
}

/** Pairs of groups that are drawn. */
const MOST_PANELS = 6;

/** The mixtures by pairs of groups. */
export async function designFigure(body: DesignBody, mixtures: Float64Array, subtitle: string): Promise<Figure> {
  const k = body.groups.length;
  const share = (j: number): Float64Array => mixtures.filter((_, e) => e % k === j);
  const panels: Panel[] = [];
  for (let i = 0; i < k; i++) {
    for (let j = i + 1; j < k && panels.length < MOST_PANELS; j++) {
      panels.push(
        await scatterChart({
          title: `${body.groups[i]} and ${body.groups[j]}`,
          xLabel: `proportion of ${body.groups[i]}`,
          yLabel: `proportion of ${body.groups[j]}`,
          series: [{ name: 'mixtures', x: share(i), y: share(j) }],
          range: [0, 1],
          width: HALF_WIDTH,
        }),
      );
    }
  }
  return {
    title: 'Mixtures for a sweep',
    subtitle,
    headline: [
      { label: 'Mixtures', value: body.mixtures },
      ...(body.mean_distance === null ? [] : [{ label: 'Mean distance to the nearest', value: body.mean_distance }]),
      { label: 'Least proportion', value: body.least_proportion },
    ],
    panels,
    sections: [],
  };
}
