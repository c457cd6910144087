import { logSoftmax } from '../../src/decoding/log-softmax.js';
import {
  EMPTY_PATH,
  PATH_NUCLEUS_DEFAULTS,
  type PathNucleusSettings,
  pathWeights,
  stepPaths,
  type TokenPath,
} from '../../src/decoding/path-nucleus.js';
import type { Json } from './harness.js';
import { float64, keysOf, listed, number, shapeOf } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const start = logSoftmax(float64(inputs.init_logits, 'init_logits'));
  const [vocabulary] = shapeOf(inputs.transition_logits, 'transition_logits');
  const transitions = float64(inputs.transition_logits, 'transition_logits');
  const after = (token: number) => logSoftmax(transitions.subarray(token * vocabulary, (token + 1) * vocabulary));
  const given = (name: string, otherwise: number): number =>
    inputs[name] === undefined || inputs[name] === null ? otherwise : number(inputs[name], name);
  const uniforms = Array.isArray(inputs.uniforms) ? inputs.uniforms.map((row) => listed(row, 'uniforms')) : undefined;
  const settings: PathNucleusSettings = {
    width: number(inputs.k, 'k'),
    tokenMass: number(inputs.top_p_token, 'top_p_token'),
    pathMass: number(inputs.top_p_path, 'top_p_path'),
    select: uniforms ? 'sample' : 'topk',
    lengthPenalty: given('length_penalty', PATH_NUCLEUS_DEFAULTS.lengthPenalty),
    temperature: given('path_temperature', PATH_NUCLEUS_DEFAULTS.temperature),
  };
  const eos = number(inputs.eos, 'eos');
  const steps = given('steps', uniforms?.length ?? 0);
  let paths: readonly TokenPath[] = [EMPTY_PATH];
  const trace: unknown[] = [];
  for (let s = 0; s < steps && paths.some(({ finished }) => !finished); s++) {
    const rows = paths.map(({ tokens }) => (tokens.length === 0 ? start : after(tokens[tokens.length - 1])));
    const step = stepPaths(
      paths,
      rows,
      settings,
      (token) => token === eos,
      (i) => uniforms?.[s][i] ?? Number.NaN,
    );
    paths = step.paths;
    trace.push({
      n_candidates: step.candidates,
      joint_entropy_nats: step.jointEntropyNats,
      effective_paths: step.effectivePaths,
      n_joint_nucleus: step.nucleusCandidates,
      nucleus_mass: step.nucleusMass,
      beams: paths.map(({ tokens, logProbability, finished }) => ({ tokens, logprob: logProbability, finished })),
    });
  }
  const all: Record<string, unknown> = { trace, weights: Array.from(pathWeights(paths, settings)) };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, all[key]]));
}
