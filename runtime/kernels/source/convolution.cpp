#include "convolution.h"

#include <algorithm>

#include "scratch.h"

namespace sparsefx {

// Some vectors of output pixels, and the pieces that each tap's row is put together from.
struct Convolution::Tile {
    int64_t first_pixel, pixels, vectors, per_tap;
    const Piece* pieces;
};

struct Convolution::Strip {
    int64_t count, first_pixel;
    Tile tiles[kMostTiles];
};

namespace {

// For images of so many pixels; threads share strips where there are enough of them, else the outputs.
TileForm tiles_for(const SparseMatrix& matrix, int width, int64_t pixels, int threads) {
    const int64_t vectors = (pixels + width - 1) / width;
    const TileShape shape = TileShape::strips_for(vectors);
    return pack_tiles(matrix, width, shape, vectors >= threads * shape.strip_vectors() ? 1 : threads);
}

}  // namespace

Convolution::Convolution(
    const Kernels& kernels, const SparseMatrix& matrix, Axis height, Axis width, const float* bias,
    Activation activation, int64_t pixels, int threads)
    : kernels_(kernels),
      channels_(matrix.columns_count / (height.kernel * width.kernel)),
      outputs_(matrix.rows),
      height_(height),
      width_(width),
      activation_(activation),
      bias_(static_cast<size_t>(matrix.rows)),
      tiles_(tiles_for(matrix, kernels.width, pixels, threads)) {
    if (bias != nullptr) std::copy(bias, bias + outputs_, bias_.begin());
    const int32_t taps = static_cast<int32_t>(height.kernel * width.kernel);
    for (int32_t column : tiles_.used) rows_.push_back({column / taps, column % taps});
}

void Convolution::run(
    const float* x, const float* residual, int64_t batch, int64_t height, int64_t width, float* y,
    const Threads& threads) const {
    const Window window(height_, width_, height, width, kernels_.width);
    const int64_t image = channels_ * window.channel_floats(), result = outputs_ * window.output_pixels();
    for (int64_t i = 0; i < batch; i++)
        run_image(x + i * image, residual == nullptr ? nullptr : residual + i * result, window, y + i * result, threads);
}

void Convolution::run_image(
    const float* x, const float* residual, const Window& window, float* y, const Threads& threads) const {
    const int64_t vectors = (window.output_pixels() + kernels_.width - 1) / kernels_.width;
    int64_t strips = (vectors + tiles_.shape.strip_vectors() - 1) / tiles_.shape.strip_vectors();
    if (strips > 1) strips = std::min(vectors, (strips + threads.count - 1) / threads.count * threads.count);
    const int64_t segments = static_cast<int64_t>(tiles_.segments.size());
    threads.for_each(strips * segments, [&](int64_t task) {
        const int64_t number = task / segments;
        const int64_t first = vectors * number / strips, next = vectors * (number + 1) / strips;
        const Strip strip = cut(window, first, next - first);
        run_strip(tiles_.segments[static_cast<size_t>(task % segments)], strip, x, residual, window, y);
    });
}

Convolution::Strip Convolution::cut(const Window& window, int64_t first_vector, int64_t vectors) const {
    const int64_t width = kernels_.width, taps = height_.kernel * width_.kernel, most = tiles_.shape.vectors;
    Strip strip{(vectors + most - 1) / most, first_vector * width, {}};
    Piece* piece = scratch<Piece>(Scratch::pieces, taps * window.most_pieces(vectors * width));
    for (int64_t t = 0; t < strip.count; t++) {
        const int64_t first = first_vector + vectors * t / strip.count;
        const int64_t next = first_vector + vectors * (t + 1) / strip.count;
        const int64_t pixel = first * width, pixels = std::min(next * width, window.output_pixels()) - pixel;
        Tile& tile = strip.tiles[t] = {pixel, pixels, next - first, 0, piece};
        for (int64_t tap = 0; tap < taps; tap++) piece = window.cut(tap, pixel, pixels, piece);
        tile.per_tap = (piece - tile.pieces) / taps;
    }
    return strip;
}

void Convolution::run_strip(
    const TileSegment& segment, const Strip& strip, const float* x, const float* residual, const Window& window,
    float* y) const {
    const int64_t width = kernels_.width, stride = tiles_.shape.row_vectors * width, image = window.output_pixels();
    const int64_t tile_stride = tiles_.shape.vectors * width, columns = static_cast<int64_t>(rows_.size());
    float* packed = scratch<float>(Scratch::tile, tiles_.block_rows * tile_stride + width);
    float* sums = scratch<float>(Scratch::sums, segment.outputs * stride);
    for (size_t b = 0; b < segment.blocks.size(); b++)
        for (const Tile* tile = strip.tiles; tile < strip.tiles + strip.count; tile++) {
            const int64_t row = static_cast<int64_t>(b) * tiles_.block_rows;
            const PackedRows rows{
                rows_.data() + row, std::min(tiles_.block_rows, columns - row), window.channel_floats(),
                tile->pieces, tile->per_tap, width_.stride, window.flat()};
            kernels_.pack_rows(rows, x, packed, tile_stride);
            const int64_t start = segment.first_output * image + tile->first_pixel;
            const int64_t last_lanes = tile->pixels - (tile->vectors - 1) * width;
            const TileResult result{
                y + start, residual == nullptr ? nullptr : residual + start, image,
                static_cast<uint32_t>((uint64_t{1} << last_lanes) - 1), least_of(activation_)};
            kernels_.tile(
                segment.blocks[b], packed, static_cast<int>(tile->vectors), stride,
                b == 0 ? bias_.data() + segment.first_output : nullptr, sums + tile->first_pixel - strip.first_pixel,
                b + 1 == segment.blocks.size() ? &result : nullptr);
        }
}

}  // namespace sparsefx
