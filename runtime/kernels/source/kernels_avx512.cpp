#include <immintrin.h>

#include <cstring>

#include "kernels.h"

namespace sparsefx {
namespace {
#include "vector_avx512.h"
#include "kernels_here.h"
}  // namespace

const Kernels kAvx512 = kernels_here("avx512");
}  // namespace sparsefx
