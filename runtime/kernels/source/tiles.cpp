#include "tiles.h"

#include <algorithm>
#include <numeric>

namespace sparsefx {

namespace {

// The non-zeros of one segment's outputs in one block of rows of the tile.
struct Entry {
    uint32_t row;
    float value;
};
using Entries = std::vector<std::vector<Entry>>;

class TilePacker {
public:
    explicit TilePacker(int row_vectors) : row_vectors_(row_vectors) {}

    // Offsets into the three arrays, as pointers once all is packed.
    struct Place {
        size_t steps, runs, outputs;
        uint32_t run_count;
    };

    Place pack(const Entries& entries) {
        const Place place{steps.size(), runs.size(), outputs.size(), 0};
        std::vector<uint32_t> order(entries.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
            return entries[a].size() < entries[b].size();
        });
        for (size_t i = 0; i < order.size(); i += kTogether) add_group(entries, order, i, place.runs);
        return {place.steps, place.runs, place.outputs, static_cast<uint32_t>(runs.size() - place.runs)};
    }

    std::vector<char> steps;
    std::vector<uint32_t> outputs;
    std::vector<TileRun> runs;

private:
    void add_group(const Entries& entries, const std::vector<uint32_t>& order, size_t first, size_t first_run) {
        const size_t last = std::min(first + kTogether, order.size()) - 1;
        const uint32_t count = static_cast<uint32_t>(entries[order[last]].size());
        if (runs.size() == first_run || runs.back().steps != count) runs.push_back({count, 0});
        runs.back().groups++;
        for (size_t r = 0; r < kTogether; r++) outputs.push_back(order[first + r <= last ? first + r : first]);
        for (uint32_t s = 0; s < count; s++) {
            const size_t start = steps.size();
            steps.resize(start + kTogether * kEntryBytes);
            for (size_t r = 0; r < kTogether; r++) {
                const auto& own = entries[order[first + r <= last ? first + r : first]];
                const Entry entry = s < own.size() ? own[s] : Entry{0, 0.0f};
                const uint16_t place = static_cast<uint16_t>(entry.row * static_cast<uint32_t>(row_vectors_));
                std::memcpy(&steps[start + r * sizeof(float)], &entry.value, sizeof(float));
                std::memcpy(&steps[start + kTogether * sizeof(float) + r * sizeof(place)], &place, sizeof(place));
            }
        }
    }

    const int row_vectors_;
};

std::vector<int32_t> used_columns(const SparseMatrix& matrix) {
    std::vector<bool> seen(static_cast<size_t>(matrix.columns_count));
    for (int64_t i = 0; i < matrix.nonzeros(); i++) seen[static_cast<size_t>(matrix.columns[i])] = true;
    std::vector<int32_t> used;
    for (size_t c = 0; c < seen.size(); c++)
        if (seen[c]) used.push_back(static_cast<int32_t>(c));
    return used;
}

}  // namespace

TileShape TileShape::strips_for(int64_t vectors) {
    const int64_t most = std::max<int64_t>(1, (vectors + kMostVectors - 1) / kMostVectors);
    const int64_t strips = (most + kMostTiles - 1) / kMostTiles, tiles = (most + strips - 1) / strips;
    const int64_t wide = std::max<int64_t>(1, (vectors + strips * tiles - 1) / (strips * tiles));
    // An odd distance spreads the rows of a tile over all of the cache.
    return {static_cast<int>(wide), static_cast<int>(tiles), static_cast<int>(tiles == 1 ? wide : tiles * wide | 1)};
}

TileForm pack_tiles(const SparseMatrix& matrix, int width, TileShape shape, int64_t least_segments) {
    TileForm form;
    form.shape = shape;
    const int row_vectors = shape.vectors;
    form.used = used_columns(matrix);
    form.block_rows = std::max<int64_t>(1, kBlockBytes / (shape.vectors * width * static_cast<int64_t>(sizeof(float))));
    const int64_t rows = static_cast<int64_t>(form.used.size());
    const int64_t blocks = std::max<int64_t>(1, (rows + form.block_rows - 1) / form.block_rows);
    form.block_rows = std::max<int64_t>(1, (rows + blocks - 1) / blocks);
    std::vector<uint32_t> row_of(static_cast<size_t>(matrix.columns_count));
    for (size_t r = 0; r < form.used.size(); r++) row_of[static_cast<size_t>(form.used[r])] = static_cast<uint32_t>(r);

    TilePacker packer(row_vectors);
    std::vector<std::vector<TilePacker::Place>> places;
    const int64_t most = kSegmentBytes / (shape.row_vectors * width * static_cast<int64_t>(sizeof(float)));
    const int64_t segments = std::min(matrix.rows, std::max(least_segments, (matrix.rows + most - 1) / most));
    for (int64_t s = 0; s < segments; s++) {
        const int64_t first = matrix.rows * s / segments, next = matrix.rows * (s + 1) / segments;
        std::vector<Entries> entries(static_cast<size_t>(blocks), Entries(static_cast<size_t>(next - first)));
        for (int64_t n = first; n < next; n++)
            for (int64_t i = matrix.starts[n]; i < matrix.starts[n + 1]; i++) {
                const int64_t row = row_of[static_cast<size_t>(matrix.columns[i])], block = row / form.block_rows;
                entries[static_cast<size_t>(block)][static_cast<size_t>(n - first)].push_back(
                    {static_cast<uint32_t>(row - block * form.block_rows), matrix.values[i]});
            }
        places.emplace_back();
        for (const Entries& block : entries) places.back().push_back(packer.pack(block));
        form.segments.push_back({first, next - first, {}});
    }
    form.steps = Buffer::of(packer.steps);
    form.runs = Buffer::of(packer.runs);
    form.outputs = Buffer::of(packer.outputs, kPairsAhead * kTogether * sizeof(uint32_t));
    for (size_t s = 0; s < places.size(); s++)
        for (const TilePacker::Place& place : places[s])
            form.segments[s].blocks.push_back(
                {form.steps.as<char>() + place.steps,
                 form.runs.as<TileRun>() + place.runs,
                 form.outputs.as<uint32_t>() + place.outputs,
                 place.run_count});
    return form;
}

}  // namespace sparsefx
