/**
 * Lines of many scripts for comparing tokenizers, the same on every machine: words of real languages, numbers, code,
 * addresses, white space of every kind, emoji sequences, combining marks, control characters and random code points.
 */

/** Mulberry32: a small generator of 32 bits of state. */
function randomStream(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const WORDS = {
  latin:
    "the The THE of and whale Whale's don't I'll we've you're it'd SHE'S DON'T naïve café über straße Ærøskøbing Łódź ångström façade piñata coöperate señor İstanbul ıslak ﬁne ŒUVRE Zürich El Niño tiếng Việt người không Français aujourd'hui l'homme ça où déjà fjörð þetta ð mañana façon quelqu'un über-groß internationalization antidisestablishmentarianism supercalifragilistic",
  cyrillic:
    'и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой Москва Санкт-Петербург съёжился ЁЛКА українська їжак ґанок Београд љубав њега ћуприја',
  greek: 'και το του της Αθήνα ΑΘΗΝΑ λόγος ΛΟΓΟΣ άνθρωπος πολύ ἄνθρωπος ὦ Ἀθηναῖοι ᾧ',
  arabic: 'السلام عليكم مرحبا كتاب مدرسة اللغة العربية القرآن مُحَمَّد شُكْرًا ٣٫١٤ ١٢٣ فارسی می‌خواهم گفت‌وگو',
  hebrew: 'שלום עולם בְּרֵאשִׁית בָּרָא אֱלֹהִים ישראל תל־אביב ״צה״ל״',
  devanagari: 'नमस्ते दुनिया हिन्दी संस्कृतम् क्षत्रिय १२३४ भारत। क्या है॥ ज़िंदगी',
  indic: 'বাংলা ভাষা তোমাকে தமிழ் நாடு తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ සිංහල',
  thai: 'สวัสดีชาวโลก ภาษาไทย กรุงเทพมหานคร น้ำ ๑๒๓ ลาว ສະບາຍດີ ខ្មែរ မြန်မာ བོད་ཡིག ',
  cjk: '你好世界 中华人民共和国 人工智能 漢字 龍 日本語のテキスト カタカナ ひらがな 東京都 ｶﾀｶﾅ 。、「」 １２３ ＡＢＣ 𠮷野家 一二三',
  hangul: '안녕하세요 세계 대한민국 한국어 텍스트 각 ㄱㄴㄷ 서울특별시 가나다',
  other: 'ქართული հայերեն አማርኛ ᏣᎳᎩ ᓄᓇᕗᑦ 𐐀𐐁𐐨 ⴰⵎⴰⵣⵉⵖ ትግርኛ Ꞗ ꬰ ᎠᎡ ꭰ ǅ ǲ ʰ ˈ',
  emoji: '😀 😂🤣 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪 ❤️ ☃ ✨🚀 🧑🏿‍🚀 🤷‍♀️ 1️⃣ #️⃣ ⌚️ ©️ ™ 🫠 ♟️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿',
  combining:
    'e\u0301 a\u0308 n\u0303 o\u0302\u0323 Z\u0351\u036b\u0343 c\u0327 \u0301alone i\u0307 ｶﾞ क\u093c 각 q\u0307\u0323',
  numbers:
    '0 7 42 123 1234 12345 123456 1234567890 3.14159 1,000,000 1e-9 0xFF 2024-01-31 12:34:56 ½ ² Ⅷ ① 五 ٤٥٦ १२ 1st 50% $9.99 €1.234,56 -273.15 1/2 10^6',
  symbols:
    "! ? . , ; : ... … -- – — ' \" ‘ ’ “ ” « » ( ) [ ] { } < > <= >= == != => -> :: // /* */ && || @ # $ % ^ & * + = ~ ` | \\ _ __ § ¶ • ° ± × ÷ √ ∞ ∑ ∫ ≤ ≥ ≠ ← → ↔ █ ▁ ▁▁ ◆ ★ ␀ '' 's 'S 't 'RE 've 'LL 'd' !!! ??? ='' ''' \u00ad \ufeff",
  code: 'def f(x): return x+1|for(int i=0;i<n;++i){a[i]+=b[i];}|const x = async () => await y?.z ?? null;|SELECT * FROM t WHERE a<>b;|#include <vector>|printf("%d\\n", i);|<div class="a">&nbsp;</div>|if err != nil {|λx.x|x->y|fn main() { println!("{}", 1); }|{"key": [1, 2.5, null, true]}|\\frac{a}{b}|snake_case_name|camelCaseName|CONSTANT_NAME|HTTPServer2|a.b.c()|self.x|0b1010',
  urls: 'https://example.org/a/b?c=d&e=f#g http://localhost:8080/ user.name+tag@mail.example.com ftp://x.y/z%20w /usr/local/bin C:\\Windows\\System32 192.168.0.1 ::1 www.wikipedia.org git@host:org/repo.git v1.2.3-rc.4',
  special:
    '<s> </s> <unk> <pad> <|endoftext|> <|im_start|> <|im_end|> <bos> <eos> <start_of_turn> <|eot_id|> [INST] [/INST] <<SYS>> <0x0A> <0xFF> [UNK] ▁ Ġ Ċ <unused1> <|end|> <|user|> <mask> <h1> </h1> <table> [multimodal]',
};

const SPACES = [
  ' ',
  ' ',
  ' ',
  ' ',
  ' ',
  ' ',
  '  ',
  '   ',
  '     ',
  '\t',
  '\t\t',
  ' \t',
  '\n',
  '\n\n',
  '\r\n',
  ' \n',
  '\n ',
  '\n\n\n',
  '\u00a0',
  '\u3000',
  '\u2003',
  '\u2028',
  '\u200b',
  '\u0085',
  '\u202f',
  '\u000b',
  '\u000c',
  '',
  '',
];
const CONTROLS = [
  '\u0001',
  '\u0007',
  '\u0008',
  '\u001b',
  '\u001f',
  '\u007f',
  '\u0080',
  '\u009f',
  '\u200d',
  '\u200e',
  '\ufffd',
  '\ue000',
];
/** Ranges of assigned code points for random text. */
const RANGES = [
  [0x21, 0x7e],
  [0xa1, 0x24f],
  [0x370, 0x3ff],
  [0x400, 0x52f],
  [0x5d0, 0x5ea],
  [0x620, 0x64a],
  [0x905, 0x939],
  [0xe01, 0xe3a],
  [0x1e00, 0x1eff],
  [0x2010, 0x205e],
  [0x20a0, 0x20bf],
  [0x2190, 0x22ff],
  [0x2500, 0x26ff],
  [0x3041, 0x30ff],
  [0x4e00, 0x9fa5],
  [0xac00, 0xd7a3],
  [0xff01, 0xff5e],
  [0x1d400, 0x1d454],
  [0x1f300, 0x1f5ff],
  [0x20000, 0x2a6d6],
];

/** `count` lines; each kind of text and mixtures of them in turn. */
export function makeLines(count, seed = 20240131) {
  const random = randomStream(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const kinds = Object.keys(WORDS);
  const words = Object.fromEntries(
    kinds.map((kind) => [kind, WORDS[kind].split(kind === 'code' ? '|' : ' ').filter((word) => word !== '')]),
  );
  const randomWord = () => {
    const [low, high] = pick(RANGES);
    let word = '';
    for (let n = 1 + Math.floor(random() * 8); n > 0; n--) {
      word += String.fromCodePoint(low + Math.floor(random() * (high - low + 1)));
    }
    return word;
  };
  const lines = ['', ' ', '  ', '\n', '\t', 'a', ' a', 'a ', '  a  b  ', "'", '\u00a0', '▁', '1', '\r\n\r\n', '\u0301'];
  while (lines.length < count) {
    const mixed = random() < 0.5;
    const home = kinds[lines.length % kinds.length];
    const plain = random() < 0.4;
    let line = random() < 0.15 ? pick(SPACES) : '';
    for (let n = 1 + Math.floor(random() * 14); n > 0; n--) {
      const roll = random();
      if (roll < 0.03) line += pick(CONTROLS);
      else if (roll < 0.08) line += randomWord();
      else line += pick(words[mixed ? pick(kinds) : home]);
      if (n > 1 || random() < 0.15) line += plain ? ' ' : pick(SPACES);
    }
    lines.push(line);
  }
  return lines.slice(0, count);
}
