import type { Evidence, EvidenceKind } from '../types.js';

/** The evidence as the kind that a method reads. @throws TypeError where a caller mixed them up */
export function evidenceOf<K extends EvidenceKind>(evidence: Evidence, kind: K): Extract<Evidence, { kind: K }> {
  if (evidence.kind !== kind) throw new TypeError(`this method reads ${kind}, not ${evidence.kind}`);
  return evidence as Extract<Evidence, { kind: K }>;
}
