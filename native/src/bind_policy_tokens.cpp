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

// (columns 0..5, offsets, clipLow, clipHigh, figures, responseAdvantage, heldLogProb, heldEntropy, heldAdvantage, ids, heldIds,
// at, threads) -> the position behind the last held token, -1 where they do not fit
napi_value ResponseFigures(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 18);
  if (!arguments.ok()) return nullptr;
  const TokenColumns columns = token_columns(arguments);
  int64_t records, length, advantages, ids, room;
  const int32_t* offsets = response_offsets(arguments, 6, columns.tokens, &records);
  const double clip_low = arguments.number(7);
  const double clip_high = arguments.number(8);
  double* figures = arguments.doubles(9, &length);
  const double* response_advantage = arguments.doubles(10, &advantages);
  HeldColumns held{};
  held.room = INT64_MAX;
  double** into[3] = {&held.log_prob, &held.entropy, &held.advantage};
  for (size_t c = 0; c < 3; c++) {
    *into[c] = arguments.doubles(11 + c, &room);
    if (*into[c] != nullptr && room < held.room) held.room = room;
  }
  held.ids = arguments.integers(14, &ids);
  held.held_ids = arguments.integers(15, &room);
  if (held.held_ids != nullptr && room < held.room) held.room = room;
  held.at = arguments.integer(16);
  const int threads = static_cast<int>(arguments.integer(17));
  if (length != records * kResponseFields) arguments.fail("the figures do not fit the responses");
  if (response_advantage != nullptr && advantages != records) arguments.fail("the advantages do not fit the responses");
  if (held.held_ids != nullptr && ids != columns.tokens) arguments.fail("the token ids do not fit the mask");
  if (held.at < 0) arguments.fail("no such position");
  if (!arguments.ok()) return nullptr;
  const int64_t next = response_figures(columns, response_advantage, offsets, records, clip_low, clip_high, figures,
                                        held, threads);
  return number_value(env, static_cast<double>(next));
}

// (logProb, responseAdvantage, offsets, meanLogProb, meanAdvantage, summands, threads) -> how many are positive
napi_value ResponseCovariances(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, advantages, records, length;
  const double* log_prob = arguments.doubles(0, &tokens);
  const double* advantage = arguments.doubles(1, &advantages);
  const int32_t* offsets = response_offsets(arguments, 2, tokens, &records);
  const double mean_log_prob = arguments.number(3);
  const double mean_advantage = arguments.number(4);
  double* summands = arguments.doubles(5, &length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (advantages != records || length != tokens) arguments.fail("the arrays do not fit each other");
  if (!arguments.ok()) return nullptr;
  const int64_t positive = response_covariances(log_prob, advantage, offsets, records, mean_log_prob, mean_advantage,
                                                summands, threads);
  return number_value(env, static_cast<double>(positive));
}

// (values, mask or null, least, most, threads) -> whether all that counts lies between
napi_value SettleValues(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  if (!arguments.ok()) return nullptr;
  int64_t count, mask_length;
  double* values = arguments.doubles(0, &count);
  const uint8_t* mask = arguments.bytes(1, &mask_length);
  const double least = arguments.number(2);
  const double most = arguments.number(3);
  const int threads = static_cast<int>(arguments.integer(4));
  if (mask != nullptr && mask_length != count) arguments.fail("a mask differs in length from its values");
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  napi_get_boolean(env, settle_values(values, mask, count, least, most, threads), &result);
  return result;
}

// (ids, mask or null) -> whether all that count are at least 0
napi_value SettleIds(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  if (!arguments.ok()) return nullptr;
  int64_t count, mask_length;
  int32_t* ids = arguments.integers(0, &count);
  const uint8_t* mask = arguments.bytes(1, &mask_length);
  if (mask != nullptr && mask_length != count) arguments.fail("a mask differs in length from its values");
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  napi_get_boolean(env, settle_ids(ids, mask, count), &result);
  return result;
}

// (mask, offsets, counts) -> whether all entries are 0 or 1
napi_value CountMask(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, records, length;
  const uint8_t* mask = arguments.bytes(0, &tokens);
  const int32_t* offsets = response_offsets(arguments, 1, tokens, &records);
  int32_t* counts = arguments.integers(2, &length);
  if (length != records) arguments.fail("the counts do not fit the responses");
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  napi_get_boolean(env, count_mask(mask, offsets, records, counts), &result);
  return result;
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

// (values, offsets, thresholds, sums, threads)
napi_value SumsAbove(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, records, threshold_count, length;
  const double* values = arguments.doubles(0, &tokens);
  const int32_t* offsets = response_offsets(arguments, 1, tokens, &records);
  const double* thresholds = arguments.doubles(2, &threshold_count);
  double* sums = arguments.doubles(3, &length);
  const int threads = static_cast<int>(arguments.integer(4));
  if (length != records * threshold_count) arguments.fail("the arrays do not fit each other");
  if (!arguments.ok()) return nullptr;
  sums_above(values, offsets, records, thresholds, threshold_count, sums, threads);
  return nullptr;
}

// (ids, entropy, mask or null, threshold, counts, entropies) -> whether the tables hold all ids
napi_value CountTokens(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (!arguments.ok()) return nullptr;
  int64_t tokens, entropy_length, mask_length, counts_length;
  TokenTables tables{};
  const int32_t* ids = arguments.integers(0, &tokens);
  const double* entropy = arguments.doubles(1, &entropy_length);
  const uint8_t* mask = arguments.bytes(2, &mask_length);
  const double threshold = arguments.number(3);
  tables.counts = arguments.doubles(4, &counts_length);
  tables.entropies = arguments.doubles(5, &tables.ids);
  if (entropy_length != tokens || (mask != nullptr && mask_length != tokens) || counts_length != 2 * tables.ids) {
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
  set_function(env, exports, "responseCovariances", ResponseCovariances);
  set_function(env, exports, "settleValues", SettleValues);
  set_function(env, exports, "settleIds", SettleIds);
  set_function(env, exports, "countMask", CountMask);
}

}  // namespace surprisal
