#include <cstring>

#include "kernels.h"

namespace sparsefx {

namespace {

// Whether this processor and its operating system run them.
bool runs_here(const Kernels& kernels) {
#ifdef SPARSEFX_X86
    if (&kernels == &kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (&kernels == &kAvx512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#endif
    return &kernels == &kPortable;
}

}  // namespace

const Kernels* find_kernels(const char* name) {
#ifdef SPARSEFX_X86
    const Kernels* const all[] = {&kAvx512, &kAvx2, &kPortable};
#else
    const Kernels* const all[] = {&kPortable};
#endif
    for (const Kernels* kernels : all)
        if (runs_here(*kernels) && (name == nullptr || std::strcmp(name, kernels->name) == 0)) return kernels;
    return nullptr;
}

}  // namespace sparsefx
