/** Patterns of an option: separated by commas, blanks around them dropped. */
export function parsePatterns(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.split(',')).flatMap((part) => (part.trim() === '' ? [] : [part.trim()]));
}

/** Matches a whole name; `*` stands for any characters, `?` for one. */
export function matchesPattern(name: string, pattern: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`, 's').test(name);
}
