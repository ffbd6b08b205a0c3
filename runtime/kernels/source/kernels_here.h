// All inner loops for the Vector that was included before, as the table `kernels_here(name)`.

#include "gelu.h"
#include "lookup_run.h"
#include "tiles_run.h"

inline void transpose(
    const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride) {
    constexpr int64_t width = Vector::width;
    const int64_t whole_rows = rows - rows % width, whole_columns = columns - columns % width;
    for (int64_t r = 0; r < whole_rows; r += width)
        for (int64_t c = 0; c < whole_columns; c += width)
            transpose_block(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

template <int step>
Vector gather(const float* in, uint32_t lanes) {
    if constexpr (step == 1) return Vector::load_where(in, lanes);
    return Vector::evens(Vector::load_where(in, lanes), Vector::load_where(in + Vector::width, lanes >> Vector::width));
}

template <int step>
void pack_rows_of(const PackedRows& rows, const float* image, float* out, int64_t out_stride) {
    for (const TileRow* row = rows.first; row < rows.first + rows.count; row++, out += out_stride) {
        const float* in = image + row->channel * rows.channel_floats;
        const Piece* pieces = rows.pieces + row->tap * rows.per_tap;
        for (const Piece* piece = pieces; piece < pieces + rows.per_tap; piece++)
            gather<step>(in + piece->in, piece->lanes).store(out + piece->out);
    }
}

// Where vectors of the image follow each other as those of the row do.
inline void pack_rows_flat(const PackedRows& rows, const float* image, float* out, int64_t out_stride) {
    for (const TileRow* row = rows.first; row < rows.first + rows.count; row++, out += out_stride) {
        const Piece* pieces = rows.pieces + row->tap * rows.per_tap;
        const float* in = image + row->channel * rows.channel_floats + pieces->in;
        for (int64_t p = 0; p < rows.per_tap; p++)
            Vector::load_where(in + p * Vector::width, pieces[p].lanes).store(out + p * Vector::width);
    }
}

inline void pack_rows_apart(const PackedRows& rows, const float* image, float* out, int64_t out_stride) {
    for (const TileRow* row = rows.first; row < rows.first + rows.count; row++, out += out_stride) {
        const float* in = image + row->channel * rows.channel_floats;
        const Piece* pieces = rows.pieces + row->tap * rows.per_tap;
        for (const Piece* piece = pieces; piece < pieces + rows.per_tap; piece++)
            for (int i = 0; i < Vector::width; i++)
                out[piece->out + i] = piece->lanes >> i & 1 ? in[piece->in + i * rows.step] : 0;
    }
}

inline void pack_rows(const PackedRows& rows, const float* image, float* out, int64_t out_stride) {
    if (rows.flat) return pack_rows_flat(rows, image, out, out_stride);
    if (rows.step == 1) return pack_rows_of<1>(rows, image, out, out_stride);
    if (rows.step == 2) return pack_rows_of<2>(rows, image, out, out_stride);
    return pack_rows_apart(rows, image, out, out_stride);
}

inline void finish(const float* in, const float* residual, int64_t floats, Activation activation, float* out) {
    const Vector least = Vector::broadcast(least_of(activation));
    for (int64_t i = 0; i < floats; i += Vector::width) {
        const int64_t left = floats - i;
        const uint32_t lanes = left < Vector::width ? (1u << left) - 1 : ~0u;
        Vector sum = Vector::load_where(in + i, lanes);
        if (residual != nullptr) sum = sum + Vector::load_where(residual + i, lanes);
        (activation == Activation::gelu ? gelu(sum) : larger(least, sum)).store_where(out + i, lanes);
    }
}

template <Precision precision, int bits>
constexpr RunLookup lookup_of() {
    if constexpr (bits <= kTables.most_bits) return run_lookup<precision, bits>;
    return nullptr;
}

constexpr Kernels kernels_here(const char* name) {
    constexpr int least = kTables.least_bits;
    constexpr Precision full = Precision::float32, half = Precision::bfloat16;
    static_assert(kTables.most_bits < least + kTableSizes);
    return {
        name,
        Vector::width,
        kTables,
        {lookup_of<full, least>(), lookup_of<full, least + 1>(), lookup_of<full, least + 2>(), lookup_of<full, least + 3>()},
        {lookup_of<half, least>(), lookup_of<half, least + 1>(), lookup_of<half, least + 2>(), lookup_of<half, least + 3>()},
        run_tile,
        transpose,
        pack_rows,
        finish};
}
