// The Node-API binding: unpacks arguments, calls the kernels. Arguments were checked by src/kernels/*.ts; what is
// checked again here is what would read or write outside a typed array.
#include <dlfcn.h>
#include <node_api.h>
#include <unistd.h>

#include <cstring>

#include "arguments.hpp"
#include "dtypes.hpp"
#include "ggml.hpp"
#include "memory.hpp"
#include "processor.hpp"
#include "row_accumulator.hpp"

namespace surprisal {
void register_attention_scores(napi_env env, napi_value exports);
void register_cached_attention(napi_env env, napi_value exports);
void register_ggml_encode(napi_env env, napi_value exports);
void register_kernel_tiles(napi_env env, napi_value exports);
void register_column_information(napi_env env, napi_value exports);
void register_neighbours(napi_env env, napi_value exports);
void register_linalg(napi_env env, napi_value exports);
void register_hadamard(napi_env env, napi_value exports);
void register_error_feedback(napi_env env, napi_value exports);
void register_pyramid_index(napi_env env, napi_value exports);
void register_pulse_search(napi_env env, napi_value exports);
void register_linear_assignment(napi_env env, napi_value exports);
void register_panel_operators(napi_env env, napi_value exports);
void register_permuted_sums(napi_env env, napi_value exports);
void register_inner_activation(napi_env env, napi_value exports);
void register_token_filter(napi_env env, napi_value exports);
void register_loss_rows(napi_env env, napi_value exports);
void register_optimizer_steps(napi_env env, napi_value exports);
void register_plackett_luce(napi_env env, napi_value exports);
void register_self_attention(napi_env env, napi_value exports);
void register_onnx_runtime(napi_env env, napi_value exports);
void register_merge_sparse(napi_env env, napi_value exports);
void register_merge_dense(napi_env env, napi_value exports);
void register_rank_selection(napi_env env, napi_value exports);
void register_policy_tokens(napi_env env, napi_value exports);
void register_json_columns(napi_env env, napi_value exports);
}  // namespace surprisal

namespace {

using namespace surprisal;

// Raised when the functions or their arguments change, so that an addon of another version is refused.
constexpr int kInterfaceVersion = 9;

// The first seven arguments of both functions over a block: bytes, format, rows, columns, rowStride, columnOffset,
// rowOffset.
RowBlock row_block(Arguments& arguments) {
  int64_t length;
  RowBlock block;
  block.data = arguments.bytes(0, &length);
  const int64_t format = arguments.integer(1);
  block.rows = arguments.integer(2);
  block.columns = arguments.integer(3);
  block.row_stride = arguments.integer(4);
  block.column_offset = arguments.integer(5);
  block.row_offset = arguments.integer(6);
  if (format < 0 || format > 3) arguments.fail("unknown format");
  block.format = static_cast<Format>(format);
  const int64_t width = format == 0 ? 8 : format == 1 ? 4 : 2;
  const bool positive = block.rows >= 0 && block.columns >= 0 && block.row_stride >= block.columns &&
                        block.column_offset >= 0 && block.row_offset >= 0;
  if (!positive) arguments.fail("a size is negative or the stride is shorter than a row");
  if (block.rows > 0 && ((block.rows - 1) * block.row_stride + block.columns) * width > length) {
    arguments.fail("the block is longer than its array");
  }
  return block;
}

// (bytes, format, rows, columns, rowStride, columnOffset, rowOffset, accumulatorRows, fields, topValues, topColumns,
//  top, full, orders, targets, targetLogits, threads) -> first bad row or -1
napi_value AccumulateRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 17);
  if (!arguments.ok()) return nullptr;
  const RowBlock block = row_block(arguments);
  RowAccumulator into{};
  int64_t fields, top_values, top_columns, orders, targets, target_logits;
  into.rows = arguments.integer(7);
  into.fields = arguments.doubles(8, &fields);
  into.top_values = arguments.doubles(9, &top_values);
  into.top_columns = arguments.integers(10, &top_columns);
  into.request.top = static_cast<int>(arguments.integer(11));
  into.request.full = arguments.integer(12) != 0;
  const double* order_values = arguments.doubles(13, &orders);
  into.targets = arguments.integers(14, &targets);
  into.target_logits = arguments.doubles(15, &target_logits);
  const int threads = static_cast<int>(arguments.integer(16));
  if (!arguments.ok()) return nullptr;
  if (orders > kMostOrders || into.request.top < 0) arguments.fail("too many orders or largest values");
  if (block.row_offset + block.rows > into.rows || fields != into.rows * (kPowers + orders) ||
      top_values != into.rows * into.request.top || top_columns != top_values ||
      (into.targets != nullptr && targets != into.rows) ||
      (into.target_logits != nullptr && target_logits != into.rows)) {
    arguments.fail("an array does not fit the accumulator");
  }
  if (!arguments.ok()) return nullptr;
  into.request.order_count = static_cast<int>(orders);
  for (int64_t k = 0; k < orders; k++) into.request.orders[k] = order_values[k];
  return number_value(env, static_cast<double>(accumulate_rows(block, into, threads)));
}

