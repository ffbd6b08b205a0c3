// The loops over a packed LookupStream, for the Vector and Table that were included before.

constexpr int kLine = 16;     // words of a cache line
constexpr int kAhead = 1024;  // words: how far the stream is fetched ahead

template <Precision precision>
Vector weights_at(const uint32_t* words, int bit) {
    if (precision == Precision::bfloat16) return Vector::from_bfloat16(words, bit);
    return Vector::load(reinterpret_cast<const float*>(words));
}

template <Precision precision, int bits, int slots>
const uint32_t* run_groups(
    const Table<bits>& table, const uint32_t* stream, const uint16_t* groups, uint32_t count, float* y) {
    constexpr int words = words_of(precision, slots, bits);
    for (uint32_t i = 0; i < count; i++, stream += words * Vector::width) {
        float* place = y + size_t{groups[i]} * Vector::width;
#pragma GCC unroll 20
        for (int word = 0; word < words * Vector::width; word += kLine) __builtin_prefetch(stream + kAhead + word);
        Vector sums[2] = {Vector::load(place), Vector::broadcast(0)};
#pragma GCC unroll 16
        for (int s = 0; s < slots; s++) {
            const LanePlace index = place_of_index(precision, s, bits);
            const LanePlace weight = place_of_weight(precision, slots, s, bits);
            const Vector x = table.at(stream + index.word * Vector::width, index.bit);
            const Vector w = weights_at<precision>(stream + weight.word * Vector::width, weight.bit);
            sums[s % 2] = multiply_add(w, x, sums[s % 2]);
        }
        (sums[0] + sums[1]).store(place);
    }
    return stream;
}

template <Precision precision, int bits>
const uint32_t* run_groups(
    uint32_t slots, const Table<bits>& table, const uint32_t* stream, const uint16_t* groups, uint32_t count, float* y) {
    switch (slots) {
    case 1: return run_groups<precision, bits, 1>(table, stream, groups, count, y);
    case 2: return run_groups<precision, bits, 2>(table, stream, groups, count, y);
    case 3: return run_groups<precision, bits, 3>(table, stream, groups, count, y);
    case 4: return run_groups<precision, bits, 4>(table, stream, groups, count, y);
    case 5: return run_groups<precision, bits, 5>(table, stream, groups, count, y);
    case 6: return run_groups<precision, bits, 6>(table, stream, groups, count, y);
    case 7: return run_groups<precision, bits, 7>(table, stream, groups, count, y);
    case 8: return run_groups<precision, bits, 8>(table, stream, groups, count, y);
    case 9: return run_groups<precision, bits, 9>(table, stream, groups, count, y);
    case 10: return run_groups<precision, bits, 10>(table, stream, groups, count, y);
    case 11: return run_groups<precision, bits, 11>(table, stream, groups, count, y);
    case 12: return run_groups<precision, bits, 12>(table, stream, groups, count, y);
    case 13: return run_groups<precision, bits, 13>(table, stream, groups, count, y);
    case 14: return run_groups<precision, bits, 14>(table, stream, groups, count, y);
    case 15: return run_groups<precision, bits, 15>(table, stream, groups, count, y);
    default: return run_groups<precision, bits, 16>(table, stream, groups, count, y);
    }
}

template <Precision precision, int bits>
void run_lookup(const LookupStream& part, int64_t blocks, const float* x, float* y) {
    const uint32_t* stream = part.data;
    const LookupRun* run = part.runs;
    for (int64_t b = 0; b < blocks; b++) {
        const Table<bits> table(x + (b << bits));
        for (uint32_t i = 0; i < part.runs_of_block[b]; i++, run++)
            stream = run_groups<precision, bits>(run->slots, table, stream, part.group_ids + run->first_id, run->groups, y);
    }
    for (size_t i = 0; i < part.overflow; i++)
        y[part.overflow_rows[i]] += part.overflow_values[i] * x[part.overflow_columns[i]];
}
