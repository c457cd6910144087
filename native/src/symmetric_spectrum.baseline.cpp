#include "symmetric_spectrum_kernel.hpp"

namespace surprisal {
namespace {

// Vectors of 16 bytes: SSE2, NEON, or what the compiler makes of them.
struct Double2 {
  typedef double V __attribute__((vector_size(16)));
  static constexpr int N = 2;
  static V load(const double* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(double* p, V v) { std::memcpy(p, &v, sizeof v); }
  static V set1(double v) { return V{v, v}; }
  static V fma(V a, V b, V c) { return a * b + c; }
  static V load_from(const double* p, int skip) { return V{skip > 0 ? 0 : p[0], skip > 1 ? 0 : p[1]}; }
  static void store_from(double* p, int skip, V v) {
    for (int i = skip; i < N; i++) p[i] = v[i];
  }
  static V max(V a, V b) { return select_less(a, b, b, a); }
  static V select_less(V a, V b, V x, V y) { return a < b ? x : y; }
  static V shift_in(V v, double x) { return V{x, v[0]}; }
  static double last(V v) { return v[1]; }
  static double sum(V v) { return v[0] + v[1]; }
};

}  // namespace

extern const SpectrumKernels kSpectrumKernelsBaseline = spectrum_kernels_of<Double2>();

}  // namespace surprisal
