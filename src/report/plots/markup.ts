const content: unique symbol = Symbol('markup');

/**
 * Text that is known to be well-formed HTML or SVG. It can only be made by the `markup` template, which escapes every
 * value that is not itself markup; so text that comes from a model or a data file cannot become an element.
 */
export interface Markup {
  readonly [content]: string;
}

/** What may stand in a `markup` template: text and numbers are escaped, markup is taken as it is. */
export type MarkupValue = string | number | Markup | readonly Markup[];

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Characters that XML 1.0 (section 2.2) forbids, and surrogates without a partner, which UTF-8 cannot hold. */
// biome-ignore-start lint/suspicious/noControlCharactersInRegex: naming the forbidden characters is the purpose
const FORBIDDEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
// biome-ignore-end lint/suspicious/noControlCharactersInRegex: naming the forbidden characters is the purpose

/** Text as it may stand in an element or a quoted attribute of HTML and of XML. Forbidden characters become U+FFFD. */
export function escapeText(text: string): string {
  return text.replace(FORBIDDEN, '\ufffd').replace(/[&<>"']/g, (character) => ENTITIES[character]);
}

function render(value: MarkupValue): string {
  if (typeof value === 'string') return escapeText(value);
  if (typeof value === 'number') return String(value);
  if (Array.isArray(value)) return value.map(markupText).join('');
  return markupText(value as Markup);
}

/** Template tag: literal parts are markup, values are escaped unless they are markup. */
export function markup(literals: TemplateStringsArray, ...values: readonly MarkupValue[]): Markup {
  let text = literals[0];
  for (let i = 0; i < values.length; i++) text += render(values[i]) + literals[i + 1];
  return { [content]: text };
}

/** The text of a piece of markup, ready to be written to a file. */
export function markupText(piece: Markup): string {
  return piece[content];
}

/** An element with attributes in the order given; an attribute that is undefined is left out. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number | undefined>>,
  children: readonly Markup[] = [],
): Markup {
  if (!/^[A-Za-z][A-Za-z0-9]*$/.test(name)) throw new TypeError(`not an element name: ${JSON.stringify(name)}`);
  let open = `<${name}`;
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (!/^[A-Za-z][A-Za-z0-9:-]*$/.test(key)) throw new TypeError(`not an attribute name: ${JSON.stringify(key)}`);
    open += ` ${key}="${escapeText(String(value))}"`;
  }
  if (children.length === 0) return { [content]: `${open}/>` };
  return { [content]: `${open}>${children.map(markupText).join('')}</${name}>` };
}

/** Text as a child of `element`. */
export function textNode(text: string): Markup {
  return { [content]: escapeText(text) };
}
