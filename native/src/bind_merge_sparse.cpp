// Node-API wrappers of the merging of sparse task vectors. Arguments were checked by src/kernels/merge-sparse.ts; what is
// checked again is what would read or write outside a typed array.
#include <node_api.h>

#include <vector>

#include "arguments.hpp"
#include "merge_sparse.hpp"

namespace surprisal {
namespace {

bool is_merge_type(int64_t code) { return code >= 0 && code <= static_cast<int64_t>(DType::BF16); }

int64_t width_of(int64_t code) { return is_merge_type(code) ? dtype_bytes(static_cast<DType>(code)) : 0; }

// The arguments again, for lists of typed arrays.
class Lists {
 public:
  Lists(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kMostArguments;
    napi_get_cb_info(env, info, &count, values_, nullptr, nullptr);
  }

  // Array `at` of the list that is argument `index`: its data, null for null; length and type.
  void* item(size_t index, uint32_t at, int64_t* length, napi_typedarray_type* type) {
    *length = 0;
    napi_value value;
    if (napi_get_element(env_, values_[index], at, &value) != napi_ok) return nullptr;
    return data(value, length, type);
  }

  void* array(size_t index, int64_t* length, napi_typedarray_type* type) {
    *length = 0;
    return data(values_[index], length, type);
  }

  uint32_t length(size_t index) {
    uint32_t count = 0;
    bool list = false;
    if (napi_is_array(env_, values_[index], &list) == napi_ok && list) napi_get_array_length(env_, values_[index], &count);
    return count;
  }

 private:
  void* data(napi_value value, int64_t* length, napi_typedarray_type* type) {
    bool typed = false;
    if (napi_is_typedarray(env_, value, &typed) != napi_ok || !typed) return nullptr;
    size_t count = 0;
    void* found = nullptr;
    napi_get_typedarray_info(env_, value, type, &count, &found, nullptr, nullptr);
    *length = static_cast<int64_t>(count);
    return found;
  }

  napi_env env_;
  napi_value values_[kMostArguments];
};

// Base and models of a call, and what they are checked against.
struct Inputs {
  StoredElements base{};
  std::vector<StoredElements> models;
  TaskVectors vectors{};

