import { InputError } from '../errors.js';
import { type ChatMessage, renderChat } from '../tokenizers/chat-template.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { patternOfActions } from './action-pattern.js';

export const AGENT_TASKS = ['buttons', 'slots'] as const;
export type AgentTask = (typeof AGENT_TASKS)[number];

/** `full`: ReAct through the chat template. `brief`: a plain list of choices and rewards, for short contexts. */
export const PROMPT_STYLES = ['full', 'brief'] as const;
export type PromptStyle = (typeof PROMPT_STYLES)[number];

/** Which prompts an agent is given. Structured-cloneable; stored with the results. */
export interface AgentPrompt {
  readonly task: AgentTask;
  readonly style: PromptStyle;
  readonly arms: number;
  /** Steps of a run, which the prompt tells. */
  readonly horizon: number;
  /** How many of the last steps a prompt shows; all when absent. */
  readonly history?: number;
  /** What a forced choice thinks before it acts; the task's own sentence when absent. */
  readonly thought?: string;
}

/** An earlier step, as prompts show it. */
export interface AgentStep {
  readonly action: number;
  readonly reward: number;
  /** What the agent wrote. */
  readonly completion: string;
}

/** A prompt as text. */
export interface PromptText {
  readonly text: string;
  /** Whether the chat template wrote it: its special tokens are read as such, and none are added. */
  readonly rendered: boolean;
}

/** What a forced choice writes after a prompt. */
export interface ForcedReply {
  /** Between the prompt and the action. */
  readonly thought: string;
  /** Texts that follow; none begins another. */
  readonly actions: readonly string[];
}

interface TaskWords {
  readonly name: string;
  readonly one: string;
  readonly many: string;
  readonly use: string;
}

const WORDS: Readonly<Record<AgentTask, TaskWords>> = {
  buttons: { name: 'Button', one: 'button', many: 'buttons', use: 'press' },
  slots: { name: 'Slot machine', one: 'slot machine', many: 'slot machines', use: 'play' },
};

const NUMBERS = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];
const inWords = (n: number): string => NUMBERS[n] ?? String(n);
const capital = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;

/** Names of the arms, such as `Button 1`. */
export function actionNames({ task, arms }: Pick<AgentPrompt, 'task' | 'arms'>): string[] {
  return Array.from({ length: arms }, (_, a) => `${WORDS[task].name} ${a + 1}`);
}

/** `A, B and C` */
function listed(names: readonly string[]): string {
  return `${names.slice(0, -1).join(', ')} and ${names[names.length - 1]}`;
}

const LEAD = 'I choose';

/** The pattern by which completions of this prompt are read. */
export function actionPatternOf(prompt: AgentPrompt): string {
  return patternOfActions(actionNames(prompt), prompt.style === 'full' ? LEAD : '');
}

/** What a forced choice writes: in `full` style a thought and `Action: I choose ...`, in `brief` style the bare name. */
export function forcedReply(prompt: AgentPrompt): ForcedReply {
  const names = actionNames(prompt);
  if (prompt.style === 'brief') {
    const { thought = '' } = prompt;
    return { thought: thought === '' ? '' : `${thought}\n`, actions: names.map((name) => `${name}:`) };
  }
  const { thought = `I compare what each ${WORDS[prompt.task].one} has given so far.` } = prompt;
  return {
    thought: `Thought: ${thought}\nAction: ${LEAD}`,
    actions: names.map((name) => ` ${name}.`),
  };
}

/** What the agent wrote when it was forced to choose `action`. */
export function forcedCompletion(prompt: AgentPrompt, action: number): string {
  const { thought, actions } = forcedReply(prompt);
  return `${thought}${actions[action]}`;
}

/** The instructions: both options are to be evaluated, and the total over time is to be maximised. */
function instructions(prompt: AgentPrompt): string {
  const { one, many, use } = WORDS[prompt.task];
  const names = actionNames(prompt);
  return [
    `There are ${inWords(prompt.arms)} ${many}: ${listed(names)}. Each time you ${use} one of them, it gives you a random ` +
      `number of points. Every ${one} has an average of its own, which you do not know and which never changes.`,
    `You will ${use} a ${one} ${prompt.horizon} times. Evaluate every ${one}, and maximise the total number of points that ` +
      `you get over all ${prompt.horizon} times.`,
    'Answer with exactly two lines:',
    `Thought: what you think about the ${many}`,
    `Action: ${LEAD} ${WORDS[prompt.task].name} N.`,
    `where N is one of ${listed(names.map((_, a) => String(a + 1)))}.`,
  ].join('\n');
}

const points = (reward: number, digits: number): string => {
  const text = reward.toFixed(digits);
  return /^-0(\.0*)?$/.test(text) ? text.slice(1) : text;
};

/** The first step that a prompt after `steps` steps shows. */
const firstShown = ({ history }: AgentPrompt, steps: number): number =>
  history === undefined ? 0 : Math.max(0, steps - history);

/** The conversation in `full` style before step `steps.length`: instructions, then all shown completions and feedback. */
export function promptMessages(prompt: AgentPrompt, steps: readonly AgentStep[]): ChatMessage[] {
  const { many } = WORDS[prompt.task];
  const names = actionNames(prompt);
  const first = firstShown(prompt, steps.length);
  const question = (step: number): string =>
    `Step ${step + 1} of ${prompt.horizon}: which of the ${many} do you choose?`;
  const left = first === 0 ? '' : `\n\nThe first ${first} steps are not shown.`;
  const messages: ChatMessage[] = [{ role: 'user', content: `${instructions(prompt)}${left}\n\n${question(first)}` }];
  for (const [i, { action, reward, completion }] of steps.slice(first).entries()) {
    messages.push({ role: 'assistant', content: completion.trim() });
    const feedback = `${names[action]} gave ${points(reward, 1)} points.`;
    messages.push({ role: 'user', content: `${feedback}\n${question(first + i + 1)}` });
  }
  return messages;
}

/** A day for chat templates that write the date: prompts must not change from day to day. */
const TEMPLATE_DATE = new Date(2024, 6, 26, 12);

/**
 * The prompt before step `steps.length`. Without `history` it begins with the prompt of the step before.
 * @throws InputError for the full style where the model has no chat template
 */
export function promptText(
  prompt: AgentPrompt,
  steps: readonly AgentStep[],
  tokenizer: Pick<Tokenizer, 'chatTemplate' | 'specialTokens'>,
): PromptText {
  if (prompt.style === 'brief') return { text: briefPrompt(prompt, steps), rendered: false };
  if (tokenizer.chatTemplate === undefined) {
    throw new InputError('--prompt-style full: the model has no chat template; use --prompt-style brief');
  }
  const text = renderChat(tokenizer, promptMessages(prompt, steps), { addGenerationPrompt: true, now: TEMPLATE_DATE });
  return { text, rendered: true };
}

function briefPrompt(prompt: AgentPrompt, steps: readonly AgentStep[]): string {
  const { many } = WORDS[prompt.task];
  const names = actionNames(prompt);
  const head = `${capital(inWords(prompt.arms))} ${many} give points: ${listed(names)}. Try each, then get the most points.\n`;
  const lines = steps
    .slice(firstShown(prompt, steps.length))
    .map(({ action, reward }) => `${names[action]}: ${points(reward, 0)}\n`);
  return `${head}${lines.join('')}`;
}

/** Tokens of a prompt. */
export function encodePrompt(tokenizer: Tokenizer, { text, rendered }: PromptText): Int32Array {
  return rendered
    ? tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true })
    : tokenizer.encode(text);
}
