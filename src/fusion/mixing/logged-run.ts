import { InputError } from '../../errors.js';
import type { LossLog } from './loss-log.js';
import { mixingMethod } from './rows/registry.js';
import type { CourseRound } from './training/course.js';
import type { Evidence, MixerStart } from './types.js';

/** What a method reads beside the log. */
export interface LoggedInputs {
  /** DoReMi: losses of the reference, [k]. */
  readonly reference?: Float64Array;
  /** DoGE: what was logged of the gradients, a round each, and the learning rate. */
  readonly alignments?: readonly { readonly inner: Float64Array; readonly norms: Float64Array }[];
  readonly learningRate?: number;
}

/** What a method makes of logged losses. */
export interface LoggedResult {
  readonly rounds: readonly CourseRound[];
  readonly proportions: Float64Array;
}

/**
 * Runs a method over logged rounds, one update each. Rounds without probes update nothing where the method needs probes: a last
 * evaluation is one.
 * @throws InputError for inputs that the method lacks, losses that are no numbers, a log without a single update
 */
export function runLogged(method: string, start: MixerStart, log: LossLog, inputs: LoggedInputs): LoggedResult {
  const declared = mixingMethod(method);
  const mixer = declared.create(start);
  const rounds: CourseRound[] = [];
  let updates = 0;
  log.rounds.forEach(({ round, start: losses, probes }, at) => {
    const evidence = evidenceOf(round, at);
    const update = evidence && mixer.update(evidence);
    if (update) updates++;
    rounds.push({ step: at, losses, ...(update && { update }), proportions: mixer.proportions });

    function evidenceOf(number: number, index: number): Evidence | undefined {
      switch (declared.evidence) {
        case 'probes':
          return probes.length === 0 ? undefined : { kind: 'probes', start: losses, probes };
        case 'losses':
          return { kind: 'losses', losses };
        case 'excess': {
          const { reference } = inputs;
          if (!reference) throw new InputError('doremi needs the losses of a reference model: --reference-losses FILE');
          return { kind: 'excess', losses, reference };
        }
        case 'alignments': {
          const found = inputs.alignments?.[index];
          if (!found)
            throw new InputError(`doge needs inner products of gradients of round ${number}: --alignments FILE`);
          return { kind: 'alignments', ...found, learningRate: inputs.learningRate ?? 0 };
        }
        default:
          return undefined;
      }
    }
  });
  if (declared.evidence === 'probes' && updates === 0) {
    throw new InputError('the log holds no probes, from which aioli learns: rows with a number in the column probe');
  }
  return { rounds, proportions: mixer.result() };
}
