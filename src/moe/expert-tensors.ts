import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { parsePayloadName } from '../formats/pvq.js';
import type { TensorStore } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import { EXPERT_FAMILIES, type ExpertFamily, NAMINGS, type NamingKind } from './expert-families.js';

/** Suffixes of the tensors that other tools store beside, or in place of, quantised weights. */
const QUANTISED_NAMES: readonly (readonly [RegExp, string])[] = [
  [/(weight|_proj)_scale_inv$/, 'FP8 with block scales'],
  [/\.(qweight|qzeros|g_idx)$/, 'GPTQ or AWQ'],
  [/(_proj|_weight|weight|experts\.\w+)_blocks$/, 'MXFP4'],
  [/_proj_scales$|\.scales$/, 'MXFP4, GPTQ or AWQ'],
  [/\.(weight_packed|weight_shape|weight_zero_point)$/, 'compressed-tensors'],
  [/\.(weight|input)_scale$/, 'FP8'],
  [/\.(SCB|absmax|quant_map|nested_absmax)$|\.quant_state\./, 'bitsandbytes'],
];

/** The formats that expert matrices are computed in. */
const PLAIN = new Set<string>(['F32', 'F16', 'BF16']);

/** @throws InputError naming the first tensor that is quantised, or the config that says so */
export function refuseQuantised(path: string, store: TensorStore, config: Config): void {
  for (const { name, dtype, file } of store.tensors.values()) {
    if (parsePayloadName(name) !== undefined)
      throw new InputError(
        `${file}: tensor ${quoted(name)} is quantised by surprisal: merge the original model, or write it densely with "surprisal quantize-pvq dequantize" first`,
      );
    const found = QUANTISED_NAMES.find(([pattern]) => pattern.test(name));
    const kind = found?.[1] ?? (/^F8_/.test(dtype) ? 'FP8' : undefined);
    if (kind !== undefined)
      throw new InputError(
        `${file}: tensor ${quoted(name)} (${dtype}) is quantised (${kind}): experts are merged in their original precision, fetch the unquantised model or dequantise it first`,
      );
  }
  const quantisation = config.quantization_config;
  if (typeof quantisation === 'object' && quantisation !== null) {
    const method = (quantisation as { readonly quant_method?: unknown }).quant_method;
    throw new InputError(
      `${path}: config.json has a "quantization_config" (${String(method ?? 'unnamed')}): fetch the unquantised model or dequantise it first`,
    );
  }
}

/** @throws InputError naming an expert matrix that is not of a plain floating-point type */
export function refuseOtherTypes(store: TensorStore, names: readonly string[]): void {
  for (const name of names) {
    const info = store.tensors.get(name);
    if (info !== undefined && !PLAIN.has(info.dtype))
      throw new InputError(
        `${info.file}: tensor ${quoted(name)} is ${info.dtype}: experts are merged from ${[...PLAIN].join(', ')}, dequantise or convert it first`,
      );
  }
}

/** The kinds of expert names that a store holds, with one name of each. */
export function findNamings(store: TensorStore): Map<NamingKind, string> {
  const found = new Map<NamingKind, string>();
  for (const name of store.tensors.keys()) {
    for (const { kind, pattern } of Object.values(NAMINGS)) {
      if (!found.has(kind) && pattern.test(name)) found.set(kind, name);
    }
  }
  return found;
}

/** Types of the families whose names these are. */
function familiesWith(kind: NamingKind): string {
  return EXPERT_FAMILIES.filter(({ namings }) => namings.includes(kind))
    .map(({ types }) => types[0])
    .join(', ');
}

/**
 * Which of the family's namings a store has.
 * @param lenient single matrices of fused tensors may stand under names of their own, as `merge-moe compress` gives them
 * @throws InputError where config and names disagree, or names of two kinds stand side by side
 */
export function namingOf(
  path: string,
  family: ExpertFamily,
  found: ReadonlyMap<NamingKind, string>,
  lenient = false,
): NamingKind {
  const namings = lenient ? [...new Set<NamingKind>([...family.namings, 'projections'])] : family.namings;
  const fits = namings.filter((kind) => found.has(kind));
  const other = [...found].find(([kind]) => !namings.includes(kind));
  if (other !== undefined)
    throw new InputError(
      `${path}: config.json says ${family.types[0]}, but tensor ${quoted(other[1])} is named as in ${familiesWith(other[0])}: config.json and weights are not of one model`,
    );
  if (fits.length > 1)
    throw new InputError(
      `${path}: experts are stored separately (${quoted(found.get(fits[0]) ?? '')}) and fused (${quoted(found.get(fits[1]) ?? '')}): keep one of the two`,
    );
  const [kind] = fits;
  if (kind === undefined) {
    const wanted = family.namings.map((each) => `"${NAMINGS[each].up ?? NAMINGS[each].gateUp}"`).join(' or ');
    throw new InputError(
      `${path}: config.json says ${family.types[0]}, but no tensor is named like ${wanted}: fetch the weights again`,
    );
  }
  return kind;
}

/** At most `limit` names, and how many more there are. */
export function nameList(names: readonly string[], limit = 6): string {
  const more = names.length > limit ? `, and ${names.length - limit} more` : '';
  return names.slice(0, limit).map(quoted).join(', ') + more;
}
