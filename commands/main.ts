import type { Command } from 'commander';

/** What a module of a subcommand gives: it declares its options and its action on the command. */
export interface CommandModule {
  configure(command: Command, argv: readonly string[]): void | Promise<void>;
}

interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  /** Loaded only when this subcommand is asked for, so that `--help` and `--version` stay fast. */
  readonly load: () => Promise<CommandModule>;
}

const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'analyze-entropy',
    summary: 'entropies of tokens, logits, attention, layers, choices, representations, diversity, dependence and more',
    load: () => import('./analyze-entropy.js'),
  },
  {
    name: 'quantize-pvq',
    summary: 'quantise weights by pyramid codes at any rate; verify, dequantise and compare quantisers',
    load: () => import('./quantize-pvq.js'),
  },
  {
    name: 'merge-moe',
    summary: 'merge, prune and compress the experts of a mixture-of-experts model; entropy of its routing',
    load: () => import('./merge-moe.js'),
  },
  {
    name: 'steer',
    summary: 'steering vectors, what they do to the entropy of actions, and samplers',
    load: () => import('./steer.js'),
  },
  {
    name: 'distill-pld',
    summary:
      'train students by the Plackett-Luce loss and its rivals; captures, audits, comparisons, activation search',
    load: () => import('./distill-pld.js'),
  },
  {
    name: 'fuse',
    summary: 'merge models by their weights, fuse their knowledge, mix data, combine evidence and quantile forecasts',
    load: () => import('./fuse.js'),
  },
  {
    name: 'analyze-policy',
    summary:
      "a policy's entropy in reinforcement learning: dynamics, law, interventions, laboratory, rewards, formulas",
    load: () => import('./analyze-policy.js'),
  },
  {
    name: 'merge-reports',
    summary: 'unite the partial reports and tables of a run with --shard',
    load: () => import('./merge-reports.js'),
  },
  {
    name: 'doctor',
    summary: 'versions, kernels, threads, memory and backends of this installation',
    load: () => import('./doctor.js'),
  },
];

/** The first argument that is no option: the subcommand (after `help`, the one to explain). */
function requestedCommand(argv: readonly string[]): CommandEntry | undefined {
  const words = argv.filter((word) => !word.startsWith('-'));
  const name = words[0] === 'help' ? words[1] : words[0];
  return COMMANDS.find((entry) => entry.name === name);
}

async function buildProgram(argv: readonly string[], version: string): Promise<Command> {
  const { Command } = await import('commander');
  const program = new Command('surprisal')
    .description('Entropy analyses of language models.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .exitOverride()
    .configureOutput({
      // Commander puts its suggestion on a second line; an error is one line here.
      outputError: (text, write) => write(`${text.trim().replace(/\s*\n\s*/g, ' ')}\n`),
    });
  const requested = requestedCommand(argv);
  for (const entry of COMMANDS) {
    const command = program.command(entry.name).description(entry.summary);
    if (entry === requested) await (await entry.load()).configure(command, argv);
  }
  return program;
}

/**
 * Runs one command line to its exit code. `--version` is answered before anything else is loaded.
 * @param argv the arguments after the program's name
 */
export async function main(argv: readonly string[]): Promise<void> {
  const { toolVersion } = await import('./edge-version.js');
  if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
    process.stdout.write(`${toolVersion()}\n`);
    return;
  }
  const { EXIT, runCommand } = await import('./edge-run.js');
  await runCommand(async () => {
    const program = await buildProgram(argv, toolVersion());
    if (argv.length === 0) {
      process.stderr.write(program.helpInformation());
      return EXIT.wrongInput;
    }
    try {
      await program.parseAsync(argv, { from: 'user' });
    } catch (error) {
      // Commander has already printed its line (or the help that was asked for).
      const { code, exitCode } = error as { code?: unknown; exitCode?: unknown };
      if (typeof code !== 'string' || !code.startsWith('commander.')) throw error;
      return exitCode === 0 ? EXIT.done : EXIT.wrongInput;
    }
    return undefined;
  }, argv.includes('--debug'));
}
