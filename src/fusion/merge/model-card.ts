import { existsSync } from 'node:fs';
import { Document } from 'yaml';
import { formatMergeDocument } from './config-format.js';
import type { MergeDocument } from './document.js';
import type { MergePlan, ModelReference } from './types.js';

/** A name on the hub: `owner/name` that is no path here. */
function isHubName(name: string): boolean {
  return /^[A-Za-z0-9][\w.-]*\/[\w.-]+$/.test(name) && !existsSync(name);
}

function linked(name: string, revision: string | undefined): string {
  const text = revision === undefined ? name : `${name}@${revision}`;
  return isHubName(name) ? `[${text}](https://huggingface.co/${name})` : `\`${text}\``;
}

function modelText({ model, revision, lora, loraRevision }: ModelReference): string {
  const adapter = lora === undefined ? '' : ` + ${linked(lora, loraRevision)}`;
  return `${linked(model, revision)}${adapter}`;
}

/** The metadata at the head of a card: models on the hub, tags, library. */
function frontMatter(models: readonly ModelReference[]): string {
  const names = models.flatMap(({ model, lora }) => (lora === undefined ? [model] : [model, lora])).filter(isHubName);
  const metadata = {
    ...(names.length === 0 ? {} : { base_model: [...new Set(names)] }),
    tags: ['merge', 'surprisal'],
    library_name: 'transformers',
  };
  return `---\n${new Document(metadata, { version: '1.1' }).toString()}---\n`;
}

/** A fence longer than any in the text. */
function fenced(text: string, language: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([ticks]) => ticks.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${language}\n${text.trimEnd()}\n${fence}\n`;
}

/**
 * README.md of a merged model: from which models it was made, how, and by what configuration.
 * @param version of this program
 */
export function modelCard(document: MergeDocument, plan: MergePlan, version: string): string {
  const { method, models, base, warnings } = plan;
  const root = base === undefined ? document.base : models[base];
  const others = models.filter(({ text }) => text !== root?.text);
  const beside = root === undefined ? '' : `, with ${modelText(root)} as the base`;
  const bullets = (lines: readonly string[]): string => lines.map((line) => `- ${line}`).join('\n');
  const sections = [
    `# ${document.name ?? 'Merged model'}\n`,
    `Merged by \`surprisal fuse merge\` ${version}, method \`${method.name}\` (${method.reference})${beside}.\n`,
    `## Models\n\n${bullets(others.map(modelText))}\n`,
    ...(warnings.length === 0 ? [] : [`## Remarks\n\n${bullets(warnings)}\n`]),
    `## Configuration\n\n${fenced(formatMergeDocument(document), 'yaml')}`,
  ];
  return `${frontMatter(models)}\n${sections.join('\n')}`;
}
