// Node-API wrappers of dense merging. Arguments were checked by src/kernels/merge-*.ts; what is checked again is what
// would read or write outside a typed array.
#include <node_api.h>

#include <vector>

#include "arguments.hpp"
#include "merge_dense.hpp"
#include "merge_importance.hpp"
#include "merge_measures.hpp"

namespace surprisal {
namespace {

bool element_type(Arguments& arguments, double code, DType* type) {
  if (!(code >= 0 && code <= static_cast<double>(DType::BF16))) arguments.fail("no element type of merging");
  else *type = static_cast<DType>(static_cast<int>(code));
  return arguments.ok();
}

// Arguments `index` and `index` + 1: byte arrays and their types, of `elements` elements each.
std::vector<StoredElements> stored_list(Arguments& arguments, size_t index, int64_t elements) {
  std::vector<StoredElements> result;
  int64_t types;
  const std::vector<ByteSpan> spans = arguments.byte_arrays(index);
  const int32_t* codes = arguments.integers(index + 1, &types);
  if (static_cast<int64_t>(spans.size()) != types || spans.empty() || types > kMostMergeInputs) {
    arguments.fail("inputs and their types differ in number, or are too many");
  }
  for (size_t i = 0; arguments.ok() && i < spans.size(); i++) {
    DType type = DType::F32;
    if (!element_type(arguments, codes[i], &type)) break;
    if (spans[i].length != elements * dtype_bytes(type)) arguments.fail("an input differs in length");
    result.push_back({spans[i].data, type});
  }
  return result;
}

StoredElements stored(Arguments& arguments, size_t index, int64_t elements) {
  int64_t length;
  DType type = DType::F32;
  const uint8_t* bytes = arguments.bytes(index, &length);
  if (element_type(arguments, arguments.number(index + 1), &type) && length != elements * dtype_bytes(type)) {
    arguments.fail("a tensor differs in length");
  }
  return {bytes, type};
}

StoredOutput stored_output(Arguments& arguments, size_t index, int64_t elements) {
  const StoredElements found = stored(arguments, index, elements);
  return {const_cast<uint8_t*>(found.bytes), found.type};
}

bool any_wide(const std::vector<StoredElements>& items) {
  for (const StoredElements& item : items) {
    if (item.type == DType::F64) return true;
  }
  return false;
}

// Arguments 0 to 4: byte arrays, types, rows, columns, relative.
struct DenseArguments {
  std::vector<StoredElements> items;
  MergeInputs inputs;

  explicit DenseArguments(Arguments& arguments) {
    const int64_t rows = arguments.integer(2), columns = arguments.integer(3);
    if (rows < 0 || columns < 0) arguments.fail("a size is negative");
    items = stored_list(arguments, 0, rows * columns);
    inputs = {items.data(), static_cast<int>(items.size()), arguments.integer(4) != 0, any_wide(items), rows, columns};
    if (inputs.relative && inputs.count < 2) arguments.fail("a base alone");
  }
};

// (byte arrays, types, rows, columns, relative, coefficients, groups, output, output type, threads)
napi_value MergeCombine(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 10);
  const DenseArguments dense(arguments);
  if (!arguments.ok()) return nullptr;
  int64_t count;
  const double* coefficients = arguments.doubles(5, &count);
  const int64_t kind = arguments.integer(6);
  const MergeInputs& inputs = dense.inputs;
  const StoredOutput output = stored_output(arguments, 7, inputs.rows * inputs.columns);
  const int threads = static_cast<int>(arguments.integer(9));
  const int64_t groups = kind == 0 ? 1 : kind == 1 ? inputs.rows : inputs.columns;
  if (kind < 0 || kind > 2 || count != inputs.count * groups) arguments.fail("coefficients do not fit the inputs");
  if (arguments.ok()) combine_elements(inputs, coefficients, static_cast<Groups>(kind), output, threads);
  return nullptr;
}

// (byte arrays, types, rows, columns, relative, combination | null, target, threads)
napi_value MergeGramBlocks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  const DenseArguments dense(arguments);
  if (!arguments.ok()) return nullptr;
  int64_t vectors, count;
  const double* combination = arguments.doubles(5, &vectors);
  double* target = arguments.doubles(6, &count);
  const int threads = static_cast<int>(arguments.integer(7));
  const MergeInputs& inputs = dense.inputs;
  const int64_t blocks = (inputs.columns + kGramBlock - 1) / kGramBlock;
  if ((combination != nullptr && vectors != inputs.vectors()) ||
      count != inputs.rows * blocks * (combination == nullptr ? inputs.pairs() : 1)) {
    arguments.fail("blocks do not fit the inputs");
  }
  if (arguments.ok()) gram_blocks(inputs, combination, target, threads);
  return nullptr;
}

// (byte arrays, types, rows, columns, relative, target, threads)
napi_value MergeGramColumns(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  const DenseArguments dense(arguments);
  if (!arguments.ok()) return nullptr;
  int64_t count;
  double* target = arguments.doubles(5, &count);
  const int threads = static_cast<int>(arguments.integer(6));
  if (count != dense.inputs.columns * dense.inputs.pairs()) arguments.fail("a target does not fit the inputs");
  if (arguments.ok()) gram_columns(dense.inputs, target, threads);
  return nullptr;
}

// (a, type, b, type, elements, t, output, output type, threads)
napi_value MergeSwapNear(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  const int64_t elements = arguments.integer(4);
  const StoredElements a = stored(arguments, 0, elements), b = stored(arguments, 2, elements);
  const double t = arguments.number(5);
  const StoredOutput output = stored_output(arguments, 6, elements);
  const int threads = static_cast<int>(arguments.integer(8));
  if (arguments.ok()) swap_near(a, b, t, elements, output, threads);
  return nullptr;
}

