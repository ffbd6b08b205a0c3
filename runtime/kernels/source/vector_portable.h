// Four floats that any compiler turns into what its processor has.

struct Vector {
    static constexpr int width = 4;

    float value[4];

    static Vector load(const float* p) {
        Vector v;
        std::memcpy(v.value, p, sizeof v.value);
        return v;
    }
    static Vector broadcast(float x) { return {{x, x, x, x}}; }
    // The bfloat16 in the lower (bit 0) or the upper half (bit 16) of each word.
    static Vector from_bfloat16(const uint32_t* words, int bit) {
        Vector v;
        for (int i = 0; i < 4; i++) {
            const uint32_t bits = words[i] >> bit << 16;
            std::memcpy(&v.value[i], &bits, sizeof bits);
        }
        return v;
    }
    void store(float* p) const { std::memcpy(p, value, sizeof value); }
    // The lanes that have a bit; the others are zero, and not read or written.
    static Vector load_where(const float* p, uint32_t lanes) {
        Vector v;
        for (int i = 0; i < width; i++) v.value[i] = lanes >> i & 1 ? p[i] : 0;
        return v;
    }
    void store_where(float* p, uint32_t lanes) const {
        for (int i = 0; i < width; i++)
            if (lanes >> i & 1) p[i] = value[i];
    }
    // Every second lane of both.
    static Vector evens(Vector a, Vector b) { return {{a.value[0], a.value[2], b.value[0], b.value[2]}}; }
    friend Vector multiply_add(Vector a, Vector b, Vector c) {
        for (int i = 0; i < 4; i++) c.value[i] += a.value[i] * b.value[i];
        return c;
    }
    // The larger one; b where either is NaN.
    friend Vector larger(Vector a, Vector b) {
        for (int i = 0; i < 4; i++) b.value[i] = a.value[i] > b.value[i] ? a.value[i] : b.value[i];
        return b;
    }
    // The smaller one; b where either is NaN.
    friend Vector smaller(Vector a, Vector b) {
        for (int i = 0; i < 4; i++) b.value[i] = a.value[i] < b.value[i] ? a.value[i] : b.value[i];
        return b;
    }
    friend Vector operator+(Vector a, Vector b) {
        for (int i = 0; i < 4; i++) a.value[i] += b.value[i];
        return a;
    }
    friend Vector operator*(Vector a, Vector b) {
        for (int i = 0; i < 4; i++) a.value[i] *= b.value[i];
        return a;
    }
    friend Vector operator/(Vector a, Vector b) {
        for (int i = 0; i < 4; i++) a.value[i] /= b.value[i];
        return a;
    }
};

constexpr TableSizes kTables = {5, 8, {4, 4, 4, 4}};

// 2^bits floats in memory.
template <int bits>
class Table {
public:
    explicit Table(const float* inputs) : inputs_(inputs) {}

    // The entry that the index from this bit on of each of four words says.
    Vector at(const uint32_t* words, int bit) const {
        Vector v;
        for (int i = 0; i < 4; i++) v.value[i] = inputs_[words[i] >> bit & ((1u << bits) - 1)];
        return v;
    }

private:
    const float* inputs_;
};

// out[j][i] = in[i][j] for four by four floats; strides in floats.
inline void transpose_block(const float* in, ptrdiff_t in_stride, float* out, ptrdiff_t out_stride) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) out[j * out_stride + i] = in[i * in_stride + j];
}
