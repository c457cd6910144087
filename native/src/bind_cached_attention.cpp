// cachedAttention of the addon.
#include "arguments.hpp"
#include "cached_attention.hpp"

namespace surprisal {
namespace {

// (queries, keys, values, keyCache, valueCache, out, starts, count, heads, kvHeads, headDim, capacity, window, scale,
//  softcap, threads)
napi_value CachedAttention(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 16);
  if (!arguments.ok()) return nullptr;
  int64_t lengths[7];
  AttentionRequest request{};
  request.queries = arguments.floats(0, &lengths[0]);
  request.keys = arguments.floats(1, &lengths[1]);
  request.values = arguments.floats(2, &lengths[2]);
  request.key_cache = arguments.floats(3, &lengths[3]);
  request.value_cache = arguments.floats(4, &lengths[4]);
  request.out = arguments.floats(5, &lengths[5]);
  request.starts = arguments.integers(6, &lengths[6]);
  request.rows = lengths[6];
  request.count = arguments.integer(7);
  request.heads = arguments.integer(8);
  request.kv_heads = arguments.integer(9);
  request.head_dim = arguments.integer(10);
  request.capacity = arguments.integer(11);
  request.window = arguments.integer(12);
  request.scale = static_cast<float>(arguments.number(13));
  request.softcap = static_cast<float>(arguments.number(14));
  const int threads = static_cast<int>(arguments.integer(15));
  if (!arguments.ok()) return nullptr;
  bool fits = request.count >= 1 && request.kv_heads >= 1 && request.heads >= 1 && request.head_dim >= 8 &&
              request.heads % request.kv_heads == 0 && request.head_dim % 8 == 0;
  if (fits) {
    const int64_t fresh = request.rows * request.count * request.head_dim;
    const int64_t kept = request.rows * request.kv_heads * request.capacity * request.head_dim;
    fits = lengths[0] >= fresh * request.heads && lengths[5] >= fresh * request.heads &&
           lengths[1] >= fresh * request.kv_heads && lengths[2] >= fresh * request.kv_heads && lengths[3] >= kept &&
           lengths[4] >= kept;
    for (int64_t row = 0; row < request.rows; row++) {
      fits = fits && request.starts[row] >= 0 && request.starts[row] + request.count <= request.capacity;
    }
  }
  if (!fits) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  cached_attention(request, threads);
  return nullptr;
}

}  // namespace

void register_cached_attention(napi_env env, napi_value exports) {
  set_function(env, exports, "cachedAttention", CachedAttention);
}

}  // namespace surprisal
