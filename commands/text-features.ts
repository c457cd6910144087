import { join } from 'node:path';
import { tokeniseDocument } from '../src/entropy/tokenised-document.js';
import { InputError } from '../src/errors.js';
import {
  type FeatureDocument,
  type FeatureLayer,
  featuresOfDocuments,
  type LayerFeatures,
} from '../src/features/model-features.js';
import { POOLINGS, type Pooling } from '../src/features/pooling.js';
import { finishEmbedding, readSentenceModules, type SentenceModules } from '../src/features/sentence-modules.js';
import { EMBED_TEXTS } from '../src/features/text-embedding.js';
import { type Document, readDocuments } from '../src/formats/documents.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest } from '../src/formats/inputs.js';
import { type Labels, labelCount, labelsFrom, readLabels, takeLabels } from '../src/formats/labels.js';
import { describeEncoder, ENCODER_TYPES, OTHER_ENCODERS } from '../src/models/encoder-description.js';
import { readJson } from '../src/models/model-files.js';
import { openModelTokenizer } from '../src/models/model-tokenizer.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import type { AnalysisContext } from './analysis-run.js';
import { parseChoice } from './edge-values.js';
import {
  type FeatureInputs,
  type FeatureOwnOptions,
  type FeatureSet,
  type FeatureSharedOptions,
  labelKind,
  parseLayers,
} from './feature-inputs.js';
import { modelDigests } from './model-digests.js';
import { openModelSession, parsePrecision } from './model-session.js';

/** What every kind of model is given. */
interface TextRequest {
  readonly model: string;
  /** Where the model lies. */
  readonly path: string;
  readonly options: FeatureSharedOptions;
  readonly own: FeatureOwnOptions;
  readonly context: AnalysisContext;
  /** `--layer`, or what the view takes when it is not given. */
  readonly layers: string;
  /** `--pool`, if it was given. */
  readonly pool: Pooling | undefined;
  /** Pooling when neither `--pool` nor the model's own files say. */
  readonly fallbackPool: Pooling;
  readonly modules: SentenceModules | undefined;
}

/** Documents that hold most positions of a batch of an encoder. */
const TOKENS_PER_BATCH = 4096;

/**
 * Features of the texts of `--data` by the model of `--model`: the layers of a decoder, an encoder of the BERT family, or
 * an ONNX export that gives hidden states or embeddings.
 */
export async function featuresOfTexts(
  model: string,
  options: FeatureSharedOptions,
  own: FeatureOwnOptions,
  context: AnalysisContext,
  fallback: { readonly layer: string; readonly pool: Pooling },
): Promise<FeatureInputs> {
  const { kind, path } = resolveModelPath(model, process.env);
  const request: TextRequest = {
    model,
    path,
    options,
    own,
    context,
    layers: own.layer ?? fallback.layer,
    pool: own.pool === undefined ? undefined : parseChoice('--pool', own.pool, POOLINGS),
    fallbackPool: fallback.pool,
    modules: kind === 'directory' ? readSentenceModules(path) : undefined,
  };
  if (kind === 'onnx') return byEncoder(request, 'onnx', own.layer === undefined ? ['final'] : onnxLayers(own.layer));
  if (kind === 'directory') {
    const config = readJson(join(path, 'config.json'));
    const type = String(config.model_type);
    if (ENCODER_TYPES.includes(type) || OTHER_ENCODERS.includes(type)) {
      const { layers } = describeEncoder(config, join(path, 'config.json'));
      return byEncoder(request, 'encoder', parseLayers(request.layers, layers));
    }
  }
  return byDecoder(request);
}

function onnxLayers(text: string): FeatureLayer[] {
  if (text === 'final') return ['final'];
  throw new InputError(`--layer ${text}: an ONNX export gives its final layer alone; leave --layer out`);
}

