// All inner loops for the Vector that was included before, as the table `kernels_here(name)`.

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

inline void copy_rows(
    const float* in, const int64_t* offsets, int64_t rows, int64_t floats, float* out, int64_t out_stride) {
    const int64_t whole = floats - floats % Vector::width;
    for (int64_t r = 0; r < rows; r++, out += out_stride) {
        const float* row = in + offsets[r];
        for (int64_t i = 0; i < whole; i += Vector::width) Vector::load(row + i).store(out + i);
        for (int64_t i = whole; i < floats; i++) out[i] = row[i];
    }
}

inline Vector take_vector(const float* in, int64_t step, int64_t first, int64_t last) {
    constexpr int64_t width = Vector::width;
    if (step == 1) return Vector::load_lanes(in, first, last);
    first *= 2, last = 2 * last - 1;
    return Vector::evens(
        Vector::load_lanes(in, first, last), Vector::load_lanes(in + width, first - width, last - width));
}

inline void take(const float* in, int64_t step, int64_t first, int64_t last, int64_t floats, float* out) {
    if (step <= 2)
        for (int64_t i = 0; i < floats; i += Vector::width)
            take_vector(in + i * step, step, first - i, last - i).store_lanes(out + i, floats - i);
    else
        for (int64_t i = 0; i < floats; i++) out[i] = i >= first && i < last ? in[i * step] : 0;
}

inline void finish(const float* in, const float* residual, int64_t floats, Activation activation, float* out) {
    const float least = activation == Activation::relu ? 0.0f : -__builtin_inff();
    int64_t i = 0;
    for (; i + Vector::width <= floats; i += Vector::width) {
        const Vector sum = residual != nullptr ? Vector::load(in + i) + Vector::load(residual + i) : Vector::load(in + i);
        larger(Vector::broadcast(least), sum).store(out + i);
    }
    for (; i < floats; i++) {
        const float sum = residual != nullptr ? in[i] + residual[i] : in[i];
        out[i] = least > sum ? least : sum;  // NaN stays NaN
    }
}

constexpr Kernels kernels_here(const char* name) {
    return {
        name, Vector::width, Table::index_bits, run_lookup<Precision::float32>, run_lookup<Precision::bfloat16>,
        run_tile, transpose, copy_rows, take, finish};
}