// Arguments 0 to 5: a, type, b, type, rows, columns.
ImportancePair importance_pair(Arguments& arguments) {
  const int64_t rows = arguments.integer(4), columns = arguments.integer(5);
  const StoredElements a = stored(arguments, 0, rows * columns), b = stored(arguments, 2, rows * columns);
  return {a, b, a.type == DType::F64 || b.type == DType::F64, rows, columns};
}

const double* divergences_of(Arguments& arguments, const ImportancePair& pair) {
  int64_t count;
  const double* divergences = arguments.doubles(6, &count);
  if (count != pair.rows) arguments.fail("divergences do not fit the rows");
  return divergences;
}

// (a, type, b, type, rows, columns, target, threads)
napi_value MergeRowDivergences(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  const ImportancePair pair = importance_pair(arguments);
  int64_t count;
  double* target = arguments.doubles(6, &count);
  const int threads = static_cast<int>(arguments.integer(7));
  if (count != pair.rows) arguments.fail("a target does not fit the rows");
  if (arguments.ok()) row_divergences(pair, target, threads);
  return nullptr;
}

// (a, type, b, type, rows, columns, divergences, target, threads)
napi_value MergeImportances(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  const ImportancePair pair = importance_pair(arguments);
  const double* divergences = divergences_of(arguments, pair);
  int64_t count;
  double* target = arguments.doubles(7, &count);
  const int threads = static_cast<int>(arguments.integer(8));
  if (count != pair.rows * pair.columns) arguments.fail("a target does not fit the tensors");
  if (arguments.ok()) importances(pair, divergences, target, threads);
  return nullptr;
}

// (a, type, b, type, rows, columns, divergences, digits, level, counts, threads)
napi_value MergeCountDigits(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  const ImportancePair pair = importance_pair(arguments);
  const double* divergences = divergences_of(arguments, pair);
  int64_t digits, counts;
  const int32_t* digit = arguments.integers(7, &digits);
  const int64_t level = arguments.integer(8);
  double* count = arguments.doubles(9, &counts);
  const int threads = static_cast<int>(arguments.integer(10));
  const int64_t targets = digits / 4;
  if (digits != 4 * targets || targets > kMostRanks || counts != targets * kDigitValues || level < 0 || level > 3) {
    arguments.fail("digits and counts do not fit each other");
  }
  if (arguments.ok()) {
    count_digits(pair, divergences, digit, static_cast<int>(targets), static_cast<int>(level), count, threads);
  }
  return nullptr;
}

// (a, type, b, type, rows, columns, divergences, threshold, output, output type, threads) -> elements of b
napi_value MergeTakeImportant(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  const ImportancePair pair = importance_pair(arguments);
  const double* divergences = divergences_of(arguments, pair);
  const double threshold = arguments.number(7);
  const StoredOutput output = stored_output(arguments, 8, pair.rows * pair.columns);
  const int threads = static_cast<int>(arguments.integer(10));
  if (!arguments.ok()) return nullptr;
  return number_value(env, static_cast<double>(take_important(pair, divergences, threshold, output, threads)));
}

// (byte arrays, types, elements, weights, hasBase, hasMerged, target, threads)
napi_value MergeMeasure(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  MeasuredTensors measured;
  measured.elements = arguments.integer(2);
  const std::vector<StoredElements> items = stored_list(arguments, 0, measured.elements);
  int64_t models, count;
  measured.weights = arguments.doubles(3, &models);
  measured.has_base = arguments.integer(4) != 0;
  measured.has_merged = arguments.integer(5) != 0;
  double* target = arguments.doubles(6, &count);
  const int threads = static_cast<int>(arguments.integer(7));
  measured.items = items.data();
  measured.count = static_cast<int>(items.size());
  measured.models = static_cast<int>(models);
  measured.wide = any_wide(items);
  const int64_t blocks = (measured.elements + kGramBlock - 1) / kGramBlock;
  if (measured.models + (measured.has_base ? 1 : 0) + (measured.has_merged ? 1 : 0) != measured.count ||
      count != blocks * measured.fields()) {
    arguments.fail("blocks do not fit the tensors");
  }
  if (arguments.ok()) measure_blocks(measured, target, threads);
  return nullptr;
}

// (tensor, type, elements, target, threads)
napi_value MergeBadValues(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  const int64_t elements = arguments.integer(2);
  const StoredElements tensor = stored(arguments, 0, elements);
  int64_t count;
  double* target = arguments.doubles(3, &count);
  const int threads = static_cast<int>(arguments.integer(4));
  if (count != 3 * ((elements + kGramBlock - 1) / kGramBlock)) arguments.fail("blocks do not fit the tensor");
  if (arguments.ok()) bad_blocks(tensor, elements, target, threads);
  return nullptr;
}

}  // namespace

void register_merge_dense(napi_env env, napi_value exports) {
  set_function(env, exports, "mergeCombine", MergeCombine);
  set_function(env, exports, "mergeGramBlocks", MergeGramBlocks);
  set_function(env, exports, "mergeGramColumns", MergeGramColumns);
  set_function(env, exports, "mergeSwapNear", MergeSwapNear);
  set_function(env, exports, "mergeRowDivergences", MergeRowDivergences);
  set_function(env, exports, "mergeImportances", MergeImportances);
  set_function(env, exports, "mergeCountDigits", MergeCountDigits);
  set_function(env, exports, "mergeTakeImportant", MergeTakeImportant);
  set_function(env, exports, "mergeMeasure", MergeMeasure);
  set_function(env, exports, "mergeBadValues", MergeBadValues);
}

}  // namespace surprisal