/** The documents of `--data`; the values of the label field are kept as they pass. */
function readTexts({ options, own, context }: TextRequest): {
  readonly documents: AsyncGenerator<Document>;
  readonly labelValues: unknown[];
} {
  const labelValues: unknown[] = [];
  const field = own.labels === undefined ? own.labelColumn : undefined;
  const read = readDocuments(options.data, {
    ledger: context.ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    requireText: own.chatTemplate !== true,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(own.idField !== undefined && { idField: own.idField }),
  });
  const documents = async function* (): AsyncGenerator<Document> {
    for await (const document of read) {
      if (field !== undefined) labelValues.push(document.record[field]);
      yield document;
    }
  };
  return { documents: documents(), labelValues };
}

/** Token ids as an embedding model wants them: with the tokens that its tokenizer puts around a text. */
function wholeTokens(document: Document, tokenizer: Tokenizer | undefined, { options, own }: TextRequest): Int32Array {
  if (own.chatTemplate === true || document.text === undefined || !tokenizer) {
    const tokenising = { textField: options.textField, chatTemplate: own.chatTemplate === true };
    return tokeniseDocument(document, tokenizer, tokenising).tokens;
  }
  return tokenizer.encode(document.text, { addSpecialTokens: true });
}

async function byDecoder(request: TextRequest): Promise<FeatureInputs> {
  const { model, options, own, context, modules } = request;
  const pool = request.pool ?? modules?.pool ?? request.fallbackPool;
  context.timings.begin('open the model');
  const session = await openModelSession(model, {
    ...options,
    maxMemory: Math.floor(options.maxMemory / 2),
    precision: parsePrecision(own.precision),
  });
  try {
    const { host, tokenizer } = session;
    const { layers: depth, hiddenSize } = host.info;
    if (depth === null || hiddenSize === null) throw new InputError(`${model}: its layers are not reachable`);
    const texts = readTexts(request);
    const tokenising = { textField: options.textField, chatTemplate: own.chatTemplate === true };
    const documents = async function* (): AsyncGenerator<FeatureDocument> {
      for await (const document of texts.documents) {
        const tokens = modules
          ? wholeTokens(document, tokenizer, request)
          : tokeniseDocument(document, tokenizer, tokenising).tokens;
        yield { id: document.id, tokens };
      }
    };
    context.timings.begin('run the model');
    const extracted = await featuresOfDocuments(documents(), host, {
      layers: parseLayers(request.layers, depth),
      pool,
      context: session.context,
      prefixToken: !modules && tokenizer?.addBosDefault ? tokenizer.bosId : undefined,
      hiddenSize,
      maxBytes: Math.floor(options.maxMemory / 2),
      onTokens: (tokens) => context.progress.update(tokens, 'tokens'),
    });
    const layers =
      modules && request.pool === undefined
        ? extracted.layers.map((layer) => finished(layer, modules))
        : extracted.layers;
    const sets = await setsOf(request, layers, extracted.documentOfRow, extracted.ids, texts.labelValues);
    const digests = await session.digests();
    return { sets, digests: async () => digests, tokens: extracted.tokens };
  } finally {
    await session.close();
  }
}

/** The final layer, taken through the modules of a sentence-transformers directory. */
function finished(features: LayerFeatures, modules: SentenceModules): LayerFeatures {
  if (features.layer !== 'final') return features;
  const { data, rows, width } = features;
  const embedded = Array.from({ length: rows }, (_, r) =>
    finishEmbedding(Float64Array.from(data.subarray(r * width, (r + 1) * width)), modules),
  );
  const size = embedded[0]?.length ?? width;
  const target = new Float32Array(rows * size);
  for (const [r, row] of embedded.entries()) target.set(row, r * size);
  return { ...features, data: target, width: size };
}