// (bytes, format, rows, columns, rowStride, columnOffset, rowOffset, wanted, max, logSumExp, entropy, varentropy,
//  support, threads)
napi_value AccumulateSecond(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  if (!arguments.ok()) return nullptr;
  const RowBlock block = row_block(arguments);
  int64_t lengths[6];
  const uint8_t* wanted = arguments.bytes(7, &lengths[0]);
  const double* max = arguments.doubles(8, &lengths[1]);
  const double* log_sum_exp = arguments.doubles(9, &lengths[2]);
  const double* entropy = arguments.doubles(10, &lengths[3]);
  double* varentropy = arguments.doubles(11, &lengths[4]);
  double* support = arguments.doubles(12, &lengths[5]);
  const int threads = static_cast<int>(arguments.integer(13));
  for (const int64_t length : lengths) {
    if (length < block.row_offset + block.rows) arguments.fail("an array is shorter than the rows");
  }
  if (!arguments.ok()) return nullptr;
  accumulate_second(block, wanted, max, log_sum_exp, entropy, varentropy, support, threads);
  return nullptr;
}

bool dtype_argument(Arguments& arguments, size_t index, DType* dtype) {
  const int64_t code = arguments.integer(index);
  if (code < 0 || code > static_cast<int64_t>(DType::Bool)) arguments.fail("unknown dtype");
  *dtype = static_cast<DType>(code);
  return arguments.ok();
}

// (source bytes, dtype, Float32Array, threads)
napi_value WidenToF32(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  int64_t length, count;
  DType dtype;
  if (!arguments.ok() || !dtype_argument(arguments, 1, &dtype)) return nullptr;
  const uint8_t* source = arguments.bytes(0, &length);
  float* target = arguments.floats(2, &count);
  const int threads = static_cast<int>(arguments.integer(3));
  if (length != count * dtype_bytes(dtype)) arguments.fail("source and target differ in length");
  if (!arguments.ok()) return nullptr;
  widen_to_f32(source, dtype, count, target, threads);
  return nullptr;
}

// (source bytes, dtype, Float64Array, threads)
napi_value WidenToF64(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  int64_t length, count;
  DType dtype;
  if (!arguments.ok() || !dtype_argument(arguments, 1, &dtype)) return nullptr;
  const uint8_t* source = arguments.bytes(0, &length);
  double* target = arguments.doubles(2, &count);
  const int threads = static_cast<int>(arguments.integer(3));
  if (length != count * dtype_bytes(dtype)) arguments.fail("source and target differ in length");
  if (!arguments.ok()) return nullptr;
  widen_to_f64(source, dtype, count, target, threads);
  return nullptr;
}

// (Float32Array, dtype, target bytes, threads)
napi_value NarrowFromF32(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  int64_t length, count;
  DType dtype;
  if (!arguments.ok() || !dtype_argument(arguments, 1, &dtype)) return nullptr;
  const float* source = arguments.floats(0, &count);
  uint8_t* target = arguments.bytes(2, &length);
  const int threads = static_cast<int>(arguments.integer(3));
  if (length != count * dtype_bytes(dtype)) arguments.fail("source and target differ in length");
  if (!arguments.ok()) return nullptr;
  if (!narrow_from_f32(source, dtype, count, target, threads)) arguments.fail("no narrowing to this dtype");
  return nullptr;
}

// (source bytes, type, Float32Array, threads)
napi_value DequantizeGgml(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  if (!arguments.ok()) return nullptr;
  int64_t length, count;
  const uint8_t* source = arguments.bytes(0, &length);
  const int64_t code = arguments.integer(1);
  float* target = arguments.floats(2, &count);
  const int threads = static_cast<int>(arguments.integer(3));
  if (code < 0 || code >= kGgmlTypes) arguments.fail("unknown block type");
  if (!arguments.ok()) return nullptr;
  const GgmlType type = static_cast<GgmlType>(code);
  const GgmlLayout layout = ggml_layout(type);
  const int64_t blocks = length / layout.block_bytes;
  if (blocks * layout.block_bytes != length || blocks * layout.block_elements != count) {
    arguments.fail("source and target differ in length");
    return nullptr;
  }
  dequantize_ggml(source, type, blocks, target, threads);
  return nullptr;
}

