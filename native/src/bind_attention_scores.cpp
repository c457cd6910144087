// attentionScoresF32 and attentionScoresF64 of the addon.
#include "arguments.hpp"
#include "attention_scores.hpp"

namespace surprisal {
namespace {

// (queries, keys, heads, keyHeads, headDim, queryCount, keyCount, queryStart, window, causal, scale, softcap,
//  temperatures or null, moments, sums, threads)
template <class T, napi_typedarray_type kType, void (*kScores)(const ScoreRequest&, double*, int)>
napi_value AttentionScores(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 16);
  if (!arguments.ok()) return nullptr;
  int64_t query_length, key_length, temperature_count, sum_count;
  ScoreRequest request{};
  request.queries = arguments.array<T>(0, kType, &query_length);
  request.keys = arguments.array<T>(1, kType, &key_length);
  request.heads = arguments.integer(2);
  request.key_heads = arguments.integer(3);
  request.head_dim = arguments.integer(4);
  request.query_count = arguments.integer(5);
  request.key_count = arguments.integer(6);
  request.query_start = arguments.integer(7);
  request.window = arguments.integer(8);
  request.causal = arguments.integer(9) != 0;
  request.scale = arguments.number(10);
  request.softcap = arguments.number(11);
  request.temperatures = arguments.doubles(12, &temperature_count);
  request.moments = arguments.integer(13) != 0;
  double* sums = arguments.doubles(14, &sum_count);
  const int threads = static_cast<int>(arguments.integer(15));
  if (!arguments.ok()) return nullptr;
  const int64_t rows = request.heads * request.query_count;
  if (request.heads < 1 || request.key_heads < 1 || request.heads % request.key_heads != 0 || request.head_dim < 1 ||
      request.query_count < 0 || request.key_count < 0 || request.query_start < 0 ||
      query_length < rows * request.head_dim ||
      key_length < request.key_count * request.key_heads * request.head_dim || sum_count < rows * kScoreSums ||
      (request.temperatures != nullptr && temperature_count < rows)) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  kScores(request, sums, threads);
  return nullptr;
}

}  // namespace

void register_attention_scores(napi_env env, napi_value exports) {
  set_function(env, exports, "attentionScoresF32",
               AttentionScores<float, napi_float32_array, attention_scores_f32>);
  set_function(env, exports, "attentionScoresF64",
               AttentionScores<double, napi_float64_array, attention_scores_f64>);
}

}  // namespace surprisal
