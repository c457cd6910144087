import type { Command } from 'commander';
import { didYouMean, InputError } from '../src/errors.js';
import { MIXING_METHODS } from '../src/fusion/mixing/rows/registry.js';
import { flagOf } from './edge-values.js';
import { addDesignOptions, type DesignOptions } from './fuse-mix-design.js';
import { addFitOptions, type FitOptions } from './fuse-mix-fit.js';
import { addLoggedOptions, type LoggedOptions } from './fuse-mix-logged.js';
import { addParameterOptions, MIX_SHARED, type ParameterOptions } from './fuse-mix-options.js';
import { addMixTrainOptions, type MixTrainOptions } from './fuse-mix-train.js';
import { attachShared } from './shared-options.js';

/** What the command does; each form has options of its own. */
const FORMS = ['train', 'logged', 'fit', 'design'] as const;
type Form = (typeof FORMS)[number];

/** The option that calls for a form. */
const CALLED_BY: Readonly<Record<Form, string>> = { train: 'model', logged: 'losses', fit: 'fit', design: 'design' };

/** Shared options that only a form that trains reads. */
const TRAIN_ONLY = ['dataFormat', 'textSplit', 'textField', 'limit', 'context', 'table', 'resume'];

/** Options of training that a log reads too. */
const ALSO_LOGGED = ['prior', 'learningRate'];

type Own = ParameterOptions &
  MixTrainOptions &
  LoggedOptions &
  FitOptions &
  DesignOptions & {
    readonly method?: string;
    readonly fit?: string;
    readonly design?: string;
    readonly losses?: string;
  };

/** Declares `surprisal fuse mix`. */
export function configure(command: Command): void {
  const read = attachShared(command, MIX_SHARED);
  const names = MIXING_METHODS.map(({ name }) => name);
  command
    .argument('[what]', `a method (${names.join(', ')}), fit, or design; the same as --method, --fit, --design`)
    .option('--method <name>', `${names.join(', ')} (default aioli)`);
  const owned: Record<Form, Set<string>> = {
    train: namesOf(command, () => addMixTrainOptions(command)),
    logged: namesOf(command, () => addLoggedOptions(command)),
    fit: namesOf(command, () => addFitOptions(command)),
    design: namesOf(command, () => addDesignOptions(command)),
  };
  const ofMethods = namesOf(command, () => addParameterOptions(command));
  for (const name of TRAIN_ONLY) owned.train.add(name);
  for (const name of ALSO_LOGGED) owned.logged.add(name);
  for (const name of [...ofMethods, 'method']) {
    owned.train.add(name);
    owned.logged.add(name);
  }
  command.action(async (what: string | undefined) => {
    const options = await read();
    const given = command.opts<Own>();
    const form = formOf(command, what, names);
    refuseOthers(command, form, owned);
    const own = what !== undefined && names.includes(what) ? { ...given, method: methodName(what, given) } : given;
    switch (form) {
      case 'train': {
        const { trainMix } = await import('./fuse-mix-train.js');
        process.exitCode = await trainMix(options, own);
        break;
      }
      case 'logged': {
        const { mixLogged } = await import('./fuse-mix-logged.js');
        process.exitCode = await mixLogged(options, own);
        break;
      }
      case 'fit': {
        const { fitMix } = await import('./fuse-mix-fit.js');
        process.exitCode = await fitMix(options, own);
        break;
      }
      case 'design': {
        const { designMix } = await import('./fuse-mix-design.js');
        process.exitCode = await designMix(options, own);
        break;
      }
    }
  });
}

function methodName(what: string, { method }: Own): string {
  if (method !== undefined && method !== what) {
    throw new InputError(`fuse mix ${what} --method ${method}: two methods are named; keep one`);
  }
  return what;
}

/** Names of the options that `declare` adds. */
function namesOf(command: Command, declare: () => void): Set<string> {
  const before = command.options.length;
  declare();
  return new Set(command.options.slice(before).map((option) => option.attributeName()));
}

const isGiven = (command: Command, name: string): boolean =>
  command.getOptionValueSource(name) !== 'default' && command.getOptionValue(name) !== undefined;

/** @throws InputError when nothing, or two things, say what is to be done */
function formOf(command: Command, what: string | undefined, methods: readonly string[]): Form {
  const called = FORMS.filter((form) => isGiven(command, CALLED_BY[form]));
  if (what === 'fit' || what === 'design') called.push(...(called.includes(what) ? [] : [what as Form]));
  else if (what !== undefined && !methods.includes(what)) {
    const known = [...methods, 'fit', 'design'];
    throw new InputError(`fuse mix ${what}: no method${didYouMean(what, known)}; known: ${known.join(', ')}`);
  }
  if (called.length === 1) return called[0];
  const ways =
    '--model with --group name=FILE trains, --losses FILE reads logged losses, --fit FILE fits laws to a sweep, --design N lays out a sweep';
  if (called.length === 0) throw new InputError(`fuse mix: nothing says what to do: ${ways}`);
  throw new InputError(
    `fuse mix: ${called.map((form) => flagOf(CALLED_BY[form])).join(' and ')} are different things: ${ways}`,
  );
}

/** @throws InputError for an option that was given and that this form does not read */
function refuseOthers(command: Command, form: Form, owned: Readonly<Record<Form, ReadonlySet<string>>>): void {
  const foreign = new Set(FORMS.flatMap((other) => [...owned[other]]));
  for (const name of foreign) {
    if (owned[form].has(name) || !isGiven(command, name)) continue;
    const readers = FORMS.filter((other) => owned[other].has(name)).map((other) => flagOf(CALLED_BY[other]));
    throw new InputError(
      `${flagOf(name)} has no meaning with ${flagOf(CALLED_BY[form])}; it goes with ${readers.join(' or ')}`,
    );
  }
}
