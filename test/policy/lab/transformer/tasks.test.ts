import { describe, expect, it } from 'vitest';
import type { PolicyTask, Prompt } from '../../../../src/policy/lab/transformer/task.js';
import { createRandom } from '../../../../src/random.js';
import { sums, walks } from './policy.js';

const texts = (task: PolicyTask, tokens: Iterable<number>): string[] =>
  Array.from(tokens, (token) => task.vocabulary[token]);
const ids = (task: PolicyTask, text: string): Int32Array =>
  Int32Array.from(text.split(' '), (word) => task.vocabulary.indexOf(word));
const asked = (task: PolicyTask, text: string): Prompt => ({ id: 'p', tokens: ids(task, text), difficulty: '1' });

describe('sums', () => {
  const task = sums();
  it('gives a reward for the right answer behind the last marker, and for nothing else', () => {
    const prompt = asked(task, '03 + 05 + 06 =');
    const grade = (text: string) => task.grade(prompt, ids(task, text));
    expect(grade('+2 01 +3 00 </think> 00 <end>')).toEqual({ correct: true, reward: 1, thinkEnd: 4 });
    expect(grade('wait </think> 00 <end>')).toEqual({ correct: true, reward: 1, thinkEnd: 1 });
    expect(grade('+2 01 +3 00 </think> 01 <end>')).toMatchObject({ correct: false, reward: 0 });
    expect(grade('</think> 01 </think> 00 <end>')).toMatchObject({ correct: true, thinkEnd: 2 });
    expect(grade('</think> 00 00 <end>')).toMatchObject({ correct: false });
    expect(grade('</think> 00')).toMatchObject({ correct: false });
    expect(grade('+2 01 +3 00')).toEqual({ correct: false, reward: 0 });
  });

  it('demonstrates easy sums rightly and hard ones as often as it is told', () => {
    const random = createRandom(7);
    let right = 0;
    const count = 3000;
    for (let i = 0; i < count; i++) {
      const { prompt, response, mask } = task.demonstrate(random.fork(i));
      expect(mask.every((one) => one === 1)).toBe(true);
      const text = texts(task, response);
      expect(text.slice(-3)[0]).toBe('</think>');
      if (task.grade({ id: '', tokens: prompt, difficulty: '' }, response).correct) right++;
    }
    // Of a hard sum 0.3 + 0.7 / 7 are right: 0.7 + 0.3 * 0.4 = 0.82 for one sum; two of them, or one (half of the prompts each).
    const one = 0.82;
    expect(Math.abs(right / count - (one + one * one) / 2)).toBeLessThan(0.06);
  });
});

describe('walks', () => {
  const task = walks();
  it('ends in fog behind a wrong door, and the turns are the tokens of the policy', () => {
    const random = createRandom(3);
    let [right, lost] = [0, 0];
    for (let i = 0; i < 400; i++) {
      const { response, mask } = task.demonstrate(random.fork(i));
      const words = texts(task, response);
      const fog = words.indexOf('fog');
      if (fog < 0) right++;
      else {
        lost++;
        expect(words.slice(fog).some((word) => word.startsWith('room'))).toBe(false);
      }
      words.forEach((word, t) => {
        expect(mask[t]).toBe(word === 'fog' || word.startsWith('room') ? 0 : 1);
      });
    }
    expect(right).toBeGreaterThan(10);
    expect(lost).toBeGreaterThan(100);
  });

  it('grades a walk by all its doors', () => {
    const prompt = task.prompt(createRandom(1), 0);
    const doors = task.vocabulary.flatMap((word, token) => (word.startsWith('door') ? [token] : []));
    /** Finds the way by trying: a wrong door shows as fog, the last one in the grade. */
    const path: number[] = [];
    const play = (choices: readonly number[]): Int32Array => {
      const episode = task.begin(prompt);
      return Int32Array.from(choices.flatMap((door) => [door, ...episode.take(door).observation]));
    };
    const fog = task.vocabulary.indexOf('fog');
    for (let turn = 0; turn < 8; turn++) {
      const found = doors.find((door) => {
        const response = play([...path, door]);
        return turn === 7 ? task.grade(prompt, response).correct : !response.includes(fog);
      });
      path.push(found ?? -1);
    }
    const grade = task.grade(prompt, play(path));
    expect(grade).toMatchObject({ correct: true, reward: 1 });
    expect(Array.from(grade.stepSpans ?? [])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    const wrong = path.map((door, turn) => (turn === 3 ? doors[(doors.indexOf(door) + 1) % doors.length] : door));
    expect(task.grade(prompt, play(wrong)).correct).toBe(false);
  });
});
