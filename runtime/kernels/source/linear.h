// A sparse linear layer: y = activation(x W^T + bias + residual), x (batch, inputs), y and residual (batch, outputs).
#pragma once

#include <vector>

#include "kernels.h"
#include "threads.h"

namespace sparsefx {

class Linear {
public:
    // `bias` may be null. The matrix is copied into the forms that the kernels read, its values as `precision` stores
    // them; `threads` will share the work.
    Linear(
        const Kernels& kernels, const SparseMatrix& matrix, const float* bias, Activation activation, int threads,
        Precision precision);

    // `residual` may be null.
    void run(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const;

private:
    void run_lookup(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const;
    void write_places(int64_t first, int64_t count, float* sums, const float* residual, float* y) const;
    void run_tiles(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const;
    void pack_block(const float* x, int64_t first_row, int64_t rows, int64_t tokens, float* tile) const;
    void write(const TileSegment& segment, const float* sums, const float* residual, int64_t tokens, float* y) const;

    const Kernels& kernels_;
    const int64_t inputs_, outputs_;
    const Activation activation_;
    std::vector<float> bias_;
    std::vector<float> bias_of_places_;  // in the order of the lookups; empty where there is no bias
    LookupForm lookup_;
    RunLookup run_part_;
    TileForm tiles_;
};

}  // namespace sparsefx