  void finish(bool has_base, bool wide, int64_t elements) {
    vectors = {has_base ? &base : nullptr, models.data(), static_cast<int>(models.size()), wide, elements};
  }
};

StoredElements stored(Arguments& arguments, const uint8_t* bytes, int64_t length, int64_t type, int64_t elements) {
  if (!is_merge_type(type) || elements < 0 || length < elements * width_of(type)) {
    arguments.fail("a tensor is shorter than its elements");
    return {};
  }
  return {bytes, static_cast<DType>(type)};
}

// Arguments 0 to 5: base, baseDtype, model, dtype, wide, count.
void one_model(Arguments& arguments, Inputs& inputs) {
  int64_t base_length, length;
  const uint8_t* const base = arguments.bytes(0, &base_length);
  const uint8_t* const model = arguments.bytes(2, &length);
  const int64_t elements = arguments.integer(5);
  if (!arguments.ok()) return;
  if (base != nullptr || base_length != 0) {
    inputs.base = stored(arguments, base, base_length, arguments.integer(1), elements);
  }
  inputs.models.push_back(stored(arguments, model, length, arguments.integer(3), elements));
  inputs.finish(base != nullptr, arguments.integer(4) != 0, elements);
}

// Base, baseDtype, models, dtypes from argument 0, and `elements`, `wide` as given.
void many_models(Arguments& arguments, Lists& lists, Inputs& inputs, bool wide, int64_t elements) {
  int64_t base_length, types;
  const uint8_t* const base = arguments.bytes(0, &base_length);
  const int32_t* const dtypes = arguments.integers(3, &types);
  if (!arguments.ok()) return;
  const uint32_t count = lists.length(2);
  if (count == 0 || types < count) return arguments.fail("no models, or fewer types than models");
  if (base != nullptr) inputs.base = stored(arguments, base, base_length, arguments.integer(1), elements);
  for (uint32_t j = 0; j < count; j++) {
    int64_t length;
    napi_typedarray_type type = napi_int8_array;
    const void* const data = lists.item(2, j, &length, &type);
    if (length > 0 && type != napi_uint8_array) return arguments.fail("expected bytes of a model");
    inputs.models.push_back(stored(arguments, static_cast<const uint8_t*>(data), length, dtypes[j], elements));
    if (!arguments.ok()) return;
  }
  inputs.finish(base != nullptr, wide, elements);
}

// Masks and probabilities of one model.
void parts(Arguments& arguments, Inputs& inputs, const void* mask, int64_t mask_length, napi_typedarray_type mask_type,
           const void* probabilities, int64_t length, napi_typedarray_type type, Sparsity* sparsity) {
  const int64_t elements = inputs.vectors.elements;
  if (mask != nullptr && (mask_type != napi_uint8_array || mask_length < (elements + 7) / 8)) {
    return arguments.fail("a mask is shorter than its elements");
  }
  const napi_typedarray_type wanted = inputs.vectors.wide ? napi_float64_array : napi_float32_array;
  if (probabilities != nullptr && (type != wanted || length < elements)) {
    return arguments.fail("probabilities of another length or type");
  }
  sparsity->mask = static_cast<const uint8_t*>(mask);
  sparsity->probabilities = probabilities;
}

// (base, baseDtype, model, dtype, wide, count, ranks, cuts, threads) -> NaN
napi_value TaskVectorCuts(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  Inputs inputs;
  one_model(arguments, inputs);
  int64_t ranks, length;
  const double* const wanted = arguments.doubles(6, &ranks);
  double* const target = arguments.doubles(7, &length);
  const int threads = static_cast<int>(arguments.integer(8));
  if (arguments.ok() && length < 2 * ranks) arguments.fail("too few cuts for the ranks");
  for (int64_t k = 0; arguments.ok() && k < ranks; k++) {
    if (!(wanted[k] >= 0 && wanted[k] <= static_cast<double>(inputs.vectors.elements))) arguments.fail("a rank too high");
  }
  if (!arguments.ok()) return nullptr;
  std::vector<MagnitudeCut> cuts(static_cast<size_t>(ranks));
  const int64_t nans = magnitude_cuts(inputs.vectors, wanted, static_cast<int>(ranks), cuts.data(), threads);
  for (int64_t k = 0; k < ranks; k++) {
    target[2 * k] = cuts[static_cast<size_t>(k)].magnitude;
    target[2 * k + 1] = cuts[static_cast<size_t>(k)].end;
  }
  return number_value(env, static_cast<double>(nans));
}

// (base, baseDtype, model, dtype, wide, count, cut, mask, probabilities, figures, threads)
napi_value MeasureTaskVector(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  Lists lists(env, info);
  Inputs inputs;
  one_model(arguments, inputs);
  int64_t cuts, masked, given, length;
  napi_typedarray_type mask_type = napi_uint8_array, type = napi_float64_array;
  const double* const cut = arguments.doubles(6, &cuts);
  double* const figures = arguments.doubles(9, &length);
  const int threads = static_cast<int>(arguments.integer(10));
  if (arguments.ok() && (cuts < 4 || length < 6)) arguments.fail("an array is too short");
  if (!arguments.ok()) return nullptr;
  const void* const mask = lists.array(7, &masked, &mask_type);
  const void* const probabilities = lists.array(8, &given, &type);
  Sparsity sparsity{{cut[0], cut[1]}, {cut[2], cut[3]}, nullptr, nullptr};
  parts(arguments, inputs, mask, masked, mask_type, probabilities, given, type, &sparsity);
  if (!arguments.ok()) return nullptr;
  const TaskVectorFigures found = measure_task_vector(inputs.vectors, sparsity, threads);
  const double values[6] = {found.kept, found.nans, found.whole_absolute, found.sum, found.absolute, found.squares};
  for (int k = 0; k < 6; k++) figures[k] = values[k];
  return nullptr;
}

MaskKey key_of(Arguments& arguments, const uint32_t* words, int64_t length) {
  MaskKey key{};
  if (length < 4) arguments.fail("a key of four words");
  for (int k = 0; k < 4 && arguments.ok(); k++) key.words[k] = words[k];
  return key;
}

// (key, firstElement, count, density, mask, threads)
napi_value BernoulliMask(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  int64_t words, length;
  const uint32_t* const given = arguments.array<uint32_t>(0, napi_uint32_array, &words);
  const int64_t first = arguments.integer(1);
  const int64_t count = arguments.integer(2);
  const double density = arguments.number(3);
  uint8_t* const mask = arguments.bytes(4, &length);
  const int threads = static_cast<int>(arguments.integer(5));
  if (!arguments.ok()) return nullptr;
  const MaskKey key = key_of(arguments, given, words);
  if (first < 0 || count < 0 || length < (count + 7) / 8) arguments.fail("a mask is shorter than its elements");
  if (!arguments.ok()) return nullptr;
  bernoulli_mask(key, first, count, density, mask, threads);
  return nullptr;
}

// (base, baseDtype, model, dtype, wide, count, columns, low, step, uniforms, key, firstElement, mask, probabilities,
//  threads) -> NaN
napi_value RankedMask(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 15);
  Lists lists(env, info);
  Inputs inputs;
  one_model(arguments, inputs);
  int64_t drawn, words, length, given;
  RankedRows rows{};
  rows.columns = arguments.integer(6);
  rows.low = arguments.number(7);
  rows.step = arguments.number(8);
  rows.uniforms = arguments.doubles(9, &drawn);
  const uint32_t* const key = arguments.array<uint32_t>(10, napi_uint32_array, &words);
  rows.first = arguments.integer(11);
  uint8_t* const mask = arguments.bytes(12, &length);
  const int threads = static_cast<int>(arguments.integer(14));
  if (!arguments.ok()) return nullptr;
  const int64_t elements = inputs.vectors.elements;
  if (rows.uniforms == nullptr) rows.key = key_of(arguments, key, words);
  else if (drawn < elements) arguments.fail("fewer uniform numbers than elements");
  if (rows.columns <= 0 || rows.columns > INT32_MAX || elements % rows.columns != 0 || rows.first < 0) {
    arguments.fail("rows do not fit the elements");
  }
  if (length < (elements + 7) / 8) arguments.fail("a mask is shorter than its elements");
  napi_typedarray_type type = napi_float64_array;
  void* const probabilities = lists.array(13, &given, &type);
  Sparsity sparsity{};
  parts(arguments, inputs, nullptr, 0, napi_uint8_array, probabilities, given, type, &sparsity);
  if (!arguments.ok()) return nullptr;
  return number_value(env, static_cast<double>(ranked_mask(inputs.vectors, rows, mask, probabilities, threads)));
}

// (base, baseDtype, models, dtypes, masks, probabilities, numbers, settings, wide, count, output, outputDtype, figures,
//  threads)
napi_value MixTaskVectors(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  Lists lists(env, info);
  Inputs inputs;
  many_models(arguments, lists, inputs, arguments.integer(8) != 0, arguments.integer(9));
  int64_t numbers_length, settings_length, output_length, figures_length;
  const double* const numbers = arguments.doubles(6, &numbers_length);
  const double* const scalars = arguments.doubles(7, &settings_length);
  uint8_t* const output = arguments.bytes(10, &output_length);
  const int64_t output_type = arguments.integer(11);
  double* const figures = arguments.doubles(12, &figures_length);
  const int threads = static_cast<int>(arguments.integer(13));
  if (!arguments.ok()) return nullptr;
  const int64_t count = inputs.vectors.count;
  if (numbers_length < 7 * count || settings_length < 7 || figures_length < 2 * count + 2) {
    arguments.fail("an array is too short");
  }
  stored(arguments, output, output_length, output_type, inputs.vectors.elements);
  std::vector<MixedModel> models(static_cast<size_t>(count));
  for (uint32_t j = 0; arguments.ok() && j < count; j++) {
    const double* const own = numbers + 7 * j;
    MixedModel& model = models[j];
    model = {own[0], own[1], own[2], {{own[3], own[4]}, {own[5], own[6]}, nullptr, nullptr}};
    int64_t masked, given;
    napi_typedarray_type mask_type = napi_uint8_array, type = napi_float64_array;
    const void* const mask = lists.item(4, j, &masked, &mask_type);
    const void* const probabilities = lists.item(5, j, &given, &type);
    parts(arguments, inputs, mask, masked, mask_type, probabilities, given, type, &model.sparsity);
  }
  if (!arguments.ok()) return nullptr;
  const MixSettings settings{static_cast<Consensus>(static_cast<int>(scalars[0])),
                             scalars[1] != 0,
                             scalars[2],
                             scalars[3],
                             scalars[4],
                             scalars[5],
                             scalars[6] != 0};
  mix_task_vectors(inputs.vectors, models.data(), settings, {output, static_cast<DType>(output_type)}, figures, threads);
  return nullptr;
}

// Arguments 0 to 5 of the functions over several models: base, baseDtype, models, dtypes, wide, count.
void vectors_of(Arguments& arguments, Lists& lists, Inputs& inputs) {
  many_models(arguments, lists, inputs, arguments.integer(4) != 0, arguments.integer(5));
  if (arguments.ok() && inputs.vectors.base == nullptr) arguments.fail("expected a base");
}

StoredOutput output_of(Arguments& arguments, size_t index, int64_t elements) {
  int64_t length;
  uint8_t* const bytes = arguments.bytes(index, &length);
  const int64_t type = arguments.integer(index + 1);
  if (arguments.ok()) stored(arguments, bytes, length, type, elements);
  return {bytes, static_cast<DType>(type)};
}

// (..., share, result, threads)
napi_value VarianceCutOf(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  Lists lists(env, info);
  Inputs inputs;
  vectors_of(arguments, lists, inputs);
  int64_t length;
  const double share = arguments.number(6);
  double* const result = arguments.doubles(7, &length);
  const int threads = static_cast<int>(arguments.integer(8));
  if (arguments.ok() && (length < 3 + inputs.vectors.count || !(share <= 1))) arguments.fail("an array is too short");
  if (!arguments.ok()) return nullptr;
  const VarianceCut found = variance_cut(inputs.vectors, share, result + 3, threads);
  result[0] = found.cut.magnitude;
  result[1] = found.cut.end;
  result[2] = found.selected;
  return nullptr;
}

// (..., magnitude, end, mask, squares, threads)
napi_value VarianceMask(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  Lists lists(env, info);
  Inputs inputs;
  vectors_of(arguments, lists, inputs);
  int64_t length, squares_length;
  const MagnitudeCut cut{arguments.number(6), arguments.number(7)};
  uint8_t* const mask = arguments.bytes(8, &length);
  double* const squares = arguments.doubles(9, &squares_length);
  const int threads = static_cast<int>(arguments.integer(10));
  if (arguments.ok() && (length < (inputs.vectors.elements + 7) / 8 || squares_length < inputs.vectors.count)) {
    arguments.fail("an array is too short");
  }
  if (!arguments.ok()) return nullptr;
  variance_mask(inputs.vectors, cut, mask, squares, threads);
  return nullptr;
}

// (..., epsilon, figures, threads)
napi_value ActiveCounts(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  Lists lists(env, info);
  Inputs inputs;
  vectors_of(arguments, lists, inputs);
  int64_t length;
  const double epsilon = arguments.number(6);
  double* const figures = arguments.doubles(7, &length);
  const int threads = static_cast<int>(arguments.integer(8));
  if (arguments.ok() && length < 3 * inputs.vectors.count) arguments.fail("an array is too short");
  if (!arguments.ok()) return nullptr;
  active_counts(inputs.vectors, epsilon, figures, threads);
  return nullptr;
}

// (..., epsilon, factors, output, outputDtype, threads)
napi_value MixActive(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  Lists lists(env, info);
  Inputs inputs;
  vectors_of(arguments, lists, inputs);
  int64_t length;
  const double epsilon = arguments.number(6);
  const double* const factors = arguments.doubles(7, &length);
  const StoredOutput output = output_of(arguments, 8, inputs.vectors.elements);
  const int threads = static_cast<int>(arguments.integer(10));
  if (arguments.ok() && length < inputs.vectors.count) arguments.fail("fewer factors than models");
  if (!arguments.ok()) return nullptr;
  mix_active(inputs.vectors, epsilon, factors, output, threads);
  return nullptr;
}

// (..., squares, floor, output, outputDtype, nans, threads)
napi_value MixByVariation(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 12);
  Lists lists(env, info);
  Inputs inputs;
  vectors_of(arguments, lists, inputs);
  int64_t length;
  const bool squares = arguments.integer(6) != 0;
  const double floor = arguments.number(7);
  const StoredOutput output = output_of(arguments, 8, inputs.vectors.elements);
  double* const nans = arguments.doubles(10, &length);
  const int threads = static_cast<int>(arguments.integer(11));
  if (arguments.ok() && length < inputs.vectors.count) arguments.fail("an array is too short");
  if (!arguments.ok()) return nullptr;
  mix_by_variation(inputs.vectors, squares, floor, output, nans, threads);
  return nullptr;
}

