import { codeCoherenceLoss, paperCoherence } from '../../src/koopman/coherence.js';
import { consistencyLoss, koopmanMatrix } from '../../src/koopman/koopman-matrix.js';
import { latentEntropy, latentEntropyGradient } from '../../src/koopman/latent-entropy.js';
import { modeModuli } from '../../src/koopman/modes.js';
import { sequencesOf, stackedLatents, stepCount } from '../../src/koopman/sequences.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const [batch, steps, width] = shapeOf(inputs.z, 'z');
  const lengths = new Array<number>(batch).fill(steps);
  const next = inputs.z_next === null || inputs.z_next === undefined ? undefined : float64(inputs.z_next, 'z_next');
  const sequences = sequencesOf(float64(inputs.z, 'z'), width, lengths, next);
  const window = number(inputs.k, 'k');
  const options = { window, temperature: number(inputs.temperature, 'temperature') };
  const c = koopmanMatrix(sequences, number(inputs.ridge, 'ridge'));
  const moduli = modeModuli(c, width);
  const rows = stackedLatents(sequences);
  const count = stepCount(sequences);
  const paper = latentEntropy(rows, count, width, 'paper');
  const loss = codeCoherenceLoss(sequences, options, true);
  const place = window * width;
  return {
    koopman_C_forward_row_convention: tensor([width, width], c),
    koopman_eig_modulus_desc: tensor([width], moduli),
    spectral_radius: moduli[0],
    von_neumann_entropy_code: latentEntropy(rows, count, width, 'code').entropyNats,
    von_neumann_entropy_paper_covariance: paper.entropyNats,
    effective_dimension: paper.effectiveDimension,
    info_nce_loss_code: loss.nats,
    info_nce_loss_code_no_normalisation: codeCoherenceLoss(sequences, { ...options, similarity: 'inner-product' }).nats,
    mi_lower_bound_paper_infonce_cosine: paperCoherence(sequences, options).nats,
    koopman_consistency_loss: consistencyLoss(sequences, c),
    grad_vne_first_step_batch0: tensor([width], latentEntropyGradient(rows, count, width, 'code').subarray(0, width)),
    grad_infonce_first_scored_step_batch0: tensor([width], loss.gradients?.[0].subarray(place, place + width) ?? []),
  };
}
