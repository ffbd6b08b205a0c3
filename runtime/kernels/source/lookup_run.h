// The loops over a packed LookupStream, for the Vector and Table that were included before.

template <int slots>
const uint32_t* run_groups(const Table& table, const uint32_t* stream, const uint32_t* groups, uint32_t count, float* y) {
    constexpr int per_word = 32 / Table::index_bits, words = (slots + per_word - 1) / per_word;
    for (uint32_t i = 0; i < count; i++, stream += (words + slots) * Vector::width) {
        float* place = y + size_t{groups[i]} * Vector::width;
        const float* weights = reinterpret_cast<const float*>(stream + words * Vector::width);
        Vector sums[2] = {Vector::load(place), Vector::broadcast(0)};
#pragma GCC unroll 12
        for (int s = 0; s < slots; s++) {
            const Vector x = table.at(stream + s / per_word * Vector::width, s % per_word);
            sums[s % 2] = multiply_add(Vector::load(weights + s * Vector::width), x, sums[s % 2]);
        }
        (sums[0] + sums[1]).store(place);
    }
    return stream;
}

inline const uint32_t* run_groups(
    uint32_t slots, const Table& table, const uint32_t* stream, const uint32_t* groups, uint32_t count, float* y) {
    switch (slots) {
    case 1: return run_groups<1>(table, stream, groups, count, y);
    case 2: return run_groups<2>(table, stream, groups, count, y);
    case 3: return run_groups<3>(table, stream, groups, count, y);
    case 4: return run_groups<4>(table, stream, groups, count, y);
    case 5: return run_groups<5>(table, stream, groups, count, y);
    case 6: return run_groups<6>(table, stream, groups, count, y);
    case 7: return run_groups<7>(table, stream, groups, count, y);
    case 8: return run_groups<8>(table, stream, groups, count, y);
    case 9: return run_groups<9>(table, stream, groups, count, y);
    case 10: return run_groups<10>(table, stream, groups, count, y);
    case 11: return run_groups<11>(table, stream, groups, count, y);
    default: return run_groups<12>(table, stream, groups, count, y);
    }
}

inline void run_lookup(const LookupStream& part, int64_t blocks, const float* x, float* y) {
    const uint32_t *stream = part.data, *groups = part.group_ids;
    const LookupRun* run = part.runs;
    for (int64_t b = 0; b < blocks; b++) {
        const Table table(x + (b << Table::index_bits));
        for (uint32_t i = 0; i < part.runs_of_block[b]; i++, run++) {
            stream = run_groups(run->slots, table, stream, groups, run->groups, y);
            groups += run->groups;
        }
    }
    for (size_t i = 0; i < part.overflow; i++)
        y[part.overflow_rows[i]] += part.overflow_values[i] * x[part.overflow_columns[i]];
}
