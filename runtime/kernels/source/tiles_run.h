// The loops over a packed TileBlock, for the Vector that was included before.

// The places of a step's rows, 16 bits each, with one load.
inline uint32_t load_places(const char* places) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first place is the word's low half");
    uint32_t word;
    static_assert(sizeof word == kTogether * sizeof(uint16_t));
    std::memcpy(&word, places, sizeof word);
    return word;
}

template <int vectors>
void run_tile_of(const TileBlock& block, const float* tile, int64_t row_stride, const float* bias, float* sums) {
    constexpr int together = kTogether;
    const char* step = block.steps;
    const uint32_t* outputs = block.outputs;
    for (const TileRun* run = block.runs; run < block.runs + block.run_count; run++)
        for (uint32_t g = 0; g < run->groups; g++, outputs += together) {
            Vector sum[together][vectors];
#pragma GCC unroll 2
            for (int r = 0; r < together; r++)
#pragma GCC unroll 6
                for (int v = 0; v < vectors; v++)
                    sum[r][v] = bias != nullptr ? Vector::broadcast(bias[outputs[r]])
                                                : Vector::load(sums + outputs[r] * row_stride + v * Vector::width);
            for (uint32_t s = 0; s < run->steps; s++, step += together * kEntryBytes) {
                const uint32_t places = load_places(step + together * sizeof(float));
#pragma GCC unroll 2
                for (int r = 0; r < together; r++) {
                    const Vector weight = Vector::broadcast(reinterpret_cast<const float*>(step)[r]);
                    const float* row = tile + (places >> (16 * r) & 0xffff) * Vector::width;
#pragma GCC unroll 6
                    for (int v = 0; v < vectors; v++)
                        sum[r][v] = multiply_add(weight, Vector::load(row + v * Vector::width), sum[r][v]);
                }
            }
#pragma GCC unroll 2
            for (int r = 0; r < together; r++)
#pragma GCC unroll 6
                for (int v = 0; v < vectors; v++) sum[r][v].store(sums + outputs[r] * row_stride + v * Vector::width);
        }
}

inline void run_tile(
    const TileBlock& block, const float* tile, int vectors, int64_t row_stride, const float* bias, float* sums) {
    switch (vectors) {
    case 1: return run_tile_of<1>(block, tile, row_stride, bias, sums);
    case 2: return run_tile_of<2>(block, tile, row_stride, bias, sums);
    case 3: return run_tile_of<3>(block, tile, row_stride, bias, sums);
    case 4: return run_tile_of<4>(block, tile, row_stride, bias, sums);
    case 5: return run_tile_of<5>(block, tile, row_stride, bias, sums);
    default: return run_tile_of<6>(block, tile, row_stride, bias, sums);
    }
}
