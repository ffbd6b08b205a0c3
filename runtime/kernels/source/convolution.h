// A sparse 2-d convolution: y = activation(conv(x, W) + bias + residual), images (batch, channels, height, width).
//
// The padded input is laid out so that every weight reads consecutive floats for consecutive output pixels:
// with a stride of s, as planes of every s-th row and column. A 1x1 convolution without stride or padding reads the
// input as it is.
#pragma once

#include <vector>

#include "kernels.h"
#include "threads.h"

namespace sparsefx {

struct Axis {
    int64_t kernel, stride, padding_before, padding_after, dilation;

    int64_t output(int64_t size) const {
        return (size + padding_before + padding_after - dilation * (kernel - 1) - 1) / stride + 1;
    }
};

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
    // Every s-th row and column of a channel from (row, column) on.
    struct Plane {
        int64_t channel, row, column;
    };
    // The pixel of a plane that a column of the matrix reads first.
    struct Start {
        int64_t plane, row, column;
    };
    struct Layout;

    Layout layout(int64_t height, int64_t width) const;
    void lay_out(const float* image, const Layout& layout, float* planes, const Threads& threads) const;
    void run_image(
        const float* planes, const Layout& layout, const float* residual, float* y, const Threads& threads) const;
    void run_strip(
        const TileSegment& segment, size_t block, const float* planes, const int64_t* offsets, int64_t rows,
        int64_t pixels, float* tile, float* sums) const;
    void write(
        const TileSegment& segment, const float* sums, const Layout& layout, int64_t first, int64_t pixels,
        const float* residual, float* y) const;

    const Kernels& kernels_;
    const int64_t channels_, outputs_;
    const Axis height_, width_;
    const Activation activation_;
    std::vector<float> bias_;
    TileForm tiles_;
    std::vector<Plane> planes_;
    std::vector<Start> starts_;  // of the used columns
    bool as_it_is_ = false;      // the input needs no layout
    int64_t last_row_ = 0, last_column_ = 0;  // the largest of the starts
};

}  // namespace sparsefx
