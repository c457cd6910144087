import type { Random } from '../../../random.js';

/** What a policy is asked. */
export interface Prompt {
  readonly id: string;
  readonly tokens: Int32Array;
  /** Level as the dump words it; higher is harder. */
  readonly difficulty: string;
}

/** What the world answers to a token of the policy. */
export interface Reaction {
  /** Tokens that the world puts behind it; they are not the policy's. */
  readonly observation: readonly number[];
  readonly over: boolean;
}

/** One response while it is written. */
export interface Episode {
  take(token: number): Reaction;
}

/** What a finished response is worth. */
export interface Grade {
  readonly correct: boolean;
  readonly reward: number;
  /** Position of the end-of-thinking marker in the response. */
  readonly thinkEnd?: number;
  /** Turns of the policy in the response, [from, to) each, flat. */
  readonly stepSpans?: Int32Array;
}

/** A worked example for the warm start. */
export interface Demonstration {
  readonly prompt: Int32Array;
  readonly response: Int32Array;
  /** 1 where the token is the policy's. */
  readonly mask: Uint8Array;
}

/** A world of a few words in which a policy is trained. Everything in it is fixed by the random numbers it was made with. */
export interface PolicyTask {
  readonly name: string;
  /** Text of every token. */
  readonly vocabulary: readonly string[];
  /** Ids of tokens that are no text. */
  readonly specialTokens: readonly number[];
  /** Longest prompt, and longest response with what the world says in it. */
  readonly promptLimit: number;
  readonly responseLimit: number;
  /** Draws a prompt. */
  prompt(random: Random, number: number): Prompt;
  demonstrate(random: Random): Demonstration;
  begin(prompt: Prompt): Episode;
  grade(prompt: Prompt, response: Int32Array): Grade;
}

/** Token of positions behind the end of a sequence. */
export const PADDING = 0;