// (bytes, threads) -> a checksum
napi_value ReadMemory(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  if (!arguments.ok()) return nullptr;
  int64_t length;
  const uint8_t* data = arguments.bytes(0, &length);
  const int threads = static_cast<int>(arguments.integer(1));
  if (!arguments.ok()) return nullptr;
  return number_value(env, static_cast<double>(read_memory(data, length, threads)));
}

// (bytes, modulus): the address of the first byte modulo `modulus`.
napi_value AddressModulo(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 2);
  int64_t length;
  const uint8_t* data = arguments.bytes(0, &length);
  const int64_t modulus = arguments.integer(1);
  if (arguments.ok() && modulus < 1) arguments.fail("a modulus of at least 1 is needed");
  if (!arguments.ok()) return nullptr;
  return number_value(env, static_cast<double>(reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(modulus)));
}

napi_value TrimMemory(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_get_boolean(env, trim_memory(), &result);
  return result;
}

// (code): ends the process at once, with no handlers and no waiting for threads.
napi_value QuickExit(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const int code = static_cast<int>(arguments.integer(0));
  if (!arguments.ok()) return nullptr;
  _exit(code);
}

// () -> name of the SIMD level in use
napi_value SimdName(napi_env env, napi_callback_info) { return string_value(env, simd_name()); }

// (level): 0 baseline, 1 avx2, 2 avx512; never above what the processor has
napi_value LimitSimd(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 1);
  const int64_t level = arguments.integer(0);
  if (level < 0 || level > 2) arguments.fail("unknown SIMD level");
  if (!arguments.ok()) return nullptr;
  limit_simd_level(static_cast<Simd>(level));
  return nullptr;
}

// The pool's threads run this library's code until the process ends, but Node unloads an addon with the last worker
// that used it: hold the library open.
void stay_loaded() {
#if defined(RTLD_NODELETE)
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&stay_loaded), &self) != 0 && self.dli_fname != nullptr) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  }
#endif
}

}  // namespace

NAPI_MODULE_INIT() {
  stay_loaded();
  register_attention_scores(env, exports);
  register_cached_attention(env, exports);
  register_ggml_encode(env, exports);
  register_kernel_tiles(env, exports);
  register_column_information(env, exports);
  register_neighbours(env, exports);
  register_linalg(env, exports);
  register_hadamard(env, exports);
  register_error_feedback(env, exports);
  register_pyramid_index(env, exports);
  register_pulse_search(env, exports);
  register_linear_assignment(env, exports);
  register_panel_operators(env, exports);
  register_permuted_sums(env, exports);
  register_inner_activation(env, exports);
  register_token_filter(env, exports);
  register_loss_rows(env, exports);
  register_optimizer_steps(env, exports);
  register_plackett_luce(env, exports);
  register_self_attention(env, exports);
  register_onnx_runtime(env, exports);
  register_merge_sparse(env, exports);
  register_merge_dense(env, exports);
  register_rank_selection(env, exports);
  register_policy_tokens(env, exports);
  register_json_columns(env, exports);
  set_function(env, exports, "accumulateRows", AccumulateRows);
  set_function(env, exports, "accumulateSecond", AccumulateSecond);
  set_function(env, exports, "widenToF32", WidenToF32);
  set_function(env, exports, "widenToF64", WidenToF64);
  set_function(env, exports, "narrowFromF32", NarrowFromF32);
  set_function(env, exports, "dequantizeGgml", DequantizeGgml);
  set_function(env, exports, "readMemory", ReadMemory);
  set_function(env, exports, "addressModulo", AddressModulo);
  set_function(env, exports, "trimMemory", TrimMemory);
  set_function(env, exports, "quickExit", QuickExit);
  set_function(env, exports, "simdName", SimdName);
  set_function(env, exports, "limitSimd", LimitSimd);
  napi_set_named_property(env, exports, "interfaceVersion", number_value(env, kInterfaceVersion));
#if defined(__clang__)
  napi_set_named_property(env, exports, "compiler", string_value(env, "clang " __clang_version__));
#else
  napi_set_named_property(env, exports, "compiler", string_value(env, "gcc " __VERSION__));
#endif
  return exports;
}
