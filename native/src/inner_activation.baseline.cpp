#include "inner_activation_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const ActivationKernels kActivationBaseline = {{ActivationLoops<V32>::activate}, {ActivationLoops<V64>::activate}};

}  // namespace surprisal
