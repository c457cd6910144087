import { aresDetails } from './ares-details.js';
import { hardnessDetails, recentDetails, targetedEntropyDetails } from './confucius-details.js';
import { clipCovDetails, klCovDetails } from './covariance-details.js';
import { cureDetails } from './cure-details.js';
import { empgDetails } from './empg-details.js';
import { pearDetails } from './pear-details.js';
import { steerDetails } from './steer-details.js';
import type { MethodDetails } from './types.js';

/** Details by the name of their intervention, for `--details`. */
export const METHOD_DETAILS: Readonly<Record<string, MethodDetails>> = {
  'clip-cov': clipCovDetails,
  'kl-cov': klCovDetails,
  steer: steerDetails,
  'targeted-entropy': targetedEntropyDetails,
  pear: pearDetails,
  ares: aresDetails,
  empg: empgDetails,
  cure: cureDetails,
  'hardness-weights': hardnessDetails,
  'recent-samples': recentDetails,
};
