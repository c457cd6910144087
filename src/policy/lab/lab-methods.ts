import { InputError } from '../../errors.js';
import { findIntervention } from '../interventions/registry.js';
import { completeSettings, parseMethod } from '../interventions/settings.js';
import type { LabMethod } from './types.js';

/** The rules of the published table of the shared lock (spec 12). */
export const SHARED_LOCK_METHODS = [
  'grpo:dual-clip=0',
  'kl-cov:fraction=0.1,beta=1',
  'kl-cov:fraction=0.1,beta=4',
  'clip-cov:ratio=0.1,lower=0.5,upper=20',
  'targeted-entropy:target=0.55,coefficient=0.05,dual-clip=0',
  'entropy-bonus:coefficient=0.03,dual-clip=0',
  'steer:mapping=exp,weight-min=0.1',
];

/** Names that tables and figures have room for, of the rules above. */
const LABELS: Readonly<Record<string, string>> = {
  'grpo:dual-clip=0': 'plain GRPO',
  'kl-cov:fraction=0.1,beta=1': 'KL-Cov 0.1, beta 1',
  'kl-cov:fraction=0.1,beta=4': 'KL-Cov 0.1, beta 4',
  'clip-cov:ratio=0.1,lower=0.5,upper=20': 'Clip-Cov 0.1, 0.5-20',
  'targeted-entropy:target=0.55,coefficient=0.05,dual-clip=0': 'targeted entropy 0.55',
  'entropy-bonus:coefficient=0.03,dual-clip=0': 'entropy bonus 0.03',
  'steer:mapping=exp,weight-min=0.1': 'STEER exp 0.1',
};

/**
 * Reads methods written `name`, `name:key=value,...` or `label=name:key=value,...`.
 * @throws InputError for an unknown name, a setting that the method does not have, or a label that comes twice
 */
export function parseMethods(texts: readonly string[]): LabMethod[] {
  const methods = texts.map((text): LabMethod => {
    const labelled = /^([^=:]*)=(.*)$/s.exec(text);
    const written = labelled === null ? text : labelled[2];
    const { name, settings } = parseMethod(written);
    // Checked here, so that nothing is trained before a mistake is found.
    completeSettings(findIntervention(name), settings);
    return {
      label: labelled === null ? (LABELS[text] ?? text.trim()) : labelled[1].trim(),
      intervention: name,
      settings,
    };
  });
  const labels = new Set<string>();
  for (const { label } of methods) {
    if (labels.has(label)) {
      throw new InputError(
        `--method ${label} is given twice; give one of them a name of its own: NAME=method:key=value`,
      );
    }
    labels.add(label);
  }
  return methods;
}
