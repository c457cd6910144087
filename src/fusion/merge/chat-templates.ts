import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { didYouMean, InputError } from '../../errors.js';
import { chatTemplateOf, readTokenizerFiles } from '../../tokenizers/huggingface.js';
import { copiedFiles, type OutputFile } from './tokenizer-files.js';
import type { ModelTokenizer } from './tokenizer-vocabulary.js';

/** Formats of conversations that a configuration may name. */
const NAMED_TEMPLATES: Readonly<Record<string, string>> = {
  chatml: [
    "{%- for message in messages -%}{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}{%- endfor -%}",
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
  ].join(''),
  llama3: [
    '{{- bos_token -}}{%- for message in messages -%}',
    "{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' -}}{{- message.content | trim -}}{{- '<|eot_id|>' -}}",
    '{%- endfor -%}',
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}",
  ].join(''),
  alpaca: [
    '{%- for message in messages -%}',
    "{%- if message.role == 'system' -%}{{- message.content | trim ~ '\\n\\n' -}}",
    "{%- elif message.role == 'user' -%}{{- '### Instruction:\\n' ~ message.content | trim ~ '\\n\\n' -}}",
    "{%- elif message.role == 'user_context' -%}{{- '### Input:\\n' ~ message.content | trim ~ '\\n\\n' -}}",
    "{%- elif message.role == 'assistant' -%}{{- '### Response:\\n' ~ message.content | trim ~ '\\n\\n' -}}{%- endif -%}",
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}",
  ].join(''),
  mistral: [
    "{{- bos_token -}}{%- set lead = namespace(text='') -%}{%- for message in messages -%}",
    "{%- if message.role == 'system' -%}{%- set lead.text = message.content ~ '\\n\\n' -%}",
    "{%- elif message.role == 'user' -%}{{- ' [INST] ' ~ lead.text ~ message.content ~ ' [/INST]' -}}{%- set lead.text = '' -%}",
    "{%- elif message.role == 'assistant' -%}{{- ' ' ~ message.content ~ eos_token -}}{%- endif -%}",
    '{%- endfor -%}',
  ].join(''),
  exaone: [
    "{%- for message in messages -%}{%- if loop.first and message.role != 'system' -%}{{- '[|system|][|endofturn|]\\n' -}}{%- endif -%}",
    "{{- '[|' ~ message.role ~ '|]' ~ message.content -}}",
    "{%- if message.role == 'user' -%}{{- '\\n' -}}{%- else -%}{{- '[|endofturn|]\\n' -}}{%- endif -%}{%- endfor -%}",
    "{%- if add_generation_prompt -%}{{- '[|assistant|]' -}}{%- endif -%}",
  ].join(''),
};

/**
 * The chat template that a configuration asks for: none (the tokenizer's own stays), `auto` (what most models have, the
 * first on ties), a format by its name, or the text of a template.
 * @throws InputError for a text that is no template and no name
 */
export function chosenChatTemplate(
  wanted: string | undefined,
  tokenizers: readonly Pick<ModelTokenizer, 'chatTemplate'>[],
): string | undefined {
  if (wanted === undefined || wanted === '') return undefined;
  if (wanted === 'auto') return commonest(tokenizers);
  if (Object.hasOwn(NAMED_TEMPLATES, wanted)) return NAMED_TEMPLATES[wanted];
  if (wanted.includes('{')) return wanted;
  const formats = Object.keys(NAMED_TEMPLATES);
  throw new InputError(
    `chat_template ${JSON.stringify(wanted)} is neither auto, nor a format (${formats.join(', ')}), nor the text of a ` +
      `template${didYouMean(wanted, [...formats, 'auto'])}`,
  );
}

function commonest(tokenizers: readonly Pick<ModelTokenizer, 'chatTemplate'>[]): string | undefined {
  const votes = new Map<string, number>();
  for (const { chatTemplate } of tokenizers) {
    const text = chatTemplate?.trim();
    if (text) votes.set(text, (votes.get(text) ?? 0) + 1);
  }
  const most = Math.max(0, ...votes.values());
  return [...votes].find(([, count]) => count === most)?.[0];
}

/**
 * Tokenizer files of a merge that leaves vocabularies alone: those of a directory, with the chat template that the
 * configuration asks for.
 * @param directories the models', whose templates have a vote in `auto`
 * @throws InputError for a text that is no template and no name
 */
export function copiedTokenizer(directory: string, chatTemplate: string, directories: readonly string[]): OutputFile[] {
  const models = directories
    .filter((model) => existsSync(join(model, 'tokenizer.json')))
    .map((model) => ({ chatTemplate: chatTemplateOf(readTokenizerFiles(model)) }));
  return copiedFiles(directory, chosenChatTemplate(chatTemplate, models));
}
