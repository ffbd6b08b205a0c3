// The form of a matrix for many input vectors at once (tokens, or the pixels of an image), features-major.
//
// A tile is a piece of the input, some vectors wide, one row a feature; a block of its rows stays in the first-level
// cache. Tiles beside each other are taken together, a strip. Outputs are taken two at a time; each non-zero multiplies
// one row of the tile and adds to one row of accumulators. Outputs are in segments, whose sums stay in the second-level
// cache from block to block and which threads share out. Within a block, outputs are sorted by their number of
// non-zeros, so that two go in step.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "sparse_matrix.h"

namespace sparsefx {

constexpr int kMostVectors = 6;  // of a tile's width
constexpr int kTogether = 2;     // outputs, whose accumulators fit into 16 registers
constexpr int kPairsAhead = 1;   // pairs of outputs, whose results are fetched before they are needed
constexpr int kMostTiles = 4;    // beside each other, a strip
constexpr int64_t kBlockBytes = 48 << 10;  // of a block of a tile
constexpr int kEntryBytes = sizeof(float) + sizeof(uint16_t);  // of a weight and its place
constexpr int64_t kSegmentBytes = 640 << 10;  // of a segment's sums

// `groups` pairs of outputs with `steps` non-zeros each.
struct TileRun {
    uint32_t steps, groups;
};

// One block of rows of one segment. A step is a weight (float) for each of the outputs taken together,
// and then for each the place of a row in the block (16 bits, in vectors).
struct TileBlock {
    const char* steps;
    const TileRun* runs;
    const uint32_t* outputs;  // within the segment; where one is missing at the end, the group repeats its first
    uint32_t run_count;
};

struct TileSegment {
    int64_t first_output = 0, outputs = 0;
    std::vector<TileBlock> blocks;
};

// How wide tiles are, and how many vectors lie between two rows of a strip.
struct TileShape {
    int vectors, tiles, row_vectors;

    // One tile to a strip.
    static TileShape single(int vectors) { return {vectors, 1, vectors}; }
    // For rows of so many vectors.
    static TileShape strips_for(int64_t vectors);

    int64_t strip_vectors() const { return int64_t{tiles} * vectors; }
};

struct TileForm {
    TileShape shape;
    int64_t block_rows = 0;
    std::vector<int32_t> used;        // the columns that have a non-zero: the rows of a tile, in order
    std::vector<TileSegment> segments;

    Buffer steps, runs, outputs;      // what the blocks point into
};

TileForm pack_tiles(const SparseMatrix& matrix, int width, TileShape shape, int64_t least_segments);

// Where the sums of a tile go after the last block: y[output * stride ...] = max(sum + residual, least).
struct TileResult {
    float* y;
    const float* residual;  // may be null
    int64_t stride;
    uint32_t lanes;  // of the last vector: bits
    float least;
};

// sums[output * sums_stride ...] = bias or what is there, plus the block's product; `vectors` of each row. `bias` is of
// the segment's outputs; it is given for the first block only. With a `result`, the sums go there instead.
using RunTile = void (*)(
    const TileBlock& block, const float* tile, int vectors, int64_t sums_stride, const float* bias, float* sums,
    const TileResult* result);

}  // namespace sparsefx
