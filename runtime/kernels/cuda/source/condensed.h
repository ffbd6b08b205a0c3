// What one thread does in the kernels of condensed.cu. Nothing here needs a GPU: the host runs the same code in tests.
//
// Row n of a layer has the non-zeros starts[n] to starts[n + 1]: `values`, and rising `columns`. Sums are float32.
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define SPARSEFX_ANYWHERE __host__ __device__ __forceinline__
#else
#define SPARSEFX_ANYWHERE inline
#endif

namespace sparsefx {

constexpr int kLanes = 32;               // threads of a warp
constexpr int kWarps = 8;                // of a block
constexpr int kThreads = kLanes * kWarps;
constexpr int kNeurons = 8;              // that a thread of the tiled and of the convolution kernel sums at once
constexpr int kChunk = 256;              // inputs of a tile
constexpr int kPitch = kLanes + 1;       // from one input of a tile to the next: threads never meet in a memory bank

template <class T> SPARSEFX_ANYWHERE float widened(T value) { return static_cast<float>(value); }
template <class T> SPARSEFX_ANYWHERE T narrowed(float value) { return static_cast<T>(value); }

template <class T>
struct Layer {
    const T* values;
    const int32_t* columns;
    const int32_t* starts;
    const T* bias;
    const T* residual;  // of the result's shape, or none
    int outputs;
    int activation;  // 0: none, 1: ReLU, 2: GELU

    SPARSEFX_ANYWHERE T finished(float sum, int neuron, int64_t place) const {
        sum += widened(bias[neuron]);
        if (residual != nullptr) sum += widened(residual[place]);
        if (activation == 1) sum = sum < 0.0f ? 0.0f : sum;  // keeps NaN
        if (activation == 2) sum = 0.5f * sum * (1.0f + erff(sum * 0.70710678f));
        return narrowed<T>(sum);
    }
};

// Few samples: the lanes of a warp share a row; this is one lane's part of the sum.
template <class T>
SPARSEFX_ANYWHERE float lane_sum(const Layer<T>& layer, const T* sample, int neuron, int lane) {
    float sum = 0.0f;
    for (int k = layer.starts[neuron] + lane; k < layer.starts[neuron + 1]; k += kLanes)
        sum += widened(layer.values[k]) * widened(sample[layer.columns[k]]);
    return sum;
}

// Many samples: a lane has a sample, a warp kNeurons rows, a block a tile of `kChunk` inputs of all lanes' samples.
struct Rows {
    float sums[kNeurons];
    int next[kNeurons];
    int end[kNeurons];

    template <class T> SPARSEFX_ANYWHERE void begin(const Layer<T>& layer, int first_neuron) {
        for (int i = 0; i < kNeurons; ++i) {
            const bool there = first_neuron + i < layer.outputs;
            sums[i] = 0.0f;
            next[i] = there ? layer.starts[first_neuron + i] : 0;
            end[i] = there ? layer.starts[first_neuron + i + 1] : 0;
        }
    }

    template <class T>
    SPARSEFX_ANYWHERE void add(const Layer<T>& layer, const float* tile, int first_input, int lane) {
        for (int i = 0; i < kNeurons; ++i)
            while (next[i] < end[i] && layer.columns[next[i]] < first_input + kChunk) {
                const int input = layer.columns[next[i]] - first_input;
                sums[i] += widened(layer.values[next[i]++]) * tile[input * kPitch + lane];
            }
    }
};

template <class T>
SPARSEFX_ANYWHERE void load_tile(
    float* tile, const T* x, int samples, int inputs, int64_t first_sample, int first_input, int thread) {
    for (int i = thread; i < kLanes * kChunk; i += kThreads) {
        const int input = i % kChunk, lane = i / kChunk;
        const bool there = first_sample + lane < samples && first_input + input < inputs;
        tile[input * kPitch + lane] = there ? widened(x[(first_sample + lane) * inputs + first_input + input]) : 0.0f;
    }
}

struct Window {
    int channels, height, width;          // of the input
    int out_height, out_width;
    int stride_height, stride_width;
    int padding_height, padding_width;    // on both sides
    int dilation_height, dilation_width;
};

// A convolution's column: channel of the input, row and column of the window.
SPARSEFX_ANYWHERE int packed_column(int channel, int down, int right) { return channel << 12 | down << 6 | right; }

// One output pixel of one neuron; pixels are counted through all images.
template <class T>
SPARSEFX_ANYWHERE float pixel_sum(const Layer<T>& layer, const Window& window, const T* x, int64_t pixel, int neuron) {
    const int area = window.out_height * window.out_width;
    const int64_t image = pixel / area;
    const int rest = static_cast<int>(pixel % area);
    const int top = rest / window.out_width * window.stride_height - window.padding_height;
    const int left = rest % window.out_width * window.stride_width - window.padding_width;
    const T* own = x + image * window.channels * window.height * window.width;
    float sum = 0.0f;
    for (int k = layer.starts[neuron]; k < layer.starts[neuron + 1]; ++k) {
        const int column = layer.columns[k];
        const int row = top + (column >> 6 & 63) * window.dilation_height;
        const int right = left + (column & 63) * window.dilation_width;
        const bool inside = row >= 0 && row < window.height && right >= 0 && right < window.width;
        const int64_t place = (static_cast<int64_t>(column >> 12) * window.height + row) * window.width + right;
        if (inside) sum += widened(layer.values[k]) * widened(own[place]);
    }
    return sum;
}

template <class T>
SPARSEFX_ANYWHERE int64_t pixel_place(const Layer<T>& layer, const Window& window, int64_t pixel, int neuron) {
    const int64_t area = static_cast<int64_t>(window.out_height) * window.out_width;
    return (pixel / area * layer.outputs + neuron) * area + pixel % area;
}

}  // namespace sparsefx
