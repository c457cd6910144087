#if defined(__x86_64__)
#include "inner_activation_kernel.hpp"
#include "vectors_avx2.hpp"

namespace surprisal {

const ActivationKernels kActivationAvx2 = {{ActivationLoops<V32>::activate}, {ActivationLoops<V64>::activate}};

}  // namespace surprisal
#endif
