#include "linear.h"

#include <algorithm>

#include "scratch.h"

namespace sparsefx {

namespace {

constexpr int64_t kLeastForTiles = 8;  // input vectors; fewer are looked up one by one

}  // namespace

Linear::Linear(
    const Kernels& kernels, const SparseMatrix& matrix, const float* bias, Activation activation, int threads,
    Precision precision)
    : kernels_(kernels),
      inputs_(matrix.columns_count),
      outputs_(matrix.rows),
      activation_(activation),
      bias_(static_cast<size_t>(matrix.rows)) {
    const std::vector<float> values = stored_values(matrix, precision);
    SparseMatrix stored = matrix;
    stored.values = values.data();
    const int bits = index_bits_for(stored, kernels.width, precision, kernels.tables);
    lookup_ = pack_lookup(stored, kernels.width, bits, precision, threads);
    run_part_ = (precision == Precision::bfloat16 ? kernels.lookup_bfloat16 : kernels.lookup)[bits - kernels.tables.least_bits];
    tiles_ = pack_tiles(stored, kernels.width, TileShape::single(kMostVectors), threads);
    if (bias == nullptr) return;
    std::copy(bias, bias + outputs_, bias_.begin());
    for (int32_t output : lookup_.order) bias_of_places_.push_back(output < 0 ? 0.0f : bias[output]);
}

void Linear::run(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const {
    if (batch < kLeastForTiles)
        run_lookup(x, residual, batch, y, threads);
    else
        run_tiles(x, residual, batch, y, threads);
}

void Linear::run_lookup(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const {
    const int64_t readable = lookup_.blocks << lookup_.index_bits;
    if (readable != inputs_) {  // the last block reads on beyond the inputs
        float* copy = scratch<float>(Scratch::inputs, batch * readable);
        for (int64_t i = 0; i < batch; i++) {
            std::copy(x + i * inputs_, x + (i + 1) * inputs_, copy + i * readable);
            std::fill(copy + i * readable + inputs_, copy + (i + 1) * readable, 0.0f);
        }
        x = copy;
    }
    threads.for_each(static_cast<int64_t>(lookup_.parts.size()), [&](int64_t task) {
        const LookupPart& part = lookup_.parts[static_cast<size_t>(task)];
        const int64_t first = part.first_group * lookup_.width, places = part.groups * lookup_.width;
        float* sums = scratch<float>(Scratch::sums, places);
        for (int64_t i = 0; i < batch; i++) {
            if (bias_of_places_.empty())
                std::fill_n(sums, places, 0.0f);
            else
                std::copy_n(bias_of_places_.begin() + first, places, sums);
            run_part_(LookupStream(part), lookup_.blocks, x + i * readable, sums);
            const float* beside = residual == nullptr ? nullptr : residual + i * outputs_;
            write_places(first, std::min(places, outputs_ - first), sums, beside, y + i * outputs_);
        }
    });
}

// The outputs at `count` places from the first on; the groups' padding comes after all of them.
void Linear::write_places(int64_t first, int64_t count, float* sums, const float* residual, float* y) const {
    if (lookup_.in_order) {
        kernels_.finish(sums, residual == nullptr ? nullptr : residual + first, count, activation_, y + first);
        return;
    }
    const int32_t* order = lookup_.order.data() + first;
    if (residual != nullptr)
        for (int64_t p = 0; p < count; p++) sums[p] += residual[order[p]];
    kernels_.finish(sums, nullptr, count, activation_, sums);
    for (int64_t p = 0; p < count; p++) y[order[p]] = sums[p];
}

void Linear::run_tiles(const float* x, const float* residual, int64_t batch, float* y, const Threads& threads) const {
    const int64_t width = kernels_.width, stride = tiles_.shape.row_vectors * width;
    const int64_t vectors = (batch + width - 1) / width, tiles = (vectors + kMostVectors - 1) / kMostVectors;
    const int64_t segments = static_cast<int64_t>(tiles_.segments.size());
    threads.for_each(tiles * segments, [&](int64_t task) {
        const int64_t number = task / segments;
        const TileSegment& segment = tiles_.segments[static_cast<size_t>(task % segments)];
        const int64_t first = vectors * number / tiles, next = vectors * (number + 1) / tiles;
        const int64_t token = first * width, tokens = std::min(next * width, batch) - token;
        float* tile = scratch<float>(Scratch::tile, tiles_.block_rows * stride);
        float* sums = scratch<float>(Scratch::sums, segment.outputs * stride);
        for (size_t b = 0; b < segment.blocks.size(); b++) {
            const int64_t row = static_cast<int64_t>(b) * tiles_.block_rows;
            const int64_t rows = std::min(tiles_.block_rows, static_cast<int64_t>(tiles_.used.size()) - row);
            pack_block(x + token * inputs_, row, rows, tokens, tile);
            kernels_.tile(
                segment.blocks[b], tile, static_cast<int>(next - first), stride,
                b == 0 ? bias_.data() + segment.first_output : nullptr, sums, nullptr);
        }
        const int64_t start = token * outputs_ + segment.first_output;
        write(segment, sums, residual == nullptr ? nullptr : residual + start, tokens, y + start);
    });
}

// Rows of a tile from the tokens' features; runs of neighbouring features at a time.
void Linear::pack_block(const float* x, int64_t first_row, int64_t rows, int64_t tokens, float* tile) const {
    const int64_t stride = tiles_.shape.row_vectors * kernels_.width;
    const int32_t* used = tiles_.used.data() + first_row;
    for (int64_t row = 0, next; row < rows; row = next) {
        for (next = row + 1; next < rows && used[next] == used[next - 1] + 1;) next++;
        kernels_.transpose(x + used[row], inputs_, tokens, next - row, tile + row * stride, stride);
    }
}

void Linear::write(
    const TileSegment& segment, const float* sums, const float* residual, int64_t tokens, float* y) const {
    kernels_.transpose(sums, tiles_.shape.row_vectors * kernels_.width, segment.outputs, tokens, y, outputs_);
    if (residual == nullptr && activation_ == Activation::none) return;
    for (int64_t t = 0; t < tokens; t++) {
        const float* beside = residual == nullptr ? nullptr : residual + t * outputs_;
        kernels_.finish(y + t * outputs_, beside, segment.outputs, activation_, y + t * outputs_);
    }
}

}  // namespace sparsefx
