// selfAttentionForward and selfAttentionBackward of the addon.
#include "arguments.hpp"
#include "self_attention.hpp"

namespace surprisal {
namespace {

constexpr int64_t kSettings = 9;

// Reads the arguments that both have: queries, keys, values, cosines, sines, mixed, sums, settings.
bool read_common(Arguments& arguments, SelfAttention* r) {
  int64_t lengths[7];
  int64_t settings_length;
  r->queries = arguments.floats(0, &lengths[0]);
  r->keys = arguments.floats(1, &lengths[1]);
  r->values = arguments.floats(2, &lengths[2]);
  r->cosines = arguments.floats(3, &lengths[3]);
  r->sines = arguments.floats(4, &lengths[4]);
  r->mixed = arguments.floats(5, &lengths[5]);
  r->sums = arguments.floats(6, &lengths[6]);
  const double* settings = arguments.doubles(7, &settings_length);
  if (!arguments.ok()) return false;
  if (settings_length != kSettings) {
    arguments.fail("wrong number of settings");
    return false;
  }
  r->batch = static_cast<int64_t>(settings[0]);
  r->length = static_cast<int64_t>(settings[1]);
  r->heads = static_cast<int64_t>(settings[2]);
  r->kv_heads = static_cast<int64_t>(settings[3]);
  r->head_dim = static_cast<int64_t>(settings[4]);
  r->rope_dims = static_cast<int64_t>(settings[5]);
  r->window = static_cast<int64_t>(settings[6]);
  r->scale = static_cast<float>(settings[7]);
  r->softcap = static_cast<float>(settings[8]);
  const int64_t rows = r->batch * r->length;
  const int64_t tables = r->rope_dims / 2 * r->length;
  const bool fits = r->batch >= 0 && r->length >= 1 && r->kv_heads >= 1 && r->heads % r->kv_heads == 0 &&
                    r->head_dim >= 1 && r->rope_dims <= r->head_dim && lengths[0] >= rows * r->heads * r->head_dim &&
                    lengths[1] >= rows * r->kv_heads * r->head_dim && lengths[2] >= rows * r->kv_heads * r->head_dim &&
                    lengths[5] >= rows * r->heads * r->head_dim && lengths[6] >= rows * r->heads &&
                    (r->cosines == nullptr ? r->rope_dims == 0 : lengths[3] >= tables && lengths[4] >= tables);
  if (!fits) arguments.fail("an array does not fit the windows");
  return fits;
}

// (queries, keys, values, cosines, sines, mixed, sums, settings, threads)
napi_value Forward(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  SelfAttention request{};
  if (!arguments.ok() || !read_common(arguments, &request)) return nullptr;
  const int threads = static_cast<int>(arguments.integer(8));
  if (arguments.ok()) self_attention_forward(request, threads);
  return nullptr;
}

// (the same, mixedGradient, queriesGradient, keysGradient, valuesGradient, threads)
napi_value Backward(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 13);
  SelfAttention request{};
  if (!arguments.ok() || !read_common(arguments, &request)) return nullptr;
  int64_t lengths[4];
  request.mixed_gradient = arguments.floats(8, &lengths[0]);
  request.queries_gradient = arguments.floats(9, &lengths[1]);
  request.keys_gradient = arguments.floats(10, &lengths[2]);
  request.values_gradient = arguments.floats(11, &lengths[3]);
  const int threads = static_cast<int>(arguments.integer(12));
  const int64_t own = request.batch * request.length * request.heads * request.head_dim;
  const int64_t shared = request.batch * request.length * request.kv_heads * request.head_dim;
  if (arguments.ok() && (lengths[0] < own || lengths[1] < own || lengths[2] < shared || lengths[3] < shared)) {
    arguments.fail("a gradient does not fit the windows");
  }
  if (arguments.ok()) self_attention_backward(request, threads);
  return nullptr;
}

}  // namespace

void register_self_attention(napi_env env, napi_value exports) {
  set_function(env, exports, "selfAttentionForward", Forward);
  set_function(env, exports, "selfAttentionBackward", Backward);
}

}  // namespace surprisal
