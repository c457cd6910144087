import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildReport, type Report, readReport, serializeReport } from '../../src/report/json.js';
import { orderParts, uniteParts } from '../../src/report/merge.js';
import { printJson, toJsonValue } from '../../src/report/values.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();
const tool = { name: 'surprisal', version: '0.0.0' };
const digest = { path: 'a.jsonl', sha256: 'ab'.repeat(32), bytes: 12 };

describe('buildReport', () => {
  it('opens with the head, in one order of keys whatever the order of the options', () => {
    const make = (parameters: Record<string, number>): string =>
      serializeReport(
        buildReport(
          { name: 'fake', tool, command: 'x', parameters, inputs: [digest] },
          { mean_nats: 1 / 3, worst: Number.POSITIVE_INFINITY },
        ),
      );
    expect(make({ b: 1, a: 2 })).toBe(make({ a: 2, b: 1 }));
    const report = JSON.parse(make({ b: 1, a: 2 })) as Record<string, unknown>;
    expect(Object.keys(report)).toEqual([
      'schema',
      'schema_version',
      'tool',
      'command',
      'parameters',
      'inputs',
      'mean_nats',
      'worst',
    ]);
    expect(report).toMatchObject({ schema: 'surprisal/fake', mean_nats: 1 / 3, worst: 'inf', inputs: [digest] });
  });

  it('prints JSON that reads back to the same values', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(JSON.parse(printJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        expect(JSON.parse(printJson(toJsonValue({ value }))).value === value).toBe(true);
      }),
    );
    expect(
      printJson(toJsonValue({ a: Float64Array.from([1, Number.NaN]), b: [], c: { d: undefined }, e: 2n ** 60n })),
    ).toBe('{\n  "a": [1, "nan"],\n  "b": [],\n  "c": {},\n  "e": "1152921504606846976"\n}');
  });
});

describe('schemas', () => {
  it('are valid, and each stands on the envelope', () => {
    const directory = 'src/report/schemas';
    const read = (name: string): Record<string, unknown> =>
      JSON.parse(readFileSync(join(directory, name), 'utf8')) as Record<string, unknown>;
    const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
    ajv.addSchema(read('envelope.schema.json'));
    for (const name of readdirSync(directory)) {
      if (name !== 'envelope.schema.json') expect(() => ajv.compile(read(name))).not.toThrow();
    }
  });

  it('are asked for when a report is read', () => {
    const at = (name: string, text: string): string => {
      const path = join(folder, name);
      writeFileSync(path, text);
      return path;
    };
    expect(() => readReport(join(folder, 'none.json'))).toThrow(/none\.json: cannot be read \(ENOENT\)/);
    expect(() => readReport(at('a.json', '{'))).toThrow(/a\.json: is not JSON/);
    expect(() => readReport(at('b.json', '{"perplexity": 3}'))).toThrow(/b\.json: is no report of surprisal/);
    expect(() => readReport(at('c.json', '{"schema": "surprisal/nothing"}'))).toThrow(
      /no schema named "surprisal\/nothing"/,
    );
    expect(() => readReport(at('d.json', '{"schema": "surprisal/../../../package"}'))).toThrow(/no schema named/);
    mkdirSync(join(folder, 'directory.json'));
    expect(() => readReport(join(folder, 'directory.json'))).toThrow(/cannot be read \(EISDIR\)/);
  });
});

describe('parts of a run', () => {
  const part = (
    index: number,
    count: number,
    change: Record<string, unknown> = {},
  ): { path: string; report: Report } => ({
    path: `${index}.json`,
    report: {
      ...buildReport({ name: 'fake', tool, command: 'x', parameters: { context: 256 }, inputs: [digest] }, {}),
      shard: { index, count },
      partial: { documents: [index, index + count], sum: index + 0.1 },
      ...change,
    },
  });

  it('unite in shard order to the report of the whole, with no trace of shards', async () => {
    const parts = orderParts([part(2, 3), part(0, 3), part(1, 3)]);
    const report = await uniteParts(parts, (all) => ({
      documents: all.flatMap(({ partial }) => (partial as { documents: number[] }).documents).sort((a, b) => a - b),
    }));
    const whole = buildReport(
      { name: 'fake', tool, command: 'x', parameters: { context: 256 }, inputs: [digest] },
      { documents: [0, 1, 2, 3, 4, 5] },
    );
    expect(serializeReport(report)).toBe(serializeReport(whole));
  });

  it.each([
    ['nothing', [], 'no partial report to unite'],
    ['a missing shard', [part(0, 5), part(4, 5)], 'shard 1-3 of 5 is missing'],
    ['several missing shards', [part(1, 4)], 'shard 0, 2-3 of 4 is missing'],
    ['a shard twice', [part(0, 2), part(0, 2)], '0.json and 0.json are both shard 0 of 2'],
    ['another count', [part(0, 2), part(1, 3)], '1.json is one of 3 shards, 0.json one of 2'],
    [
      'other parameters',
      [part(0, 2), part(1, 2, { parameters: { context: 512 } })],
      'they differ in parameters.context: 256 and 512',
    ],
    [
      'other inputs',
      [part(0, 2), part(1, 2, { inputs: [{ ...digest, bytes: 13 }] })],
      'they differ in inputs.0.bytes: 12 and 13',
    ],
    [
      'another model',
      [part(0, 2, { model: { sha256: 'a' } }), part(1, 2, { model: { sha256: 'b' } })],
      'model.sha256: "a" and "b"',
    ],
    ['a whole report', [part(0, 1, { shard: undefined })], '0.json: is no partial report'],
    ['a false shard', [part(3, 2)], '3.json: is no partial report'],
  ])('refuse %s', (_, parts, message) => {
    expect(() => orderParts(parts)).toThrow(message);
  });
});
