import fc from 'fast-check';
import { DOMParser, parseHTML } from 'linkedom';
import { describe, expect, it } from 'vitest';
import { element, escapeText, markup, markupText, textNode } from '../../../src/report/plots/markup.js';

describe('markup', () => {
  it('turns no text into an element or an attribute', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const { document } = parseHTML(
          `<html><body>${markupText(markup`<p title="${text}">${text}</p>`)}</body></html>`,
        );
        expect(document.body.querySelectorAll('*').length).toBe(1);
        expect([...document.querySelector('p')!.attributes].map(({ name }) => name)).toEqual(['title']);
      }),
    );
  });

  it.each([
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    '&lt;',
    ']]>',
    '</title>',
  ])('keeps %s as text', (text) => {
    const { document } = parseHTML(`<html><body>${markupText(markup`<p title="${text}">${text}</p>`)}</body></html>`);
    expect(document.querySelector('p')!.textContent).toBe(text);
    expect(document.querySelector('p')!.getAttribute('title')).toBe(text);
  });

  it('takes markup as it is and joins lists of it', () => {
    expect(markupText(markup`<ul>${['a<', 'b'].map((item) => markup`<li>${item}</li>`)}</ul>${3}`)).toBe(
      '<ul><li>a&lt;</li><li>b</li></ul>3',
    );
  });

  it('writes elements that an XML parser reads back', () => {
    const text = markupText(
      element('text', { x: 1, 'xml:space': 'preserve', fill: undefined }, [textNode('a & "b"\u0000')]),
    );
    expect(text).toBe('<text x="1" xml:space="preserve">a &amp; &quot;b&quot;\ufffd</text>');
    expect(new DOMParser().parseFromString(text, 'image/svg+xml').querySelector('text')!.textContent).toBe(
      'a & "b"\ufffd',
    );
  });

  it('takes no names from data', () => {
    expect(() => element('a b', {})).toThrow(TypeError);
    expect(() => element('a', { 'x="1" y': 1 })).toThrow(TypeError);
  });

  it('replaces what XML forbids and lone surrogates, and keeps pairs', () => {
    expect(escapeText('a\u0001\u001b\ud800b\udc00\ufffe \u{1f600}\n\t')).toBe(
      'a\ufffd\ufffd\ufffdb\ufffd\ufffd \u{1f600}\n\t',
    );
  });
});
