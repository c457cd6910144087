// Runs command lines one after another in one process, each to the exit code and the output that `surprisal` gives:
// node run-several.mjs < LINES, a JSON array of arrays of arguments; the answer is a JSON array on standard output.
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { describeFailure, EXIT, runCommand } from '../../dist/commands/edge-run.js';
import { abortPendingWrites } from '../../dist/src/formats/atomic.js';

const lines = JSON.parse(readFileSync(0, 'utf8'));
const written = { stdout: '', stderr: '' };
const answer = process.stdout.write.bind(process.stdout);
for (const name of ['stdout', 'stderr']) {
  process[name].write = (text) => {
    written[name] += text;
    return true;
  };
}

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
    abortPendingWrites();
    const { code, message } = describeFailure(error);
    process.stderr.write(`error: ${message}\n`);
    return code;
  }
}

await runCommand(async () => {
  const answers = [];
  for (const argv of lines) {
    Object.assign(written, { stdout: '', stderr: '' });
    const code = await ended(argv);
    answers.push({ code, ...written });
  }
  await new Promise((resolve) => answer(JSON.stringify(answers), resolve));
  return EXIT.done;
}, false);
