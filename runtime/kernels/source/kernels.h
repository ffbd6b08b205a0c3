// The inner loops, once for each kind of processor, and the choice among them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lookup.h"
#include "tiles.h"

namespace sparsefx {

enum class Activation : int32_t { none = 0, relu = 1 };

struct Kernels {
    const char* name;
    int width, index_bits;

    RunLookup lookup, lookup_bfloat16;
    RunTile tile;
    // out[c][r] = in[r][c]; strides in floats.
    void (*transpose)(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride);
    // out[r * out_stride ...] = in[offsets[r] ...], `floats` of each row.
    void (*copy_rows)(
        const float* in, const int64_t* offsets, int64_t rows, int64_t floats, float* out, int64_t out_stride);
    // out[i] = in[i * step] from `first` to `last`, zero elsewhere.
    void (*take)(const float* in, int64_t step, int64_t first, int64_t last, int64_t floats, float* out);
    // out = activation(in + residual), where there is a residual.
    void (*finish)(const float* in, const float* residual, int64_t floats, Activation activation, float* out);
};

extern const Kernels kPortable;
#ifdef SPARSEFX_X86
extern const Kernels kAvx2, kAvx512;
#endif

// The fastest that this processor runs, or the one of that name; null where it is not compiled in or cannot run here.
const Kernels* find_kernels(const char* name);

}  // namespace sparsefx
