import type { Config } from '../../models/config-reader.js';

/** A number of layers that a config.json has. */
export interface LayerCount {
  /** Way to it from the top: `['vision_config', 'depth']`. */
  readonly key: readonly string[];
  readonly value: number;
}

const KEYS = [
  'num_hidden_layers',
  'n_layer',
  'n_layers',
  'num_layers',
  'decoder_layers',
  'encoder_layers',
  'num_decoder_layers',
  'num_encoder_layers',
  'depth',
];

/** Numbers of layers in a config and in the objects directly inside it, the most usual names first. */
export function layerCounts(config: Config): LayerCount[] {
  const sections: [readonly string[], Config][] = [[[], config]];
  for (const [key, value] of Object.entries(config))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) sections.push([[key], value as Config]);
  return sections.flatMap(([path, section]) =>
    KEYS.flatMap((key) => {
      const value = section[key];
      return typeof value === 'number' && Number.isInteger(value) ? [{ key: [...path, key], value }] : [];
    }),
  );
}

const PARTS = ['vision', 'audio', 'encoder', 'decoder', 'text'] as const;

/** Whether a name speaks of a part of a model; `visual` and `language` are other words for two of them. */
function speaksOf(name: string, part: (typeof PARTS)[number]): boolean {
  const words = { vision: /vision|visual|image/, text: /text|language/, audio: /audio|speech/ };
  return part in words ? words[part as keyof typeof words].test(name) : new RegExp(`(^|[._])${part}`).test(name);
}

/** How well a key of a config goes with the names of a stack: one for each part that both speak of, minus those of one. */
function affinity(key: readonly string[], prefix: string): number {
  const name = key.join('.');
  let score = 0;
  for (const part of PARTS) {
    const [inKey, inPrefix] = [speaksOf(name, part), speaksOf(prefix, part)];
    if (inKey && inPrefix) score += 2;
    else if (inKey) score -= 2;
  }
  return score;
}

/** The number in a config that counts the layers of a stack, if one of them is `layers`. */
export function stackCount(counts: readonly LayerCount[], prefix: string, layers: number): LayerCount | undefined {
  let best: LayerCount | undefined;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const count of counts) {
    const score = affinity(count.key, prefix);
    if (count.value === layers && score > bestScore) {
      best = count;
      bestScore = score;
    }
  }
  return best;
}
