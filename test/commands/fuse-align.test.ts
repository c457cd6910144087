import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('fuse-align'));

const PIVOT = 'fixtures/models/llama-sotu';
const SOURCE = 'fixtures/models/qwen2-moby';
const align = (...argv: string[]) => resident(['fuse', 'align', '--pivot', PIVOT, '--source', SOURCE, ...argv]);
const report = (name: string) => {
  const read = JSON.parse(readFileSync(out(name), 'utf8'));
  expect(validate(read), JSON.stringify(validate.errors)).toBe(true);
  return read;
};

const TEXTS = [
  { id: 'a', domain: 'sea', text: 'Call me Ishmael. Some years ago the whale swam by the ship.' },
  { id: 'b', domain: 'sea', text: 'The captain stood upon the deck, and said nothing at all to the men.' },
  { id: 'c', domain: 'state', text: 'The Congress of the United States has met in its annual session.' },
];

beforeAll(() => {
  writeFileSync(out('t.jsonl'), TEXTS.map((text) => `${JSON.stringify(text)}\n`).join(''));
});

describe('fuse align', () => {
  it('says by domain what a source can teach, with the same bytes on any number of threads', () => {
    const files = (n: number): string[] => [
      '--threads',
      `${n}`,
      '--out',
      out(`${n}.csv`),
      '--report',
      out(`${n}.json`),
    ];
    const words = ['--data', out('t.jsonl'), '--domain-field', 'domain'];
    const more = ['--table', out('tokens.csv'), '--map-out', out('m.json'), '--plot', out('p.svg')];
    const first = align(...words, ...files(1), ...more);
    expect(first.code, first.stderr).toBe(0);
    expect(first.stderr).toMatch(/can be fused.* into fixtures\/models\/llama-sotu: [\d.]+ % of positions/);
    expect(align(...words, ...files(2)).code).toBe(0);
    for (const type of ['json', 'csv']) {
      expect(readFileSync(out(`1.${type}`), 'utf8')).toBe(readFileSync(out(`2.${type}`), 'utf8'));
    }
    const read = report('1.json');
    const [{ total, domains, map, overlap }] = read.sources;
    expect(domains.map((own: { domain: string; documents: number }) => [own.domain, own.documents])).toEqual([
      ['sea', 2],
      ['state', 1],
    ]);
    const shares = Object.values<{ value: number }>(total.shares).reduce((sum, { value }) => sum + value, 0);
    expect(shares).toBeCloseTo(1, 12);
    expect(domains[1].learnt.se).toBeNull();
    expect(map.equal).toBe(overlap.equal_tokens);
    const byText = JSON.parse(readFileSync(out('m.json'), 'utf8')) as Record<string, string>;
    expect(byText.Ġthe).toBe('Ġthe');
    const tokens = readFileSync(out('tokens.csv'), 'utf8').trim().split('\n');
    expect(tokens.length - 1).toBe(768);
    expect(readFileSync(out('p.svg'), 'utf8')).toContain('chosen by the map');
  });

  it('runs the source, by the rule of FuseChat, with tokenizers alone on the other side', () => {
    mkdirSync(out('bare'));
    writeFileSync(out('bare/tokenizer.json'), readFileSync(`${PIVOT}/tokenizer.json`));
    const words = ['--data', out('t.jsonl'), '--rule', 'fusechat', '--with-logits', '--top-k', '4'];
    const run = resident([
      'fuse',
      'align',
      '--pivot',
      out('bare'),
      '--source',
      SOURCE,
      ...words,
      '--report',
      out('w.json'),
    ]);
    expect(run.code, run.stderr).toBe(0);
    const [{ total, map }] = report('w.json').sources;
    expect(map.kind).toBe('ms');
    expect(total.mass.moved.value).toBeLessThanOrEqual(total.mass.top_k.value + 1e-12);
    expect(total.mass.kept.value).toBeCloseTo(total.mass.moved.value / total.mass.top_k.value, 12);
  });

  it('moves stored rows', () => {
    const row = (input_ids: number[], metric_ce: number | null, lists?: [number, number][][]) =>
      `${JSON.stringify({
        input_ids,
        per_step_indices: lists?.map((list) => list.map(([id]) => id)),
        per_step_logits: lists?.map((list) => list.map(([, logit]) => logit)),
        metric_ce,
      })}\n`;
    const vocabulary = (model: string): Record<string, number> =>
      JSON.parse(readFileSync(`${model}/tokenizer.json`, 'utf8')).model.vocab;
    const ids = (model: string, text: string): number[] => Array.from(text, (letter) => vocabulary(model)[letter]);
    const [a, b] = [vocabulary(SOURCE).a, vocabulary(SOURCE).b];
    const lists: [number, number][][] = [
      [
        [a, 2],
        [b, 1],
      ],
      [[b, 3]],
    ];
    writeFileSync(out('pr.jsonl'), row(ids(PIVOT, 'ab'), 1).repeat(2));
    writeFileSync(out('sr.jsonl'), row(ids(SOURCE, 'ab'), 2, lists) + row(ids(SOURCE, 'ab'), null, lists));
    const words = ['--pivot-rows', out('pr.jsonl'), '--source-rows', out('sr.jsonl'), '--rows-out', out('moved.jsonl')];
    expect(align(...words).stderr).toMatch(/1 of 2 sequences have a cross-entropy that is NaN/);
    expect(align(...words, '--drop-nan', '--report', out('s.json')).code).toBe(0);
    expect(report('s.json').sources[0].total.mass).toMatchObject({ top_k: null, kept: { value: 1 } });
    const moved = JSON.parse(readFileSync(out('moved.jsonl'), 'utf8'));
    const own = vocabulary(PIVOT);
    expect(moved.per_step_aligned_indices_0).toEqual([[own.a, own.b], [own.b]]);
    expect(moved.per_step_aligned_logits_0).toEqual([[2, 1], [3]]);
    expect(moved.metric_ce_aligned_0).toBe(2);
    writeFileSync(out('other.jsonl'), row(ids(SOURCE, 'ba'), 2, lists).repeat(2));
    const different = align('--pivot-rows', out('pr.jsonl'), '--source-rows', out('other.jsonl'));
    expect(different.code).toBe(2);
    expect(different.stderr).toMatch(/pr\.jsonl:1: .* do not give the same text: from byte 0 on .* "ba" against "ab"/);
  });

  it('refuses what makes no sense', () => {
    const data = ['--data', out('t.jsonl')];
    mkdirSync(out('words'));
    const model = { type: 'WordLevel', vocab: { '<unk>': 0, a: 1 }, unk_token: '<unk>' };
    const files = { added_tokens: [], normalizer: null, pre_tokenizer: { type: 'Whitespace' }, decoder: null, model };
    writeFileSync(out('words/tokenizer.json'), JSON.stringify({ version: '1.0', post_processor: null, ...files }));
    const faults: [string[], RegExp][] = [
      [[], /--data is missing/],
      [[...data, '--map', 'mind'], /--map.*mined/],
      [[...data, '--window', '3'], /--window needs --map cooccurrence/],
      [[...data, '--ms-rule', 'frequency'], /--ms-rule needs --map ms/],
      [[...data, '--top-k', '3'], /--top-k needs --with-logits/],
      [[...data, '--no-alignment-matrix'], /--no-alignment-matrix needs --rule fusechat/],
      [[...data, '--rows-out', out('x')], /--rows-out needs --pivot-rows/],
      [[...data, '--pivot-rows', out('t.jsonl')], /--source-rows is missing/],
      [[...data, '--fallback', 'next'], /--fallback needs --rows-out/],
      [[...data, '--domain-field', 'domian'], /no field "domian".*domain/],
      [[...data, '--source', SOURCE], /stands twice/],
      [[...data, '--source', out('words')], /no token of the vocabulary begins with a space marker/],
      [[...data, '--source', out('nowhere')], /neither a directory nor in the hub cache|no such/],
    ];
    for (const [argv, message] of faults) {
      const { code, stderr } = align(...argv);
      expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    }
  });
});
