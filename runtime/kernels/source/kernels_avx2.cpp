#include <immintrin.h>

#include <cstring>

#include "kernels.h"

namespace sparsefx {
namespace {
#include "vector_avx2.h"
#include "kernels_here.h"
}  // namespace

const Kernels kAvx2 = kernels_here("avx2");
}  // namespace sparsefx
