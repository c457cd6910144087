// Steps of optimisers over flat buffers, each in one pass; sums of squares and sums of buffers. Every result is the same
// bits whatever the number of threads and the instruction set; the same in TypeScript: optimizer-steps-reference.ts.
#pragma once
#include <cstdint>

namespace surprisal {

// Stretches with a factor of decay each; the last ends at the end of the buffers.
struct DecaySegments {
  const double* ends;
  const double* factors;
  int64_t count;
};

struct AdamSettings {
  double gradient_scale, beta1, beta2, epsilon;
  double step_size;   // lr / (1 - beta1^k)
  double root_scale;  // 1 / sqrt(1 - beta2^k)
  bool coupled;       // decay is an L2 term of the gradient
  bool clear;         // gradients become zero
};

struct MomentumSettings {
  double gradient_scale, learning_rate, momentum;
  bool nesterov;
  bool clear;
};

struct LionSettings {
  double gradient_scale, learning_rate, beta1, beta2;
  bool clear;
};

// Flat buffers of one length. `first` and `second` are moments, null where a method has none.
template <class T>
struct OptimizerBuffers {
  T* values;
  T* gradients;
  T* first;
  T* second;
  OptimizerBuffers from(int64_t i) const {
    return {values + i, gradients + i, first == nullptr ? nullptr : first + i, second == nullptr ? nullptr : second + i};
  }
};

template <class T>
void adam_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const AdamSettings& settings,
               int threads);
template <class T>
void momentum_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const MomentumSettings& settings,
                   int threads);
template <class T>
void lion_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const LionSettings& settings,
               int threads);

// Entries of a block of a sum of squares, and sums of a block that run beside each other.
constexpr int64_t kSquaresBlock = 1 << 14;
constexpr int kSquaresLanes = 16;

// blocks[b] = sum of x^2 over entries b kSquaresBlock and on.
template <class T>
void squares_of_blocks(const T* x, int64_t count, double* blocks, int threads);

template <class T>
void add_into(T* target, const T* source, int64_t count, int threads);
template <class T>
void scale_buffer(T* x, int64_t count, double factor, int threads);

// One stretch on one thread.
template <class T>
struct OptimizerLoops {
  void (*adam)(const OptimizerBuffers<T>& buffers, int64_t count, double decay, const AdamSettings& settings);
  void (*momentum)(const OptimizerBuffers<T>& buffers, int64_t count, double decay, const MomentumSettings& settings);
  void (*lion)(const OptimizerBuffers<T>& buffers, int64_t count, double decay, const LionSettings& settings);
  double (*squares)(const T* x, int64_t count);
};

struct OptimizerKernels {
  OptimizerLoops<float> f32;
  OptimizerLoops<double> f64;
  const OptimizerLoops<float>& of(const float*) const { return f32; }
  const OptimizerLoops<double>& of(const double*) const { return f64; }
};

extern const OptimizerKernels kOptimizerBaseline;
#if defined(__x86_64__)
extern const OptimizerKernels kOptimizerAvx2;
extern const OptimizerKernels kOptimizerAvx512;
#endif

}  // namespace surprisal
