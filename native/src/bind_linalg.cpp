// Node-API wrappers of products and symmetric spectra. Arguments were checked by src/kernels/gemm.ts and
// symmetric-spectrum.ts; what is checked again is what would read or write outside a typed array.
#include <node_api.h>

#include <new>

#include "arguments.hpp"
#include "gemm.hpp"
#include "symmetric_spectrum.hpp"

namespace surprisal {
namespace {

bool fits(int64_t rows, int64_t columns, int64_t row_step, int64_t column_step, int64_t length) {
  if (rows < 0 || columns < 0 || row_step < 0 || column_step < 0) return false;
  return rows == 0 || columns == 0 || (rows - 1) * row_step + (columns - 1) * column_step < length;
}

void throw_out_of_memory(napi_env env) { napi_throw_error(env, nullptr, "a kernel ran out of memory"); }

template <class T, class Out, class Read, class Write>
void product_of(napi_env env, Arguments& arguments, Read read, Write write) {
  int64_t a_length, b_length, c_length;
  const Operand<T> a{read(1, &a_length), arguments.integer(2), arguments.integer(3)};
  const Operand<T> b{read(4, &b_length), arguments.integer(5), arguments.integer(6)};
  Out* c = write(7, &c_length);
  ProductShape shape;
  shape.c_stride = arguments.integer(8);
  shape.m = arguments.integer(9);
  shape.n = arguments.integer(10);
  shape.k = arguments.integer(11);
  shape.alpha = arguments.number(12);
  shape.beta = arguments.number(13);
  shape.lower = arguments.integer(14) != 0;
  const int threads = static_cast<int>(arguments.integer(15));
  if (!fits(shape.m, shape.k, a.row_step, a.column_step, a_length) ||
      !fits(shape.k, shape.n, b.row_step, b.column_step, b_length) ||
      !fits(shape.m, shape.n, shape.c_stride, 1, c_length)) {
    arguments.fail("a matrix does not fit its array");
  }
  if (!arguments.ok()) return;
  try {
    product(a, b, c, shape, threads);
  } catch (const std::bad_alloc&) {
    throw_out_of_memory(env);
  }
}

// (widths, a, aRowStep, aColumnStep, b, bRowStep, bColumnStep, c, cStride, m, n, k, alpha, beta, lower, threads);
// widths: 0 all double, 1 all single, 2 single operands and a double result
napi_value MultiplyMatrices(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 16);
  const int64_t widths = arguments.integer(0);
  const auto doubles = [&](size_t index, int64_t* length) { return arguments.doubles(index, length); };
  const auto floats = [&](size_t index, int64_t* length) { return arguments.floats(index, length); };
  if (!arguments.ok()) return nullptr;
  if (widths == 0) product_of<double, double>(env, arguments, doubles, doubles);
  else if (widths == 1) product_of<float, float>(env, arguments, floats, floats);
  else if (widths == 2) product_of<float, double>(env, arguments, floats, doubles);
  else arguments.fail("unknown widths");
  return nullptr;
}

// (matrix, n, values, threads) -> SpectrumOutcome
napi_value SymmetricSpectrum(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  int64_t entries, count;
  double* matrix = arguments.doubles(0, &entries);
  const int64_t n = arguments.integer(1);
  double* values = arguments.doubles(2, &count);
  const int threads = static_cast<int>(arguments.integer(3));
  if (n < 0 || !fits(n, n, n, 1, entries) || count < n) arguments.fail("a matrix does not fit its array");
  if (!arguments.ok()) return nullptr;
  try {
    return number_value(env, static_cast<double>(symmetric_spectrum(matrix, n, values, threads)));
  } catch (const std::bad_alloc&) {
    throw_out_of_memory(env);
    return nullptr;
  }
}

}  // namespace

void register_linalg(napi_env env, napi_value exports) {
  set_function(env, exports, "multiplyMatrices", MultiplyMatrices);
  set_function(env, exports, "symmetricSpectrum", SymmetricSpectrum);
}

}  // namespace surprisal
