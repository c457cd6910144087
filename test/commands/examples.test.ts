import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { temporaryFolder } from '../formats/collect.js';
import { surprisal } from './run-surprisal.js';

/** The examples that the README shows, run as they stand on the bundled models. */
const folder = temporaryFolder();
const binary = `${process.execPath} ${resolve('bin/surprisal.js')}`;

function prepare(name: string, models: Readonly<Record<string, string>>): string {
  const directory = join(folder, name);
  mkdirSync(directory);
  for (const [as, model] of Object.entries(models)) {
    cpSync(join('fixtures/models', model), join(directory, as), { recursive: true });
  }
  const [first] = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').split('\n', 1);
  const document = JSON.parse(first) as { text: string };
  writeFileSync(
    join(directory, 'heldout.jsonl'),
    `${JSON.stringify({ ...document, text: document.text.slice(0, 4000) })}\n`,
  );
  return directory;
}

describe('the examples of the README', () => {
  it.skipIf(spawnSync('make', ['--version']).error !== undefined)(
    'Makefile: scores once, then has nothing to do',
    () => {
      const directory = prepare('make', { base: 'llama-sotu', tuned: 'llama-sotu-ft-recent' });
      const make = (...argv: string[]) =>
        spawnSync('make', ['-f', resolve('docs/examples/Makefile'), `SURPRISAL=${binary}`, ...argv], {
          cwd: directory,
          encoding: 'utf8',
        });
      expect(make().status).toBe(0);
      for (const name of ['base.json', 'base.csv', 'base.html', 'tuned.json']) {
        expect(existsSync(join(directory, 'out', name)), name).toBe(true);
      }
      expect(make().stdout).toMatch(/Nothing to be done/);
      expect(make('check').stderr).toMatch(/assert does not hold: perplexity <= 1.02 \* baseline.perplexity/);
    },
  );

  it('workflow: its command passes on an unchanged model and fails on a worse one', () => {
    const workflow = parse(readFileSync('docs/examples/entropy.yml', 'utf8')) as {
      jobs: { perplexity: { steps: { run?: string }[] } };
    };
    const command = workflow.jobs.perplexity.steps
      .map((step) => step.run ?? '')
      .find((run) => run.includes('--assert'));
    const run = (directory: string): number | null =>
      spawnSync('bash', ['-ec', (command as string).replace('npx surprisal', binary)], { cwd: directory }).status;
    const directory = prepare('ci', { model: 'llama-sotu' });
    const made = surprisal([
      'analyze-entropy',
      'tokens',
      '--model',
      join(directory, 'model'),
      '--data',
      join(directory, 'heldout.jsonl'),
      '--context',
      '256',
      '--quiet',
      '--report',
      join(directory, 'baseline.json'),
    ]);
    expect(made.code).toBe(0);
    expect(run(directory)).toBe(0);
    execFileSync('rm', [
      '-r',
      join(directory, 'report.json'),
      join(directory, 'report.html'),
      join(directory, 'model'),
    ]);
    cpSync('fixtures/models/llama-sotu-ft-moby', join(directory, 'model'), { recursive: true });
    expect(run(directory)).toBe(3);
  });

  it('stand in the README as they are in their files', () => {
    const readme = readFileSync('README.md', 'utf8');
    for (const block of readme.matchAll(/```(make|yaml)\n([\s\S]*?)```/g)) {
      const source = readFileSync(block[1] === 'make' ? 'docs/examples/Makefile' : 'docs/examples/entropy.yml', 'utf8');
      expect(source).toContain(block[2].trimEnd());
    }
  });
});
