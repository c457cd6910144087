import { readdirSync, readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';

const FOLDER = 'src/report/schemas';
const read = (file: string): { $id: string } => JSON.parse(readFileSync(`${FOLDER}/${file}`, 'utf8'));

describe('schemas of reports', () => {
  const files = readdirSync(FOLDER);

  it.each(files)('%s is a schema of its draft, in strict mode, under its own name', (file) => {
    const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, validateSchema: true });
    if (file !== 'envelope.schema.json') ajv.addSchema(read('envelope.schema.json'));
    const schema = read(file);
    expect(() => ajv.compile(schema)).not.toThrow();
    expect(schema.$id).toBe(`urn:surprisal:${file.replace('.schema.json', '')}`);
  });
});
