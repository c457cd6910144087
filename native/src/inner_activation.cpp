#include "inner_activation.hpp"

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

const ActivationKernels& activation_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kActivationAvx512;
    case Simd::Avx2:
      return kActivationAvx2;
    default:
      break;
  }
#endif
  return kActivationBaseline;
}

}  // namespace

template <class T>
void activate_inner(InnerActivation activation, const T* gate, T* inner, int64_t count, int threads) {
  const auto& use = activation_kernels().of(inner);
  parallel_for(count, 16384, threads, [&](int64_t begin, int64_t end) {
    use.activate(activation, gate == nullptr ? nullptr : gate + begin, inner + begin, end - begin);
  });
}

template void activate_inner(InnerActivation, const float*, float*, int64_t, int);
template void activate_inner(InnerActivation, const double*, double*, int64_t, int);

}  // namespace surprisal
