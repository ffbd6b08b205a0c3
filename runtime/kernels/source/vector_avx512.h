// Sixteen floats in a register of AVX-512.

struct Vector {
    static constexpr int width = 16;

    __m512 value;

    static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Vector broadcast(float x) { return {_mm512_set1_ps(x)}; }
    // The bfloat16 in the lower (bit 0) or the upper half (bit 16) of each word.
    static Vector from_bfloat16(const uint32_t* words, int bit) {
        const __m512i word = _mm512_loadu_si512(words), upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
        return {_mm512_castsi512_ps(bit == 0 ? _mm512_slli_epi32(word, 16) : _mm512_and_si512(word, upper))};
    }
    void store(float* p) const { _mm512_storeu_ps(p, value); }
    // The lanes that have a bit; the others are zero, and not read or written.
    static Vector load_where(const float* p, uint32_t lanes) {
        return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), p)};
    }
    void store_where(float* p, uint32_t lanes) const { _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lanes), value); }
    // b where the word has the bit, else a.
    static Vector choose(const uint32_t* words, int bit, Vector a, Vector b) {
        const __mmask16 set = _mm512_test_epi32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32(1 << bit));
        return {_mm512_mask_blend_ps(set, a.value, b.value)};
    }
    // Every second lane of both.
    static Vector evens(Vector a, Vector b) {
        const __m512i places = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        return {_mm512_permutex2var_ps(a.value, places, b.value)};
    }
    friend Vector multiply_add(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.value, b.value, c.value)}; }
    // The larger one; b where either is NaN.
    friend Vector larger(Vector a, Vector b) { return {_mm512_max_ps(a.value, b.value)}; }
    // The smaller one; b where either is NaN.
    friend Vector smaller(Vector a, Vector b) { return {_mm512_min_ps(a.value, b.value)}; }
    friend Vector operator+(Vector a, Vector b) { return {_mm512_add_ps(a.value, b.value)}; }
    friend Vector operator*(Vector a, Vector b) { return {_mm512_mul_ps(a.value, b.value)}; }
    friend Vector operator/(Vector a, Vector b) { return {_mm512_div_ps(a.value, b.value)}; }
};

#include "table.h"

constexpr TableSizes kTables = {5, 8, {1.5, 3, 5.5, 10.5}};

// 32 floats in two registers, looked up lane by lane: `vpermi2ps` takes the low five bits of an index.
template <>
class Table<5> {
public:
    explicit Table(const float* inputs) : low_(_mm512_loadu_ps(inputs)), high_(_mm512_loadu_ps(inputs + 16)) {}

    // The entry that the index from this bit on of each of 16 words says.
    Vector at(const uint32_t* words, int bit) const {
        const __m512i index = _mm512_srli_epi32(_mm512_loadu_si512(words), static_cast<unsigned>(bit));
        return {_mm512_permutex2var_ps(low_, index, high_)};
    }

private:
    __m512 low_, high_;
};

// out[j][i] = in[i][j] for 16 by 16 floats; strides in floats.
inline void transpose_block(const float* in, ptrdiff_t in_stride, float* out, ptrdiff_t out_stride) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(in + i * in_stride);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) {
            const __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + h + 2]);
            r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        _mm512_storeu_ps(out + j * out_stride, _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88));
        _mm512_storeu_ps(out + (j + 8) * out_stride, _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd));
    }
}
