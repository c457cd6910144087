// Node-API wrappers of order statistics. Arguments were checked by src/kernels/rank-selection.ts; what is checked again is
// what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "rank_selection.hpp"

namespace surprisal {
namespace {

// Arguments 0 to 2: values, mask or null, prefixes.
MaskedValues masked_values(Arguments& arguments, KeyPrefixes* prefixes) {
  MaskedValues input{};
  int64_t mask;
  input.values = arguments.doubles(0, &input.count);
  input.mask = arguments.bytes(1, &mask);
  prefixes->values = arguments.doubles(2, &prefixes->count);
  if (input.mask != nullptr && mask != input.count) arguments.fail("a mask differs in length from its values");
  return input;
}

// (values, mask, prefixes, digit, counts) -> first NaN or -1
napi_value CountDigits(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  if (!arguments.ok()) return nullptr;
  KeyPrefixes prefixes{};
  int64_t length;
  const MaskedValues input = masked_values(arguments, &prefixes);
  const int64_t digit = arguments.integer(3);
  double* counts = arguments.doubles(4, &length);
  if (digit < 0 || digit >= kDigits) arguments.fail("no such digit");
  if (length < kDigitBins * (digit == 0 ? 1 : prefixes.count)) arguments.fail("the counts are too short");
  if (!arguments.ok()) return nullptr;
  return number_value(env, static_cast<double>(count_digits(input, prefixes, static_cast<int>(digit), counts)));
}

// (values, mask, prefixes, digits, into, at) -> the position behind the last
napi_value GatherPrefixes(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (!arguments.ok()) return nullptr;
  KeyPrefixes prefixes{};
  int64_t room;
  const MaskedValues input = masked_values(arguments, &prefixes);
  const int64_t digits = arguments.integer(3);
  double* into = arguments.doubles(4, &room);
  const int64_t at = arguments.integer(5);
  if (digits < 0 || digits >= kDigits || at < 0) arguments.fail("no such digit or position");
  if (!arguments.ok()) return nullptr;
  const int64_t next = gather_prefixes(input, prefixes, static_cast<int>(digits), into, room, at);
  return number_value(env, static_cast<double>(next));
}

// (values, ranks, found, threads)
napi_value SelectRanks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  if (!arguments.ok()) return nullptr;
  int64_t count, rank_count, length;
  const double* values = arguments.doubles(0, &count);
  const double* ranks = arguments.doubles(1, &rank_count);
  double* found = arguments.doubles(2, &length);
  const int threads = static_cast<int>(arguments.integer(3));
  if (length != 3 * rank_count) arguments.fail("the results do not fit the ranks");
  for (int64_t r = 0; arguments.ok() && r < rank_count; r++) {
    const bool rising = r == 0 || ranks[r] >= ranks[r - 1];
    if (!(rising && ranks[r] >= 0 && ranks[r] < static_cast<double>(count))) arguments.fail("no such rank");
  }
  if (!arguments.ok()) return nullptr;
  select_ranks(values, count, ranks, rank_count, found, threads);
  return nullptr;
}

}  // namespace

void register_rank_selection(napi_env env, napi_value exports) {
  set_function(env, exports, "countDigits", CountDigits);
  set_function(env, exports, "gatherPrefixes", GatherPrefixes);
  set_function(env, exports, "selectRanks", SelectRanks);
}

}  // namespace surprisal
