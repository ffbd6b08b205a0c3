// The loops over a packed TileBlock, for the Vector that was included before.

// The places of a step's rows, 16 bits each, with one load.
inline uint32_t load_places(const char* places) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first place is the word's low half");
    uint32_t word;
    static_assert(sizeof word == kTogether * sizeof(uint16_t));
    std::memcpy(&word, places, sizeof word);
    return word;
}

// Into the cache what the sums of an output will be written over and added to, while others are summed.
template <int vectors>
void fetch_result(const TileResult& result, int64_t start) {
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) {
        __builtin_prefetch(result.y + start + v * Vector::width);
        if (result.residual != nullptr) __builtin_prefetch(result.residual + start + v * Vector::width);
    }
}

template <int vectors>
void store(const Vector* sum, float* out) {
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) sum[v].store(out + v * Vector::width);
}

// The sums of an output, on their way out.
template <int vectors>
void write_result(const Vector* sum, const TileResult& result, int64_t start) {
    const Vector least = Vector::broadcast(result.least);
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) {
        const int64_t place = start + v * Vector::width;
        const uint32_t lanes = v + 1 < vectors ? ~0u : result.lanes;
        Vector own = sum[v];
        if (result.residual != nullptr) own = own + Vector::load_where(result.residual + place, lanes);
        larger(least, own).store_where(result.y + place, lanes);
    }
}

template <int vectors, bool last>
void run_tile_of(
    const TileBlock& block, const float* tile, int64_t row_stride, const float* bias, float* sums,
    const TileResult* result) {
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
            if constexpr (last) {
                const uint32_t* later = outputs + kPairsAhead * together;
#pragma GCC unroll 2
                for (int r = 0; r < together; r++) fetch_result<vectors>(*result, later[r] * result->stride);
            }
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
            for (int r = 0; r < together; r++) {
                if (r > 0 && outputs[r] == outputs[0]) break;  // the result may lie where the residual did
                if constexpr (last)
                    write_result<vectors>(sum[r], *result, outputs[r] * result->stride);
                else
                    store<vectors>(sum[r], sums + outputs[r] * row_stride);
            }
        }
}

template <int vectors>
void run_tile_of(
    const TileBlock& block, const float* tile, int64_t row_stride, const float* bias, float* sums,
    const TileResult* result) {
    if (result == nullptr)
        run_tile_of<vectors, false>(block, tile, row_stride, bias, sums, nullptr);
    else
        run_tile_of<vectors, true>(block, tile, row_stride, bias, sums, result);
}

inline void run_tile(
    const TileBlock& block, const float* tile, int vectors, int64_t row_stride, const float* bias, float* sums,
    const TileResult* result) {
    switch (vectors) {
    case 1: return run_tile_of<1>(block, tile, row_stride, bias, sums, result);
    case 2: return run_tile_of<2>(block, tile, row_stride, bias, sums, result);
    case 3: return run_tile_of<3>(block, tile, row_stride, bias, sums, result);
    case 4: return run_tile_of<4>(block, tile, row_stride, bias, sums, result);
    case 5: return run_tile_of<5>(block, tile, row_stride, bias, sums, result);
    default: return run_tile_of<6>(block, tile, row_stride, bias, sums, result);
    }
}