// (values, k, threads) -> value
napi_value SelectKth(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  Lists lists(env, info);
  const int64_t k = arguments.integer(1);
  const int threads = static_cast<int>(arguments.integer(2));
  if (!arguments.ok()) return nullptr;
  int64_t length;
  napi_typedarray_type type = napi_int8_array;
  const void* const values = lists.array(0, &length, &type);
  if (type != napi_float32_array && type != napi_float64_array) arguments.fail("expected floats or doubles");
  if (k < 0 || k >= length) arguments.fail("a rank outside the values");
  if (!arguments.ok()) return nullptr;
  return number_value(env, type == napi_float32_array
                               ? select_kth(static_cast<const float*>(values), length, k, threads)
                               : select_kth(static_cast<const double*>(values), length, k, threads));
}

}  // namespace

void register_merge_sparse(napi_env env, napi_value exports) {
  set_function(env, exports, "taskVectorCuts", TaskVectorCuts);
  set_function(env, exports, "measureTaskVector", MeasureTaskVector);
  set_function(env, exports, "bernoulliMask", BernoulliMask);
  set_function(env, exports, "rankedMask", RankedMask);
  set_function(env, exports, "mixTaskVectors", MixTaskVectors);
  set_function(env, exports, "varianceCut", VarianceCutOf);
  set_function(env, exports, "varianceMask", VarianceMask);
  set_function(env, exports, "activeCounts", ActiveCounts);
  set_function(env, exports, "mixActive", MixActive);
  set_function(env, exports, "mixByVariation", MixByVariation);
  set_function(env, exports, "selectKth", SelectKth);
}

}  // namespace surprisal
