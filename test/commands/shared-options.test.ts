import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { parseInteger, parseMemory, parseShard } from '../../commands/edge-values.js';
import { attachShared, type SharedOptionName } from '../../commands/shared-options.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();

async function parse(
  argv: string[],
  names: readonly SharedOptionName[],
  config?: string,
): Promise<Record<string, unknown>> {
  const command = new Command('probe').exitOverride().configureOutput({ writeErr: () => undefined });
  command.option('--top <n>', 'own option', (text) => parseInteger('--top', text), 20);
  const read = attachShared(command, names);
  const extra: string[] = [];
  if (config !== undefined) {
    const path = join(folder, 'config.yaml');
    writeFileSync(path, config);
    extra.push('--config', path);
  }
  let result: Record<string, unknown> = {};
  command.action(async () => {
    result = { ...(await read()) };
    result.top = command.opts<{ top: number }>().top;
  });
  await command.parseAsync([...argv, ...extra], { from: 'user' });
  return result;
}

describe('shared options', () => {
  it('have the defaults of the documentation', async () => {
    const options = await parse(
      [],
      ['seed', 'device', 'textField', 'data', 'assert', 'force', 'limit', 'shard', 'textSplit'],
    );
    expect(options).toMatchObject({
      seed: 0,
      device: 'cpu',
      textField: 'text',
      data: [],
      assert: [],
      force: false,
      textSplit: 'file',
      top: 20,
    });
    expect(options.limit).toBeUndefined();
    expect(options.shard).toBeUndefined();
  });

  it('are converted and checked', async () => {
    const argv = [
      '--data',
      'a',
      'b',
      '--data',
      'c',
      '--limit',
      '5',
      '--max-memory',
      '512MB',
      '--shard',
      '1/4',
      '--assert',
      'a<1',
      '--assert',
      'b<2',
    ];
    expect(await parse(argv, ['data', 'limit', 'maxMemory', 'shard', 'assert'])).toMatchObject({
      data: ['a', 'b', 'c'],
      limit: 5,
      maxMemory: 512e6,
      shard: { index: 1, count: 4 },
      assert: ['a<1', 'b<2'],
    });
  });

  it.each([
    [['--limit', '0'], '--limit 0: an integer of at least 1 is needed'],
    [['--limit', '1e3'], '--limit 1e3'],
    [['--threads', 'two'], '--threads two: an integer of 1 to 1024 is needed'],
    [['--max-memory', '3 apples'], '--max-memory 3 apples: an amount of memory is needed'],
    [['--max-memory', '120%'], '--max-memory 120%'],
    [['--device', 'cup'], '--device cup: unknown; did you mean "cpu"?; one of cpu, webgpu, cuda is needed'],
    [['--format', 'cvs'], 'did you mean "csv"?'],
    [['--seed', '-1'], '--seed -1'],
    [['--shard', '4/4'], 'shard 4 of 4 does not exist; shards count from 0'],
    [['--shards', '4'], '--shards needs --shard'],
  ])('refuse %j', async (argv, message) => {
    const names = ['limit', 'threads', 'maxMemory', 'device', 'format', 'seed', 'shard'] as const;
    await expect(parse(argv, names)).rejects.toThrow(message);
  });

  it('are attached only where they are used', async () => {
    await expect(parse(['--model', 'x'], ['data'])).rejects.toThrow(/unknown option '--model'/);
  });
});

