// Node-API wrapper of token filters. Arguments were checked by src/kernels/token-filter.ts; what is checked again is what
// would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "token_filter.hpp"

namespace surprisal {
namespace {

template <class T>
double filter(Arguments& arguments, napi_typedarray_type type) {
  int64_t logits, steps, values, uniforms, tokens, figures, kept;
  FilterBatch<T> batch;
  batch.logits = arguments.array<T>(1, type, &logits);
  batch.rows = arguments.integer(2);
  batch.vocabulary = arguments.integer(3);
  batch.methods = arguments.integers(4, &steps);
  batch.steps = steps;
  batch.values = arguments.doubles(5, &values);
  batch.uniforms = arguments.doubles(6, &uniforms);
  batch.greedy = arguments.integer(7) != 0;
  batch.tokens = arguments.integers(8, &tokens);
  batch.figures = arguments.doubles(9, &figures);
  batch.kept = arguments.integers(10, &kept);
  const int threads = static_cast<int>(arguments.integer(11));
  if (!arguments.ok()) return 0;
  const int64_t one = steps * kFilterValues;
  batch.own_values = values != one;
  if (batch.rows < 0 || batch.vocabulary < 0 || logits < batch.rows * batch.vocabulary) {
    arguments.fail("the rows are longer than their array");
  } else if (steps > kMostFilterSteps || (batch.own_values && values != batch.rows * one)) {
    arguments.fail("the values do not fit the steps");
  } else if ((batch.uniforms != nullptr && uniforms != batch.rows) || tokens != batch.rows ||
             figures != batch.rows * kFilterFigures ||
             (batch.kept != nullptr && kept != batch.rows * batch.vocabulary)) {
    arguments.fail("an array does not fit the rows");
  }
  for (int64_t s = 0; arguments.ok() && s < steps; s++) {
    if (batch.methods[s] < 0 || batch.methods[s] >= static_cast<int32_t>(FilterMethod::kCount)) {
      arguments.fail("unknown filter");
    }
  }
  return arguments.ok() ? static_cast<double>(filter_tokens(batch, threads)) : 0;
}

// (double, logits, rows, vocabulary, methods, values, uniforms | null, greedy, tokens, figures, kept | null, threads) ->
// first row that holds NaN, +inf or nothing finite, or -1
napi_value FilterTokens(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 12);
  const bool wide = arguments.integer(0) != 0;
  const double bad =
      wide ? filter<double>(arguments, napi_float64_array) : filter<float>(arguments, napi_float32_array);
  return arguments.ok() ? number_value(env, bad) : nullptr;
}

}  // namespace

void register_token_filter(napi_env env, napi_value exports) {
  set_function(env, exports, "filterTokens", FilterTokens);
}

}  // namespace surprisal
