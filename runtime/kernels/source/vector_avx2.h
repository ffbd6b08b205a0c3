// Eight floats in a register of AVX2 with FMA.

struct Vector {
    static constexpr int width = 8;

    __m256 value;

    static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static Vector broadcast(float x) { return {_mm256_set1_ps(x)}; }
    // The bfloat16 in the lower (bit 0) or the upper half (bit 16) of each word.
    static Vector from_bfloat16(const uint32_t* words, int bit) {
        const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
        const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
        return {_mm256_castsi256_ps(bit == 0 ? _mm256_slli_epi32(word, 16) : _mm256_and_si256(word, upper))};
    }
    void store(float* p) const { _mm256_storeu_ps(p, value); }
    // The lanes that have a bit; the others are zero, and not read or written.
    static Vector load_where(const float* p, uint32_t lanes) { return {_mm256_maskload_ps(p, mask(lanes))}; }
    void store_where(float* p, uint32_t lanes) const { _mm256_maskstore_ps(p, mask(lanes), value); }
    // b where the word has the bit, else a.
    static Vector choose(const uint32_t* words, int bit, Vector a, Vector b) {
        const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
        return {_mm256_blendv_ps(a.value, b.value, _mm256_castsi256_ps(_mm256_slli_epi32(word, 31 - bit)))};
    }
    // Every second lane of both.
    static Vector evens(Vector a, Vector b) {
        const __m256d halves = _mm256_castps_pd(_mm256_shuffle_ps(a.value, b.value, 0x88));
        return {_mm256_castpd_ps(_mm256_permute4x64_pd(halves, 0xd8))};
    }
    friend Vector multiply_add(Vector a, Vector b, Vector c) { return {_mm256_fmadd_ps(a.value, b.value, c.value)}; }
    // The larger one; b where either is NaN.
    friend Vector larger(Vector a, Vector b) { return {_mm256_max_ps(a.value, b.value)}; }
    // The smaller one; b where either is NaN.
    friend Vector smaller(Vector a, Vector b) { return {_mm256_min_ps(a.value, b.value)}; }
    friend Vector operator+(Vector a, Vector b) { return {_mm256_add_ps(a.value, b.value)}; }
    friend Vector operator*(Vector a, Vector b) { return {_mm256_mul_ps(a.value, b.value)}; }
    friend Vector operator/(Vector a, Vector b) { return {_mm256_div_ps(a.value, b.value)}; }

private:
    static __m256i mask(uint32_t lanes) {
        const __m256i bits = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
        return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bits), bits);
    }
};

#include "table.h"

constexpr TableSizes kTables = {4, 5, {3, 7}};

// Eight floats in a register, which the low three bits of an index permute.
template <>
class Table<3> {
public:
    explicit Table(const float* inputs) : inputs_(_mm256_loadu_ps(inputs)) {}

    // The entry that the index from this bit on of each of eight words says.
    Vector at(const uint32_t* words, int bit) const {
        const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
        return {_mm256_permutevar8x32_ps(inputs_, _mm256_srli_epi32(word, bit))};
    }

private:
    __m256 inputs_;
};

// out[j][i] = in[i][j] for eight by eight floats; strides in floats.
inline void transpose_block(const float* in, ptrdiff_t in_stride, float* out, ptrdiff_t out_stride) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(in + i * in_stride);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            r[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0x44);
            r[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0xee);
        }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(out + j * out_stride, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
        _mm256_storeu_ps(out + (j + 4) * out_stride, _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
    }
}
