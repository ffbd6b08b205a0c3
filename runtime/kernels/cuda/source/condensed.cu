// Condensed layers for TensorRT: each kernel is one launch, with addresses of the inputs, sizes, then the result.
//
// linear_few    a warp for each neuron and sample: a handful of samples
// linear_many   tiles of 32 samples in shared memory, 64 neurons to a block
// conv2d        32 pixels and 64 neurons to a block
//
// Blocks have 256 threads. `nvcc -ptx` gives the parameters that are declared here, and no others.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "condensed.h"

namespace sparsefx {

template <class T>
__device__ void linear_few(const Layer<T>& layer, const T* x, int samples, int inputs, T* y) {
    const int lane = threadIdx.x % kLanes;
    const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
    if (unit >= static_cast<int64_t>(samples) * layer.outputs) return;
    const int64_t sample = unit / layer.outputs;
    const int neuron = static_cast<int>(unit % layer.outputs);
    float sum = lane_sum(layer, x + sample * inputs, neuron, lane);
    for (int other = kLanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane == 0) y[unit] = layer.finished(sum, neuron, unit);
}

template <class T>
__device__ void linear_many(const Layer<T>& layer, const T* x, int samples, int inputs, T* y) {
    __shared__ float tile[kChunk * kPitch];
    const int lane = threadIdx.x % kLanes;
    const int first_neuron = (blockIdx.y * kWarps + threadIdx.x / kLanes) * kNeurons;
    const int64_t first_sample = static_cast<int64_t>(blockIdx.x) * kLanes;
    Rows rows;
    rows.begin(layer, first_neuron);
    for (int first_input = 0; first_input < inputs; first_input += kChunk) {
        load_tile(tile, x, samples, inputs, first_sample, first_input, threadIdx.x);
        __syncthreads();
        rows.add(layer, tile, first_input, lane);
        __syncthreads();
    }
    const int64_t sample = first_sample + lane;
    for (int i = 0; i < kNeurons; ++i) {
        const int64_t place = sample * layer.outputs + first_neuron + i;
        if (sample < samples && first_neuron + i < layer.outputs)
            y[place] = layer.finished(rows.sums[i], first_neuron + i, place);
    }
}

template <class T>
__device__ void conv2d(const Layer<T>& layer, const Window& window, const T* x, int images, T* y) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kLanes + threadIdx.x % kLanes;
    if (pixel >= static_cast<int64_t>(images) * window.out_height * window.out_width) return;
    const int first_neuron = (blockIdx.y * kWarps + threadIdx.x / kLanes) * kNeurons;
    for (int neuron = first_neuron; neuron < min(first_neuron + kNeurons, layer.outputs); ++neuron) {
        const int64_t place = pixel_place(layer, window, pixel, neuron);
        y[place] = layer.finished(pixel_sum(layer, window, x, pixel, neuron), neuron, place);
    }
}

}  // namespace sparsefx

#define SPARSEFX_MATRIX(T) const T *x, const T *values, const int *columns, const int *starts, const T *bias

#define SPARSEFX_LINEAR(form, name, T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(sparsefx::kThreads) sparsefx_linear_##form##_##name(                  \
        SPARSEFX_MATRIX(T), int samples, int inputs, int outputs, int activation, T* y) {                              \
        const sparsefx::Layer<T> layer{values, columns, starts, bias, nullptr, outputs, activation};                   \
        sparsefx::linear_##form(layer, x, samples, inputs, y);                                                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(sparsefx::kThreads) sparsefx_linear_##form##_##name##_add(            \
        SPARSEFX_MATRIX(T), const T* residual, int samples, int inputs, int outputs, int activation, T* y) {           \
        const sparsefx::Layer<T> layer{values, columns, starts, bias, residual, outputs, activation};                  \
        sparsefx::linear_##form(layer, x, samples, inputs, y);                                                         \
    }

#define SPARSEFX_WINDOW                                                                                                \
    int images, int channels, int height, int width, int outputs, int out_height, int out_width, int stride_height,    \
        int stride_width, int padding_height, int padding_width, int dilation_height, int dilation_width,              \
        int activation
#define SPARSEFX_WINDOW_VALUE                                                                                          \
    const sparsefx::Window window {                                                                                    \
        channels, height, width, out_height, out_width, stride_height, stride_width, padding_height, padding_width,    \
            dilation_height, dilation_width                                                                            \
    }

#define SPARSEFX_CONV2D(name, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(sparsefx::kThreads)                                                   \
        sparsefx_conv2d_##name(SPARSEFX_MATRIX(T), SPARSEFX_WINDOW, T* y) {                                            \
        const sparsefx::Layer<T> layer{values, columns, starts, bias, nullptr, outputs, activation};                   \
        SPARSEFX_WINDOW_VALUE;                                                                                         \
        sparsefx::conv2d(layer, window, x, images, y);                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(sparsefx::kThreads)                                                   \
        sparsefx_conv2d_##name##_add(SPARSEFX_MATRIX(T), const T* residual, SPARSEFX_WINDOW, T* y) {                   \
        const sparsefx::Layer<T> layer{values, columns, starts, bias, residual, outputs, activation};                  \
        SPARSEFX_WINDOW_VALUE;                                                                                         \
        sparsefx::conv2d(layer, window, x, images, y);                                                                 \
    }

#define SPARSEFX_KERNELS(name, T)                                                                                      \
    SPARSEFX_LINEAR(few, name, T)                                                                                      \
    SPARSEFX_LINEAR(many, name, T)                                                                                     \
    SPARSEFX_CONV2D(name, T)

SPARSEFX_KERNELS(float32, float)
SPARSEFX_KERNELS(float16, __half)
SPARSEFX_KERNELS(bfloat16, __nv_bfloat16)
