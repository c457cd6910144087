// Activations of the inner layer of an expert or MLP, entry by entry: what lies between its matrix products. The same
// in TypeScript: src/kernels/inner-activation-reference.ts.
#pragma once
#include <cstdint>

namespace surprisal {

enum class InnerActivation : int { Silu, Relu, Relu2, Gelu, GeluTanh, kCount };

// inner[i] = act(gate[i]) inner[i], or act(inner[i]) where gate is null. T is float or double.
template <class T>
void activate_inner(InnerActivation activation, const T* gate, T* inner, int64_t count, int threads);

template <class T>
struct ActivationRow {
  void (*activate)(InnerActivation activation, const T* gate, T* inner, int64_t count);
};

struct ActivationKernels {
  ActivationRow<float> f32;
  ActivationRow<double> f64;
  const ActivationRow<float>& of(const float*) const { return f32; }
  const ActivationRow<double>& of(const double*) const { return f64; }
};

extern const ActivationKernels kActivationBaseline;
#if defined(__x86_64__)
extern const ActivationKernels kActivationAvx2;
extern const ActivationKernels kActivationAvx512;
#endif

}  // namespace surprisal
