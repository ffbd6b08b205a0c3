#include <cstring>

#include "kernels.h"

namespace sparsefx {
namespace {
#include "vector_portable.h"
#include "kernels_here.h"
}  // namespace

const Kernels kPortable = kernels_here("portable");
}  // namespace sparsefx
