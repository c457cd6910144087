import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import * as compute from '../../commands/steer-compute.js';
import * as decode from '../../commands/steer-decode.js';
import * as exported from '../../commands/steer-export.js';
import { readSteering, type SteerOptions } from '../../commands/steer-options.js';
import { createInputLedger } from '../../src/formats/inputs.js';
import type { ModelInfo } from '../../src/models/language-model.js';

/** Runs a command in this process, as far as its checks of the options. */
async function given(action: { configure(command: Command): void }, line: string): Promise<unknown> {
  const command = new Command('action');
  action.configure(command);
  return command.parseAsync(line.split(' '), { from: 'user' });
}

describe('options that would be ignored are refused', () => {
  it.each([
    ['--logits rows.npy --sampler greedy --strength 3', /--strength: a dump of logits is not generated from/],
    ['--logits rows.npy --sampler greedy --when-read last', /--when-read: a dump/],
    ['--logits rows.npy --sampler greedy --answer-pattern x', /--answer-pattern: a dump/],
    ['--logits rows.npy --sampler greedy --context 64', /--context: a dump of logits needs no model/],
    ['--logits rows.npy --sampler greedy --rules-temperature 2', /--rules-temperature has no meaning without --alphas/],
    ['--model m --data d --path-nucleus k=2 --samples 4', /--samples: it has no meaning without --sampler/],
    ['--model m --data d --path-nucleus k=2 --alphas 0.4', /--alphas: it has no meaning without --sampler/],
  ])('steer decode %s', async (line, message) => {
    await expect(given(decode, line)).rejects.toThrow(message);
  });

  it.each(['scale unit', 'sign majority', 'centre none', 'multiplier 3', 'permutations 9'])(
    'steer compute --shard 0/2 --%s',
    async (option) => {
      const line = `--model m --data d --shard 0/2 --activations-out a.safetensors --${option}`;
      await expect(given(compute, line)).rejects.toThrow(`--${option.split(' ')[0]} has no meaning with --shard`);
    },
  );

  it.each(['--entropy sampled', '--samples 25'])('steer compute %s --thought so', async (sampled) => {
    await expect(given(compute, `--model m --data d ${sampled} --thought so`)).rejects.toThrow(
      /--thought has no meaning with sampled/,
    );
  });

  it('steer export --move-block-zero to another format than GGUF', async () => {
    await expect(given(exported, '--vector v.json --out v.safetensors --move-block-zero')).rejects.toThrow(
      /--move-block-zero has no meaning/,
    );
  });

  it.each([
    [{ whenLayer: '3' }, '--when-layer'],
    [{ whenRead: 'last' }, '--when-read'],
    [{ anyModel: true }, '--any-model'],
  ] as const)('steering without a vector: %o', async (own: SteerOptions, flag) => {
    const info = { layers: 2, hiddenSize: 4 } as ModelInfo;
    await expect(readSteering(own, { spec: 'm', info }, 1, createInputLedger())).rejects.toThrow(
      `${flag} has no meaning without --vector`,
    );
  });
});
