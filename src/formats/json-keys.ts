/**
 * The first key that stands twice in one object of a JSON text, or undefined. `JSON.parse` keeps the last of two equal
 * keys without a word, which in a header would hide a tensor. The text must already have been accepted by
 * `JSON.parse`. Keys are compared after their escapes are resolved.
 */
export function duplicateKey(json: string): string | undefined {
  // One entry per open bracket: the keys seen in an object, null for an array.
  const open: (Set<string> | null)[] = [];
  let expectKey = false;
  for (let i = 0; i < json.length; i++) {
    switch (json.charCodeAt(i)) {
      case 0x7b: // {
        open.push(new Set());
        expectKey = true;
        break;
      case 0x5b: // [
        open.push(null);
        expectKey = false;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        expectKey = false;
        break;
      case 0x2c: // ,
        expectKey = open[open.length - 1] !== null;
        break;
      case 0x22: {
        let end = i + 1;
        let escaped = false;
        for (; json.charCodeAt(end) !== 0x22; end++) {
          if (json.charCodeAt(end) === 0x5c) {
            escaped = true;
            end++;
          }
        }
        if (expectKey) {
          const key = escaped ? (JSON.parse(json.slice(i, end + 1)) as string) : json.slice(i + 1, end);
          const keys = open[open.length - 1];
          if (keys?.has(key)) return key;
          keys?.add(key);
          expectKey = false;
        }
        i = end;
        break;
      }
    }
  }
  return undefined;
}
