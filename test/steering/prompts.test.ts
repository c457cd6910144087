import { describe, expect, it } from 'vitest';
import {
  type AgentPrompt,
  type AgentStep,
  actionNames,
  actionPatternOf,
  forcedCompletion,
  forcedReply,
  promptMessages,
  promptText,
} from '../../src/steering/prompts.js';

const CHAT = {
  specialTokens: {},
  chatTemplate:
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}" +
    '{% if add_generation_prompt %}<|assistant|>{% endif %}',
};
const FULL: AgentPrompt = { task: 'buttons', style: 'full', arms: 2, horizon: 15 };
const BRIEF: AgentPrompt = { ...FULL, style: 'brief' };
const STEPS: readonly AgentStep[] = [0, 1, 1].map((action, t) => ({
  action,
  reward: 100.25 + t,
  completion: forcedCompletion(FULL, action),
}));

describe('prompts of an agent', () => {
  it.each([FULL, BRIEF])('of one run begin with each other ($style)', (prompt) => {
    const texts = STEPS.concat(STEPS[0]).map((_, t) => promptText(prompt, STEPS.slice(0, t), CHAT).text);
    for (let t = 1; t < texts.length; t++) {
      expect(texts[t].startsWith(texts[t - 1])).toBe(true);
      expect(texts[t].length).toBeGreaterThan(texts[t - 1].length);
    }
  });

  it('hold the instructions, all completions and the feedback', () => {
    const [first, ...rest] = promptMessages(FULL, STEPS);
    expect(first.content).toContain('Evaluate every button');
    expect(first.content).toContain('maximise the total');
    expect(first.content).toContain('Action: I choose Button N.');
    expect(rest.map(({ role }) => role)).toEqual(['assistant', 'user', 'assistant', 'user', 'assistant', 'user']);
    expect(rest[1].content).toBe('Button 1 gave 100.3 points.\nStep 2 of 15: which of the buttons do you choose?');
  });

  it('show the last steps alone where that is asked for', () => {
    const messages = promptMessages({ ...FULL, history: 1 }, STEPS);
    expect(messages).toHaveLength(3);
    expect(messages[0].content).toContain('The first 2 steps are not shown.');
    expect(messages[0].content).toContain('Step 3 of 15');
    expect(messages[2].content).toContain('Step 4 of 15');
    const brief = promptText({ ...BRIEF, history: 1 }, STEPS, CHAT);
    expect(brief.text.match(/: 10\d/g)).toEqual([': 102']);
  });

  it('have a second task and any number of arms', () => {
    const slots: AgentPrompt = { ...FULL, task: 'slots', arms: 3 };
    expect(actionNames(slots)).toEqual(['Slot machine 1', 'Slot machine 2', 'Slot machine 3']);
    expect(promptMessages(slots, [])[0].content).toContain('where N is one of 1, 2 and 3.');
    expect(new RegExp(actionPatternOf(slots), 'iu').exec('Action: I choose Slot machine 3.')?.[1]).toBe(
      'Slot machine 3',
    );
  });

  it('are followed by a reply that has their form', () => {
    const { thought, actions } = forcedReply({ ...FULL, thought: 'Why not?' });
    expect(`${thought}${actions[1]}`).toBe('Thought: Why not?\nAction: I choose Button 2.');
    expect(forcedReply(BRIEF)).toEqual({ thought: '', actions: ['Button 1:', 'Button 2:'] });
  });

  it('need a chat template in full style', () => {
    expect(() => promptText(FULL, [], { specialTokens: {} })).toThrow(/--prompt-style brief/);
    expect(promptText(BRIEF, [], { specialTokens: {} }).rendered).toBe(false);
  });
});
