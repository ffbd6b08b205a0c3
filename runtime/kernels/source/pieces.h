// How the rows of a tile are put together from an image: vector by vector, whatever the stride and the padding.
#pragma once

#include <cstdint>

namespace sparsefx {

struct Axis {
    int64_t kernel, stride, padding_before, padding_after, dilation;

    int64_t output(int64_t size) const {
        return (size + padding_before + padding_after - dilation * (kernel - 1) - 1) / stride + 1;
    }
};

// A vector of a row: in[0], in[step] ... of a channel go to out[0], out[1] ..., zero where a lane has no bit. With a
// step of two there is a bit for each float that is read over, so that two masked loads fetch them.
struct Piece {
    int64_t in;
    int32_t out;
    uint32_t lanes;
};

// What the taps of a kernel read of an image of some size.
class Window {
public:
    Window(const Axis& height, const Axis& width, int64_t rows, int64_t columns, int vector);

    bool flat() const { return flat_; }
    int64_t channel_floats() const { return rows_ * columns_; }
    int64_t output_pixels() const { return output_rows_ * output_columns_; }
    // Pieces for so many pixels never are more than this.
    int64_t most_pieces(int64_t pixels) const { return flat_ ? (pixels + vector_ - 1) / vector_ : pixels; }
    // The pieces of `pixels` output pixels for the tap, in rising order: a piece may write on into the next one's place.
    // There are as many for every tap. Returns the end of what was written.
    Piece* cut(int64_t tap, int64_t first_pixel, int64_t pixels, Piece* out) const;

private:
    uint32_t lanes(int64_t column, int64_t count) const;

    const Axis height_, width_;
    const int64_t rows_, columns_, output_rows_, output_columns_, vector_;
    const bool flat_;  // output rows are as long as those of the image, so that vectors run on from row to row
};

}  // namespace sparsefx
