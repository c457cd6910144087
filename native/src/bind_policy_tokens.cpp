// Node-API wrappers of passes over the tokens of rollouts. Arguments were checked by src/kernels/policy-tokens.ts; what is
// checked again is what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "policy_tokens.hpp"

namespace surprisal {
namespace {

// Arguments 0 to 5: logProb, oldLogProb, referenceLogProb, entropy, advantage (each may be null), mask.
TokenColumns token_columns(Arguments& arguments) {
  TokenColumns columns{};
  columns.mask = arguments.bytes(5, &columns.tokens);
  const double** into[5] = {&columns.log_prob, &columns.old_log_prob, &columns.reference_log_prob, &columns.entropy,
                            &columns.advantage};
  for (size_t c = 0; c < 5; c++) {
    int64_t length;
    *into[c] = arguments.doubles(c, &length);
    if (*into[c] != nullptr && length != columns.tokens) arguments.fail("a column differs in length from the mask");
  }
  return columns;
}

// Offsets [records + 1] that rise from 0 or more to at most `tokens`.
const int32_t* response_offsets(Arguments& arguments, size_t index, int64_t tokens, int64_t* records) {
  int64_t length;
  const int32_t* offsets = arguments.integers(index, &length);
  *records = length - 1;
  if (length < 1 || offsets[0] < 0) arguments.fail("offsets start at 0 or more");
  for (int64_t r = 0; arguments.ok() && r < *records; r++) {
    if (offsets[r + 1] < offsets[r] || offsets[r + 1] > tokens) arguments.fail("offsets rise, and end with the tokens");
  }
  return offsets;
}

// (columns 0..5, offsets, clipLow, clipHigh, figures, threads)
napi_value ResponseFigures(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  if (!arguments.ok()) return nullptr;
  const TokenColumns columns = token_columns(arguments);
  int64_t records, length;
  const int32_t* offsets = response_offsets(arguments, 6, columns.tokens, &records);
  const double clip_low = arguments.number(7);
  const double clip_high = arguments.number(8);
  double* figures = arguments.doubles(9, &length);
  const int threads = static_cast<int>(arguments.integer(10));
  if (length != records * kResponseFields) arguments.fail("the figures do not fit the responses");
  if (!arguments.ok()) return nullptr;
  response_figures(columns, offsets, records, clip_low, clip_high, figures, threads);
  return nullptr;
}

// (columns 0..5, meanLogProb, meanAdvantage, summands, threads) -> how many are positive
napi_value CovarianceSummands(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 10);
  if (!arguments.ok()) return nullptr;
  const TokenColumns columns = token_columns(arguments);
  int64_t length;
  const double mean_log_prob = arguments.number(6);
  const double mean_advantage = arguments.number(7);
  double* summands = arguments.doubles(8, &length);
  const int threads = static_cast<int>(arguments.integer(9));
  if (columns.log_prob == nullptr || columns.advantage == nullptr || length != columns.tokens) {
    arguments.fail("a column is missing or of another length");
  }
  if (!arguments.ok()) return nullptr;
  const int64_t positive = covariance_summands(columns, mean_log_prob, mean_advantage, summands, threads);
  return number_value(env, static_cast<double>(positive));
}

// (columns 0..5, omegas, threads)
napi_value EntropyChangeSummands(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  if (!arguments.ok()) return nullptr;
  const TokenColumns columns = token_columns(arguments);
  int64_t length;
  double* omegas = arguments.doubles(6, &length);
  const int threads = static_cast<int>(arguments.integer(7));
  const bool complete = columns.log_prob != nullptr && columns.old_log_prob != nullptr && columns.entropy != nullptr &&
                        columns.advantage != nullptr;
  if (!complete || length != columns.tokens) arguments.fail("a column is missing or of another length");
  if (!arguments.ok()) return nullptr;
  entropy_change_summands(columns, omegas, threads);
  return nullptr;
}

// (values, mask, offsets, thresholds, sums, threads)
napi_value SumsAbove(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, mask_length, records, threshold_count, length;
  const double* values = arguments.doubles(0, &tokens);
  const uint8_t* mask = arguments.bytes(1, &mask_length);
  const int32_t* offsets = response_offsets(arguments, 2, tokens, &records);
  const double* thresholds = arguments.doubles(3, &threshold_count);
  double* sums = arguments.doubles(4, &length);
  const int threads = static_cast<int>(arguments.integer(5));
  if (mask_length != tokens || length != records * threshold_count) arguments.fail("the arrays do not fit each other");
  if (!arguments.ok()) return nullptr;
  sums_above(values, mask, offsets, records, thresholds, threshold_count, sums, threads);
  return nullptr;
}

// (ids, entropy, mask, threshold, all, high, entropies) -> whether the tables hold all ids
napi_value CountTokens(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, entropy_length, mask_length, high_length, entropies_length;
  TokenTables tables{};
  const int32_t* ids = arguments.integers(0, &tokens);
  const double* entropy = arguments.doubles(1, &entropy_length);
  const uint8_t* mask = arguments.bytes(2, &mask_length);
  const double threshold = arguments.number(3);
  tables.all = arguments.doubles(4, &tables.ids);
  tables.high = arguments.doubles(5, &high_length);
  tables.entropies = arguments.doubles(6, &entropies_length);
  if (entropy_length != tokens || mask_length != tokens || high_length != tables.ids || entropies_length != tables.ids) {
    arguments.fail("the arrays do not fit each other");
  }
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  napi_get_boolean(env, count_tokens(ids, entropy, mask, tokens, threshold, tables), &result);
  return result;
}

}  // namespace

void register_policy_tokens(napi_env env, napi_value exports) {
  set_function(env, exports, "responseFigures", ResponseFigures);
  set_function(env, exports, "covarianceSummands", CovarianceSummands);
  set_function(env, exports, "entropyChangeSummands", EntropyChangeSummands);
  set_function(env, exports, "sumsAbove", SumsAbove);
  set_function(env, exports, "countTokens", CountTokens);
}

}  // namespace surprisal
