#include "pieces.h"

#include <algorithm>

namespace sparsefx {

Window::Window(const Axis& height, const Axis& width, int64_t rows, int64_t columns, int vector)
    : height_(height),
      width_(width),
      rows_(rows),
      columns_(columns),
      output_rows_(height.output(rows)),
      output_columns_(width.output(columns)),
      vector_(vector),
      flat_(height.stride == 1 && width.stride == 1 && output_columns_ == columns) {}

Piece* Window::cut(int64_t tap, int64_t first_pixel, int64_t pixels, Piece* out) const {
    const int64_t down = tap / width_.kernel * height_.dilation - height_.padding_before;
    const int64_t right = tap % width_.kernel * width_.dilation - width_.padding_before;
    for (int64_t p = 0, count; p < pixels; p += count) {
        const int64_t pixel_row = (first_pixel + p) / output_columns_, pixel_column = (first_pixel + p) % output_columns_;
        const int64_t row = pixel_row * height_.stride + down, column = pixel_column * width_.stride + right;
        const int64_t lane = flat_ ? p % vector_ : 0;
        count = std::min({output_columns_ - pixel_column, pixels - p, vector_ - lane});
        if (lane == 0) *out++ = {row * columns_ + column, static_cast<int32_t>(p), 0};
        if (row >= 0 && row < rows_) out[-1].lanes |= lanes(column, count) << lane;
    }
    return out;
}

// The bits of `count` lanes from a column of the image on that are inside it.
uint32_t Window::lanes(int64_t column, int64_t count) const {
    const int64_t step = width_.stride;
    const int64_t first = column < 0 ? (-column + step - 1) / step : 0;
    const int64_t last = std::min(count, column < columns_ ? (columns_ - column + step - 1) / step : 0);
    if (first >= last) return 0;
    const auto below = [](int64_t bit) { return (uint64_t{1} << bit) - 1; };
    if (step > 2) return static_cast<uint32_t>(below(last) ^ below(first));
    return static_cast<uint32_t>(below((last - 1) * step + 1) ^ below(first * step));
}

}  // namespace sparsefx
