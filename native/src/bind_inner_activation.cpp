// Node-API wrapper of inner activations. Arguments were checked by src/kernels/inner-activation.ts; what is checked
// again is what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "inner_activation.hpp"

namespace surprisal {
namespace {

template <class T>
void activate(Arguments& arguments, napi_typedarray_type type) {
  int64_t gates, count;
  const int64_t kind = arguments.integer(1);
  const T* gate = arguments.array<T>(2, type, &gates);
  T* inner = arguments.array<T>(3, type, &count);
  const int threads = static_cast<int>(arguments.integer(4));
  if (!arguments.ok()) return;
  if (kind < 0 || kind >= static_cast<int64_t>(InnerActivation::kCount)) {
    arguments.fail("unknown activation");
  } else if (gate != nullptr && gates != count) {
    arguments.fail("gate and inner activations differ in length");
  } else {
    activate_inner(static_cast<InnerActivation>(kind), gate, inner, count, threads);
  }
}

// (double, activation, gate | null, inner, threads)
napi_value ActivateInner(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 5);
  if (arguments.integer(0) != 0) activate<double>(arguments, napi_float64_array);
  else activate<float>(arguments, napi_float32_array);
  return nullptr;
}

}  // namespace

void register_inner_activation(napi_env env, napi_value exports) {
  set_function(env, exports, "activateInner", ActivateInner);
}

}  // namespace surprisal