async function byEncoder(
  request: TextRequest,
  kind: 'encoder' | 'onnx',
  layers: readonly FeatureLayer[],
): Promise<FeatureInputs> {
  const { model, path, options, own, context, modules } = request;
  const precision = parsePrecision(own.precision);
  if (options.device !== 'cpu') {
    throw new InputError(
      `--device ${options.device}: encoders and ONNX embeddings run on the processor; leave --device out`,
    );
  }
  if (kind === 'onnx' && precision === 'f64') {
    throw new InputError(`${model}: an ONNX graph fixes its own arithmetic; leave --precision out`);
  }
  const tokenizer = openModelTokenizer(path);
  const most = Math.min(
    kind === 'encoder' ? encoderPositions(path) : Number.POSITIVE_INFINITY,
    modules?.maxTokens ?? Number.POSITIVE_INFINITY,
    options.context ?? Number.POSITIVE_INFINITY,
  );
  const texts = readTexts(request);
  const tokens: Int32Array[] = [];
  const ids: string[] = [];
  let cut = 0;
  for await (const document of texts.documents) {
    const whole = wholeTokens(document, tokenizer, request);
    if (whole.length > most) cut++;
    tokens.push(whole.length > most ? truncated(whole, most, tokenizer) : whole);
    ids.push(document.id);
  }
  if (cut > 0) context.warn(`${cut} of ${ids.length} texts are longer than ${most} tokens; their ends were left out`);
  context.timings.begin('run the model');
  const embedded = await context.run(
    EMBED_TEXTS,
    {
      path,
      kind,
      threads: options.threads,
      precision,
      texts: tokens,
      ids,
      layers,
      pool: request.pool,
      modules,
      tokensPerBatch: TOKENS_PER_BATCH,
    },
    (done) => context.progress.update(Number(done), 'tokens'),
  );
  const sets = await setsOf(request, embedded.layers, embedded.textOfRow, ids, texts.labelValues);
  const digests = async (): Promise<InputDigest[]> => (await modelDigests(model, path)).digests;
  return { sets, digests, tokens: embedded.tokens };
}

function encoderPositions(path: string): number {
  const config = join(path, 'config.json');
  const { positionRows, firstPosition } = describeEncoder(readJson(config), config);
  return positionRows - firstPosition;
}

/** Cuts a text and keeps its closing special token. */
function truncated(ids: Int32Array, most: number, tokenizer: Tokenizer): Int32Array {
  const kept = ids.slice(0, most);
  const last = ids[ids.length - 1];
  if (tokenizer.isSpecial(last)) kept[most - 1] = last;
  return kept;
}

/** One set a layer, labelled where labels were given. */
async function setsOf(
  request: TextRequest,
  layers: readonly LayerFeatures[],
  documentOfRow: Int32Array,
  documents: readonly string[],
  labelValues: readonly unknown[],
): Promise<FeatureSet[]> {
  const labels = await rowLabels(request, documentOfRow, documents, labelValues);
  const ids = Array.from(documentOfRow, (document) => documents[document]);
  return layers.map(({ layer, data, rows, width }): FeatureSet => {
    const name = `${request.model}, ${layer === 'final' ? 'final layer' : `layer ${layer}`}`;
    const source: FeatureSource = { kind: 'array', name, data, rows, columns: width };
    return { name, layer, source, ids, ...(labels && { labels }) };
  });
}

/** Labels of documents, repeated for every row that a document gives. */
async function rowLabels(
  { options, own, context }: TextRequest,
  documentOfRow: Int32Array,
  documents: readonly string[],
  values: readonly unknown[],
): Promise<Labels | undefined> {
  const kind = labelKind(own);
  const { labels: file, labelColumn } = own;
  if (file === undefined) {
    if (labelColumn === undefined) return undefined;
    return takeLabels(labelsFrom(values, `${options.data.join(', ')}: field "${labelColumn}"`, kind), documentOfRow);
  }
  context.ledger.note(file);
  const labels = await readLabels(file, {
    kind,
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(labelColumn !== undefined && { column: labelColumn }),
  });
  if (labelCount(labels) !== documents.length) {
    throw new InputError(
      `${file}: ${labelCount(labels)} labels for ${documents.length} documents; give one label a document`,
    );
  }
  return takeLabels(labels, documentOfRow);
}