describe('--config', () => {
  const names = ['data', 'maxMemory', 'force', 'seed', 'assert', 'device', 'textField'] as const;

  it('gives options in any spelling; the command line wins', async () => {
    const config =
      'max-memory: 1GiB\ntext_field: body\nseed: 007\nforce: true\ntop: 3\ndata: [a.txt, b.txt]\nassert:\n  - a < 1\n  - b < 2\n';
    expect(await parse([], names, config)).toMatchObject({
      maxMemory: 2 ** 30,
      textField: 'body',
      seed: 7,
      force: true,
      top: 3,
      data: ['a.txt', 'b.txt'],
      assert: ['a < 1', 'b < 2'],
    });
    const argv = ['--seed', '9', '--data', 'c.txt', '--assert', 'c < 3', '--top', '4'];
    expect(await parse(argv, names, config)).toMatchObject({
      seed: 9,
      data: ['c.txt'],
      assert: ['c < 3'],
      top: 4,
      textField: 'body',
    });
    expect(await parse([], names, 'data: one.txt\nforce: false\n')).toMatchObject({ data: ['one.txt'], force: false });
    expect(await parse([], names, '# nothing\n')).toMatchObject({ seed: 0 });
  });

  it.each([
    ['seeed: 1', 'unknown key "seeed" for probe; did you mean "seed"?'],
    ['model: x', 'unknown key "model"'],
    ['config: other.yaml', 'unknown key "config"'],
    ['seed: [1, 2]', 'seed: takes one value, not a list'],
    ['seed: {a: 1}', 'seed: a value or a list of values is needed'],
    ['seed: x', '--seed x: an integer'],
    ['force: maybe', 'force: true or false is needed'],
    ['- seed', 'a mapping of option names'],
    ['seed: 1\nseed: 2', 'not readable as YAML'],
    ['max-memory: 1GB\nmaxMemory: 2GB', '"maxMemory" is given twice'],
    ['seed: "1', 'not readable as YAML'],
  ])('refuses %j', async (config, message) => {
    await expect(parse([], names, config)).rejects.toThrow(message);
  });

  it('must be there', async () => {
    await expect(parse(['--config', join(folder, 'none.yaml')], names)).rejects.toThrow(/none\.yaml: cannot read/);
  });
});

describe('parseMemory', () => {
  it.each([
    ['100', 100],
    ['1k', 1000],
    ['1KiB', 1024],
    ['1.5GB', 1.5e9],
    ['2GiB', 2 ** 31],
    ['75%', 750],
    ['0.5 TB', 5e11],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseMemory('--max-memory', text, () => 1000)).toBe(bytes);
  });
});

describe('parseShard', () => {
  it.each([
    ['2/3', undefined, {}, { index: 2, count: 3 }],
    [
      'env',
      undefined,
      { SLURM_ARRAY_TASK_ID: '7', SLURM_ARRAY_TASK_MIN: '5', SLURM_ARRAY_TASK_COUNT: '4' },
      { index: 2, count: 4 },
    ],
    ['env', undefined, { SLURM_ARRAY_TASK_ID: '0', SLURM_ARRAY_TASK_COUNT: '1' }, { index: 0, count: 1 }],
    ['env', 3, { JOB_COMPLETION_INDEX: '1' }, { index: 1, count: 3 }],
  ])('reads %s with %s shards', (text, shards, env, expected) => {
    expect(parseShard(text, shards, env)).toEqual(expected);
  });

  it.each([
    ['3', undefined, {}, 'i/n (from 0, such as 0/4) or env is needed'],
    ['0/0', undefined, {}, 'shard 0 of 0 does not exist'],
    ['0/4', 5, {}, 'disagree'],
    ['env', undefined, {}, 'neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set'],
    ['env', undefined, { JOB_COMPLETION_INDEX: '1' }, 'name the number of shards with --shards'],
    ['env', 2, { JOB_COMPLETION_INDEX: '2' }, 'shard 2 of 2 does not exist'],
    ['env', undefined, { SLURM_ARRAY_TASK_ID: '1' }, 'SLURM_ARRAY_TASK_COUNT is not set'],
    ['env', 1, { JOB_COMPLETION_INDEX: 'x' }, 'JOB_COMPLETION_INDEX x: an integer'],
  ])('refuses %s with %s shards and %j', (text, shards, env, message) => {
    expect(() => parseShard(text, shards, env)).toThrow(message);
  });
});
