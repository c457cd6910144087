// Runs one command line after another in one process, each to the exit code and the output that `surprisal` gives. A
// line of standard input is a JSON array of arguments; the answer is a line of JSON on standard output.
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { createInterface } from 'node:readline';
import { Command } from 'commander';

const threads = createRequire(import.meta.url)('node:worker_threads');
const workers = new Set();
threads.Worker = class extends threads.Worker {
  constructor(...args) {
    super(...args);
    workers.add(this);
    this.once('exit', () => workers.delete(this));
  }
};
syncBuiltinESMExports();
const { describeFailure, EXIT, runCommand } = await import('../../dist/commands/edge-run.js');

const written = { stdout: '', stderr: '' };
const answer = process.stdout.write.bind(process.stdout);
for (const name of ['stdout', 'stderr']) {
  process[name].write = (text) => {
    written[name] += text;
    return true;
  };
}

/** What the program does at the end of its process: it removes unfinished outputs and temporary folders. */
let removeLeftovers;

async function ended(argv) {
  const program = new Command('surprisal').exitOverride();
  program.configureOutput({ outputError: (text, write) => write(`${text.trim().replace(/\s*\n\s*/g, ' ')}\n`) });
  const { configure } = await import(`../../dist/commands/${argv[0]}.js`);
  process.exitCode = undefined;
  try {
    await configure(program.command(argv[0]), argv);
    await program.parseAsync(argv, { from: 'user' });
    return Number(process.exitCode ?? EXIT.done);
  } catch (error) {
    if (String(error?.code).startsWith('commander.')) return error.exitCode === 0 ? EXIT.done : EXIT.wrongInput;
    removeLeftovers();
    const { code, message } = describeFailure(error);
    process.stderr.write(`error: ${message}\n`);
    // A process would end here, and with it the engines that are open.
    await Promise.all(Array.from(workers, (worker) => worker.terminate()));
    return code;
  }
}

await runCommand(async () => {
  removeLeftovers = process.listeners('exit').at(-1);
  for await (const line of createInterface({ input: process.stdin })) {
    Object.assign(written, { stdout: '', stderr: '' });
    const code = await ended(JSON.parse(line));
    answer(`${JSON.stringify({ code, ...written })}\n`);
  }
  return EXIT.done;
}, false);
