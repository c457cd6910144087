#include "hadamard_kernel.hpp"

namespace surprisal {
namespace {

typedef float Quad __attribute__((vector_size(16)));
typedef double Pair __attribute__((vector_size(16)));

struct Float4 {
  using T = float;
  using V = Quad;
  static constexpr int N = 4;
  static constexpr int kDoubles = 2;
  static constexpr int kRadix = 3;
  static V load(const T* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, V v) { memcpy(p, &v, sizeof v); }
  template <int kStride>
  static V stage(V v) {
    if constexpr (kStride == 1) return V{v[1], v[0], v[3], v[2]} + V{v[0], -v[1], v[2], -v[3]};
    else return V{v[2], v[3], v[0], v[1]} + V{v[0], v[1], -v[2], -v[3]};
  }
};

struct Double2 {
  using T = double;
  using V = Pair;
  static constexpr int N = 2;
  static constexpr int kDoubles = 2;
  static constexpr int kRadix = 3;
  static V load(const T* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, V v) { memcpy(p, &v, sizeof v); }
  template <int kStride>
  static V stage(V v) {
    return V{v[1], v[0]} + V{v[0], -v[1]};
  }
};

}  // namespace

extern const HadamardKernelSet kHadamardKernelsBaseline = {hadamard_kernels<Double2>(), hadamard_kernels<Float4>()};

}  // namespace surprisal
