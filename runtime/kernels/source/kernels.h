// The inner loops, once for each kind of processor, and the choice among them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lookup.h"
#include "pieces.h"
#include "tiles.h"

namespace sparsefx {

enum class Activation : int32_t { none = 0, relu = 1, gelu = 2 };

// What an activation lets through at least; GELU is more than that.
inline float least_of(Activation activation) { return activation == Activation::relu ? 0.0f : -__builtin_inff(); }

// A row of a tile: what a tap of the kernel reads of a channel.
struct TileRow {
    int32_t channel, tap;
};

// Rows of a tile, and the pieces of each tap.
struct PackedRows {
    const TileRow* first;
    int64_t count, channel_floats;
    const Piece* pieces;
    int64_t per_tap, step;
    bool flat;  // vectors of the image follow each other as those of the row do
};

struct Kernels {
    const char* name;
    int width;
    TableSizes tables;

    RunLookup lookup[kTableSizes], lookup_bfloat16[kTableSizes];  // for each size of tables
    RunTile tile;
    // out[c][r] = in[r][c]; strides in floats.
    void (*transpose)(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride);
    // The rows, `out_stride` floats apart; up to a vector is written beyond the last one.
    void (*pack_rows)(const PackedRows& rows, const float* image, float* out, int64_t out_stride);
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
