// Node-API wrappers of the steps of optimisers. Arguments were checked by src/kernels/optimizer-steps.ts; what is checked
// again is what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "optimizer_steps.hpp"

namespace surprisal {
namespace {

bool is_single(napi_env env, napi_callback_info info) {
  napi_value values[kMostArguments];
  size_t count = kMostArguments;
  napi_typedarray_type type = napi_float64_array;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count == 0) return false;
  if (napi_get_typedarray_info(env, values[0], &type, nullptr, nullptr, nullptr, nullptr) != napi_ok) return false;
  return type == napi_float32_array;
}

template <class T>
T* reals(Arguments& arguments, size_t index, int64_t* length) {
  return arguments.array<T>(index, sizeof(T) == 4 ? napi_float32_array : napi_float64_array, length);
}

// Arguments 0 to 3: values, gradients, first and second moments | null.
template <class T>
OptimizerBuffers<T> buffers_of(Arguments& arguments, int64_t* count) {
  int64_t gradients, first, second;
  OptimizerBuffers<T> buffers;
  buffers.values = reals<T>(arguments, 0, count);
  buffers.gradients = reals<T>(arguments, 1, &gradients);
  buffers.first = reals<T>(arguments, 2, &first);
  buffers.second = reals<T>(arguments, 3, &second);
  if (gradients != *count || (buffers.first != nullptr && first != *count) ||
      (buffers.second != nullptr && second != *count)) {
    arguments.fail("buffers differ in length");
  }
  return buffers;
}

// Arguments 4 and 5: ends of the stretches, their factors.
DecaySegments segments_of(Arguments& arguments, int64_t count) {
  int64_t ends, factors;
  DecaySegments segments;
  segments.ends = arguments.doubles(4, &ends);
  segments.factors = arguments.doubles(5, &factors);
  segments.count = ends;
  double before = 0;
  if (ends != factors) arguments.fail("stretches and factors differ in number");
  for (int64_t s = 0; arguments.ok() && s < ends; s++) {
    if (!(segments.ends[s] >= before)) arguments.fail("a stretch ends before it begins");
    before = segments.ends[s];
  }
  if (before != static_cast<double>(count)) arguments.fail("stretches do not cover the buffers");
  return segments;
}

// (values, gradients, m, v, ends, factors, gradientScale, beta1, beta2, epsilon, stepSize, rootScale, coupled, clear,
// threads)
template <class T>
void adam(Arguments& arguments) {
  int64_t count;
  const OptimizerBuffers<T> buffers = buffers_of<T>(arguments, &count);
  const DecaySegments segments = segments_of(arguments, count);
  AdamSettings settings;
  settings.gradient_scale = arguments.number(6);
  settings.beta1 = arguments.number(7);
  settings.beta2 = arguments.number(8);
  settings.epsilon = arguments.number(9);
  settings.step_size = arguments.number(10);
  settings.root_scale = arguments.number(11);
  settings.coupled = arguments.integer(12) != 0;
  settings.clear = arguments.integer(13) != 0;
  const int threads = static_cast<int>(arguments.integer(14));
  if (count > 0 && (buffers.first == nullptr || buffers.second == nullptr)) arguments.fail("a moment is missing");
  if (arguments.ok()) adam_step(buffers, segments, settings, threads);
}

napi_value AdamStep(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 15);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) adam<float>(arguments);
  else adam<double>(arguments);
  return nullptr;
}

// (values, gradients, velocity | null, null, ends, factors, gradientScale, learningRate, momentum, nesterov, clear, threads)
template <class T>
void momentum(Arguments& arguments) {
  int64_t count;
  const OptimizerBuffers<T> buffers = buffers_of<T>(arguments, &count);
  const DecaySegments segments = segments_of(arguments, count);
  MomentumSettings settings;
  settings.gradient_scale = arguments.number(6);
  settings.learning_rate = arguments.number(7);
  settings.momentum = arguments.number(8);
  settings.nesterov = arguments.integer(9) != 0;
  settings.clear = arguments.integer(10) != 0;
  const int threads = static_cast<int>(arguments.integer(11));
  if (arguments.ok()) momentum_step(buffers, segments, settings, threads);
}

napi_value MomentumStep(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 12);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) momentum<float>(arguments);
  else momentum<double>(arguments);
  return nullptr;
}

// (values, gradients, m, null, ends, factors, gradientScale, learningRate, beta1, beta2, clear, threads)
template <class T>
void lion(Arguments& arguments) {
  int64_t count;
  const OptimizerBuffers<T> buffers = buffers_of<T>(arguments, &count);
  const DecaySegments segments = segments_of(arguments, count);
  LionSettings settings;
  settings.gradient_scale = arguments.number(6);
  settings.learning_rate = arguments.number(7);
  settings.beta1 = arguments.number(8);
  settings.beta2 = arguments.number(9);
  settings.clear = arguments.integer(10) != 0;
  const int threads = static_cast<int>(arguments.integer(11));
  if (count > 0 && buffers.first == nullptr) arguments.fail("a moment is missing");
  if (arguments.ok()) lion_step(buffers, segments, settings, threads);
}

napi_value LionStep(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 12);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) lion<float>(arguments);
  else lion<double>(arguments);
  return nullptr;
}

template <class T>
void squares(Arguments& arguments) {
  int64_t count, pieces;
  const T* x = reals<T>(arguments, 0, &count);
  double* blocks = arguments.doubles(1, &pieces);
  const int threads = static_cast<int>(arguments.integer(2));
  if (pieces != (count + kSquaresBlock - 1) / kSquaresBlock) arguments.fail("blocks do not fit a buffer");
  if (arguments.ok()) squares_of_blocks(x, count, blocks, threads);
}

// (x, blocks, threads)
napi_value SquaresOfBlocks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) squares<float>(arguments);
  else squares<double>(arguments);
  return nullptr;
}

template <class T>
void add(Arguments& arguments) {
  int64_t count, sources;
  T* target = reals<T>(arguments, 0, &count);
  const T* source = reals<T>(arguments, 1, &sources);
  const int threads = static_cast<int>(arguments.integer(2));
  if (sources != count) arguments.fail("buffers differ in length");
  if (arguments.ok()) add_into(target, source, count, threads);
}

// (target, source, threads)
napi_value AddInto(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) add<float>(arguments);
  else add<double>(arguments);
  return nullptr;
}

template <class T>
void scale(Arguments& arguments) {
  int64_t count;
  T* x = reals<T>(arguments, 0, &count);
  const double factor = arguments.number(1);
  const int threads = static_cast<int>(arguments.integer(2));
  if (arguments.ok()) scale_buffer(x, count, factor, threads);
}

// (x, factor, threads)
napi_value ScaleBuffer(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) scale<float>(arguments);
  else scale<double>(arguments);
  return nullptr;
}

}  // namespace

void register_optimizer_steps(napi_env env, napi_value exports) {
  set_function(env, exports, "adamStep", AdamStep);
  set_function(env, exports, "momentumStep", MomentumStep);
  set_function(env, exports, "lionStep", LionStep);
  set_function(env, exports, "squaresOfBlocks", SquaresOfBlocks);
  set_function(env, exports, "addInto", AddInto);
  set_function(env, exports, "scaleBuffer", ScaleBuffer);
}

}  // namespace surprisal
