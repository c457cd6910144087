import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { editJson } from '../../src/formats/json-edit.js';

describe('editJson', () => {
  it('keeps the text of what it does not change', () => {
    const text = '{"a":0.0, "b": 1e6,"c" : [1.0, {"x":"}]\\""}],\n"d":{"e": 2.50}}';
    expect(editJson(text, { b: 7, d: undefined, n: [1], gone: undefined })).toBe(
      '{\n  "a": 0.0,\n  "b": 7,\n  "c": [1.0, {"x":"}]\\""}],\n  "n": [\n    1\n  ]\n}',
    );
    expect(editJson(text, {}, { d: { e: 3, f: null } })).toContain('"d": {\n    "e": 3,\n    "f": null\n  }');
    expect(editJson('{"b":{"e": 2.50}}', {}, { b: { f: 1 } })).toContain('"e": 2.50');
    expect(editJson('{}', {})).toBe('{}');
  });

  it('changes the keys that are named, as objects do', () => {
    const object = fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      fc.jsonValue(),
      { maxKeys: 6 },
    );
    const plain = (value: object): object => JSON.parse(JSON.stringify(value));
    fc.assert(
      fc.property(object, object, fc.constantFrom(0, 1, 3), (before, changes, indent) => {
        const edited = JSON.parse(editJson(JSON.stringify(before, null, indent), changes));
        expect(edited).toEqual(plain({ ...before, ...changes }));
      }),
    );
  });
});
