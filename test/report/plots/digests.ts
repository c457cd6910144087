import { createHash } from 'node:crypto';
import { plotBytes } from '../../../src/report/plots/figure.js';
import { SAMPLE_FIGURES } from './sample-figures.js';

/** SHA-256 of every sample figure in every format. */
export async function digests(names = Object.keys(SAMPLE_FIGURES)): Promise<string[]> {
  const lines: string[] = [];
  for (const name of names) {
    const figure = await SAMPLE_FIGURES[name]();
    for (const extension of ['.svg', '.png', '.html']) {
      const digest = createHash('sha256')
        .update(await plotBytes(figure, extension))
        .digest('hex');
      lines.push(`${digest} ${name}${extension}`);
    }
  }
  return lines;
}
