#include <cstring>

#include "gemm_kernel.hpp"

namespace surprisal {
namespace {

// Vectors of 16 bytes: SSE2, NEON, or what the compiler makes of them.
template <class Scalar>
struct Vector16 {
  using T = Scalar;
  typedef Scalar V __attribute__((vector_size(16)));
  static constexpr int N = 16 / sizeof(Scalar);
  static constexpr int kRows = 4;
  static constexpr int kVectors = 2;
  static constexpr int kSquare = 4;
  static V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }
  static V set1(T v) { return v - V{}; }
  static V fma(V a, V b, V c) { return a * b + c; }
  static void transpose(const T* from, int64_t from_step, T* to, int64_t to_step) {
    for (int i = 0; i < kSquare; i++) {
      for (int j = 0; j < kSquare; j++) to[i * to_step + j] = from[j * from_step + i];
    }
  }
};

}  // namespace

extern const GemmKernels kGemmKernelsBaseline = {tile_kernels<Vector16<double>>(), tile_kernels<Vector16<float>>()};

}  // namespace surprisal
