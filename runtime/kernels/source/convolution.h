// A sparse 2-d convolution: y = activation(conv(x, W) + bias + residual), images (batch, channels, height, width).
//
// Tiles are packed straight from the image, a row for each weight's channel and tap, whose pixels follow each other as
// those of the output do; the last block of rows writes the output.
#pragma once

#include <vector>

#include "kernels.h"
#include "threads.h"

namespace sparsefx {

class Convolution {
public:
    // The matrix has a row for each output channel and a column for each (input channel, kernel row, kernel column);
    // groups of channels are a matrix that is zero elsewhere. It is copied into the form that the kernels read. `bias`
    // may be null; tiles are laid out for images of about `pixels` output pixels; `threads` will share the work.
    Convolution(
        const Kernels& kernels, const SparseMatrix& matrix, Axis height, Axis width, const float* bias,
        Activation activation, int64_t pixels, int threads);

    // x (batch, channels, height, width); residual, which may be null, and y (batch, outputs, output height and width).
    void run(
        const float* x, const float* residual, int64_t batch, int64_t height, int64_t width, float* y,
        const Threads& threads) const;

    int64_t channels() const { return channels_; }

private:
    struct Tile;
    struct Strip;

    void run_image(
        const float* x, const float* residual, const Window& window, float* y, const Threads& threads) const;
    Strip cut(const Window& window, int64_t first_vector, int64_t vectors) const;
    void run_strip(
        const TileSegment& segment, const Strip& strip, const float* x, const float* residual, const Window& window,
        float* y) const;

    const Kernels& kernels_;
    const int64_t channels_, outputs_;
    const Axis height_, width_;
    const Activation activation_;
    std::vector<float> bias_;
    TileForm tiles_;
    std::vector<TileRow> rows_;  // of the used columns
};

}  // namespace sparsefx
