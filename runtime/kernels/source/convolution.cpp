#include "convolution.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "scratch.h"

namespace sparsefx {

// Sizes of one image. Output pixel (y, x) is at y * row_length + x; what lies between two rows of pixels is computed
// too, and dropped.
struct Convolution::Layout {
    int64_t height, width, output_height, output_width, row_length, plane_floats, pixels;
    const int64_t* offsets;  // where each used column starts
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
    const auto plain = [](const Axis& a) {
        return a.kernel == 1 && a.stride == 1 && a.padding_before == 0 && a.padding_after == 0;
    };
    as_it_is_ = plain(height) && plain(width);
    std::map<std::tuple<int64_t, int64_t, int64_t>, int64_t> number;
    for (int64_t column : tiles_.used) {
        const int64_t channel = column / (height.kernel * width.kernel);
        const int64_t down = column / width.kernel % height.kernel * height.dilation;
        const int64_t right = column % width.kernel * width.dilation;
        const Plane plane{channel, down % height.stride, right % width.stride};
        const auto found = number.try_emplace({channel, plane.row, plane.column}, static_cast<int64_t>(planes_.size()));
        if (found.second) planes_.push_back(plane);
        starts_.push_back({as_it_is_ ? channel : found.first->second, down / height.stride, right / width.stride});
        last_row_ = std::max(last_row_, starts_.back().row);
        last_column_ = std::max(last_column_, starts_.back().column);
    }
}

void Convolution::run(
    const float* x, const float* residual, int64_t batch, int64_t height, int64_t width, float* y,
    const Threads& threads) const {
    const Layout sizes = layout(height, width);
    const int64_t image = channels_ * height * width, result = outputs_ * sizes.output_height * sizes.output_width;
    for (int64_t i = 0; i < batch; i++) {
        const float* planes = x + i * image;
        if (!as_it_is_) {
            float* own = scratch<float>(Scratch::planes, static_cast<int64_t>(planes_.size()) * sizes.plane_floats);
            lay_out(planes, sizes, own, threads);
            planes = own;
        }
        run_image(planes, sizes, residual == nullptr ? nullptr : residual + i * result, y + i * result, threads);
    }
}

Convolution::Layout Convolution::layout(int64_t height, int64_t width) const {
    Layout sizes{height, width, height_.output(height), width_.output(width), 0, 0, 0, nullptr};
    sizes.row_length = sizes.output_width + last_column_;
    sizes.plane_floats = (sizes.output_height + last_row_) * sizes.row_length;
    sizes.pixels = (sizes.output_height - 1) * sizes.row_length + sizes.output_width;
    int64_t* offsets = scratch<int64_t>(Scratch::offsets, static_cast<int64_t>(starts_.size()));
    for (size_t i = 0; i < starts_.size(); i++)
        offsets[i] = starts_[i].plane * sizes.plane_floats + starts_[i].row * sizes.row_length + starts_[i].column;
    sizes.offsets = offsets;
    return sizes;
}

void Convolution::lay_out(const float* image, const Layout& sizes, float* planes, const Threads& threads) const {
    const int64_t rows = sizes.output_height + last_row_, count = static_cast<int64_t>(planes_.size());
    const int64_t tasks = std::min<int64_t>(count, 4 * threads.count);
    threads.for_each(tasks, [&](int64_t task) {
        for (int64_t p = count * task / tasks; p < count * (task + 1) / tasks; p++) {
            const Plane& plane = planes_[static_cast<size_t>(p)];
            float* out = planes + p * sizes.plane_floats;
            for (int64_t r = 0; r < rows; r++, out += sizes.row_length) {
                const int64_t row = r * height_.stride + plane.row - height_.padding_before;
                if (row < 0 || row >= sizes.height) {
                    std::fill(out, out + sizes.row_length, 0.0f);
                    continue;
                }
                const float* in = image + (plane.channel * sizes.height + row) * sizes.width;
                const int64_t shift = plane.column - width_.padding_before, step = width_.stride;
                // The places c of the row for which c * step + shift is inside the image.
                const int64_t first = std::min(sizes.row_length, shift < 0 ? (-shift + step - 1) / step : 0);
                const int64_t inside = sizes.width - shift <= 0 ? 0 : (sizes.width - shift + step - 1) / step;
                const int64_t last = std::max(first, std::min(sizes.row_length, inside));
                kernels_.take(in + shift, step, first, last, sizes.row_length, out);
            }
        }
    });
}

void Convolution::run_image(
    const float* planes, const Layout& sizes, const float* residual, float* y, const Threads& threads) const {
    const int64_t width = kernels_.width, stride = tiles_.shape.row_vectors * width;
    const int64_t vectors = (sizes.pixels + width - 1) / width, columns = static_cast<int64_t>(starts_.size());
    int64_t strips = (vectors + tiles_.shape.strip_vectors() - 1) / tiles_.shape.strip_vectors();
    if (strips > 1) strips = std::min(vectors, (strips + threads.count - 1) / threads.count * threads.count);
    const int64_t segments = static_cast<int64_t>(tiles_.segments.size());
    threads.for_each(strips * segments, [&](int64_t task) {
        const TileSegment& segment = tiles_.segments[static_cast<size_t>(task % segments)];
        const int64_t number = task / segments;
        const int64_t first = vectors * number / strips, next = vectors * (number + 1) / strips;
        const int64_t pixel = first * width, pixels = std::min(next * width, sizes.pixels) - pixel;
        float* tile = scratch<float>(Scratch::tile, tiles_.block_rows * tiles_.shape.vectors * width);
        float* sums = scratch<float>(Scratch::sums, segment.outputs * stride);
        for (size_t b = 0; b < segment.blocks.size(); b++) {
            const int64_t row = static_cast<int64_t>(b) * tiles_.block_rows;
            const int64_t rows = std::min(tiles_.block_rows, columns - row);
            run_strip(segment, b, planes + pixel, sizes.offsets + row, rows, pixels, tile, sums);
        }
        write(segment, sums, sizes, pixel, pixels, residual, y);
    });
}

void Convolution::run_strip(
    const TileSegment& segment, size_t block, const float* planes, const int64_t* offsets, int64_t rows, int64_t pixels,
    float* tile, float* sums) const {
    const int64_t width = kernels_.width, vectors = (pixels + width - 1) / width;
    const TileShape& shape = tiles_.shape;
    const int64_t tiles = (vectors + shape.vectors - 1) / shape.vectors;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t first = vectors * t / tiles, next = vectors * (t + 1) / tiles, place = first * width;
        kernels_.copy_rows(planes + place, offsets, rows, std::min(next * width, pixels) - place, tile, shape.vectors * width);
        kernels_.tile(
            segment.blocks[block], tile, static_cast<int>(next - first), shape.row_vectors * width,
            block == 0 ? bias_.data() + segment.first_output : nullptr, sums + place);
    }
}

void Convolution::write(
    const TileSegment& segment, const float* sums, const Layout& sizes, int64_t first, int64_t pixels,
    const float* residual, float* y) const {
    const int64_t stride = tiles_.shape.row_vectors * kernels_.width, image = sizes.output_height * sizes.output_width;
    // Where nothing lies between two rows of pixels, they are one.
    const bool gapless = sizes.row_length == sizes.output_width;
    const int64_t row_length = gapless ? image : sizes.row_length, row_pixels = gapless ? image : sizes.output_width;
    for (int64_t n = 0; n < segment.outputs; n++) {
        const float* sum = sums + n * stride;
        const int64_t channel = (segment.first_output + n) * image;
        for (int64_t p = first; p < first + pixels;) {
            const int64_t row = p / row_length, column = p % row_length;
            const int64_t next = std::min(first + pixels, (row + 1) * row_length);
            const int64_t place = channel + row * row_pixels + column;
            const int64_t floats = std::min(next - p, row_pixels - column);
            if (floats > 0)
                kernels_.finish(
                    sum + (p - first), residual == nullptr ? nullptr : residual + place, floats, activation_, y + place);
            p = next;
        }
    }
}

}  // namespace sparsefx
