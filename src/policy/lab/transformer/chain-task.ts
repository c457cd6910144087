import { InputError } from '../../../errors.js';
import type { Random } from '../../../random.js';
import { type Demonstration, type Episode, type Grade, PADDING, type PolicyTask, type Prompt } from './task.js';

/**
 * A walk through `turns` rooms, each with one right door that depends on the key; the reward is 1 when every door was right,
 * and is told at the end alone. In each turn the policy may say some idle words and then takes a door; a wrong door leads into
 * fog, and out of it none does.
 */
export interface ChainSettings {
  readonly turns: number;
  readonly keys: number;
  readonly rooms: number;
  readonly doors: number;
  /** Share of the pairs (key, room) whose door demonstrations do not know. */
  readonly hardShare: number;
  /** Probability that a demonstration takes the right door of a hard pair, and of an easy one. */
  readonly hardRight: number;
  readonly easyRight: number;
}

const FOG = 1;
const WORDS = ['look', 'think', 'maybe', 'listen'];
const FIRST_WORD = 2;
const FIRST_DOOR = FIRST_WORD + WORDS.length;
/** Words of a turn; one more is a wrong door. */
const MOST_WORDS = 3;
const WORD_PROBABILITY = 0.4;

/** @throws InputError for sizes out of range */
export function chainTask(settings: ChainSettings, random: Random): PolicyTask {
  const { turns, keys, rooms, doors, hardShare, hardRight, easyRight } = settings;
  for (const [name, value, least] of [
    ['turns', turns, 1],
    ['keys', keys, 1],
    ['rooms', rooms, 1],
    ['doors', doors, 2],
  ] as const) {
    if (!(Number.isInteger(value) && value >= least && value <= 64))
      throw new InputError(`--task ${name}=${value}: must be a whole number from ${least} to 64`);
  }
  const firstRoom = FIRST_DOOR + doors;
  const firstKey = firstRoom + rooms;
  const numbered = (word: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${word}-${i}`);
  const vocabulary = [
    '<pad>',
    'fog',
    ...WORDS,
    ...numbered('door', doors),
    ...numbered('room', rooms),
    ...numbered('key', keys),
  ];
  const right = Int32Array.from({ length: keys * rooms }, () => random.integer(doors));
  const hard = new Uint8Array(keys * rooms);
  for (const pair of random.permutation(keys * rooms).subarray(0, Math.round(hardShare * keys * rooms))) hard[pair] = 1;
  const isDoor = (token: number): boolean => token >= FIRST_DOOR && token < firstRoom;

  /** A prompt and what the policy does not see of it. */
  interface Walk extends Prompt {
    readonly key: number;
    readonly path: Int32Array;
  }

  const walk = (own: Random, number: number): Walk => {
    const key = own.integer(keys);
    const path = Int32Array.from({ length: turns }, () => own.integer(rooms));
    const tokens = Int32Array.of(firstKey + key, firstRoom + path[0]);
    const unknown = path.reduce((sum, room) => sum + hard[key * rooms + room], 0);
    return { id: `walk-${number}`, tokens, difficulty: String(unknown), key, path };
  };

  const walks = new WeakMap<Prompt, Walk>();
  const walkOf = (prompt: Prompt): Walk => {
    const found = walks.get(prompt);
    if (found === undefined) throw new RangeError(`prompt ${prompt.id} is not of this task`);
    return found;
  };

  const begin = (prompt: Prompt): Episode => {
    const { key, path } = walkOf(prompt);
    let turn = 0;
    let words = 0;
    let lost = false;
    return {
      take(token) {
        if (!isDoor(token) && ++words <= MOST_WORDS) return { observation: [], over: false };
        lost ||= token !== FIRST_DOOR + right[key * rooms + path[turn]];
        turn++;
        words = 0;
        if (turn === turns) return { observation: [], over: true };
        return { observation: [lost ? FOG : firstRoom + path[turn]], over: false };
      },
    };
  };

  const prompt = (own: Random, number: number): Prompt => {
    const made = walk(own, number);
    walks.set(made, made);
    return made;
  };

  return {
    name: 'chain',
    vocabulary,
    specialTokens: [PADDING],
    promptLimit: 2,
    responseLimit: turns * (MOST_WORDS + 2) - 1,
    prompt,
    begin,

    demonstrate(own): Demonstration {
      const asked = walkOf(prompt(own, 0));
      const episode = begin(asked);
      const response: number[] = [];
      const mask: number[] = [];
      for (let turn = 0, lost = false; turn < turns; turn++) {
        for (let word = 0; word < MOST_WORDS && own.uniform() < WORD_PROBABILITY; word++) {
          response.push(FIRST_WORD + own.integer(WORDS.length));
          mask.push(1);
          episode.take(response[response.length - 1]);
        }
        const pair = asked.key * rooms + asked.path[turn];
        const known = !lost && own.uniform() < (hard[pair] === 1 ? hardRight : easyRight);
        const door = FIRST_DOOR + (known ? right[pair] : own.integer(doors));
        response.push(door);
        mask.push(1);
        const { observation } = episode.take(door);
        for (const token of observation) {
          response.push(token);
          mask.push(0);
          lost = token === FOG;
        }
      }
      return { prompt: asked.tokens, response: Int32Array.from(response), mask: Uint8Array.from(mask) };
    },

    grade(asked, response): Grade {
      const episode = begin(asked);
      const spans: number[] = [];
      let from = 0;
      let fog = false;
      let over = false;
      for (let i = 0; i < response.length; ) {
        const { observation, over: last } = episode.take(response[i]);
        i++;
        if (observation.length === 0 && !last) continue;
        spans.push(from, i);
        fog ||= observation.includes(FOG);
        over = last;
        i += observation.length;
        from = i;
      }
      const { key, path } = walkOf(asked);
      const lastDoor = response[response.length - 1];
      const correct = over && !fog && lastDoor === FIRST_DOOR + right[key * rooms + path[turns - 1]];
      return { correct, reward: correct ? 1 : 0, stepSpans: Int32Array.from(spans) };
    },
  };
}
