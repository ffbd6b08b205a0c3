// Runs the threads of condensed.cu's kernels one after another, on the host.

#include "condensed.h"

using namespace sparsefx;

extern "C" {

void linear_few(const Layer<float>* layer, const float* x, int samples, int inputs, float* y) {
    for (int sample = 0; sample < samples; ++sample)
        for (int neuron = 0; neuron < layer->outputs; ++neuron) {
            float sum = 0.0f;
            for (int lane = 0; lane < kLanes; ++lane)
                sum += lane_sum(*layer, x + static_cast<int64_t>(sample) * inputs, neuron, lane);
            const int64_t place = static_cast<int64_t>(sample) * layer->outputs + neuron;
            y[place] = layer->finished(sum, neuron, place);
        }
}

void linear_many(const Layer<float>* layer, const float* x, int samples, int inputs, float* y) {
    static float tile[kChunk * kPitch];
    static Rows rows[kThreads];
    for (int first_sample = 0; first_sample < samples; first_sample += kLanes)
        for (int block = 0; block * kWarps * kNeurons < layer->outputs; ++block) {
            for (int thread = 0; thread < kThreads; ++thread)
                rows[thread].begin(*layer, (block * kWarps + thread / kLanes) * kNeurons);
            for (int first_input = 0; first_input < inputs; first_input += kChunk) {
                for (int thread = 0; thread < kThreads; ++thread)
                    load_tile(tile, x, samples, inputs, first_sample, first_input, thread);
                for (int thread = 0; thread < kThreads; ++thread)
                    rows[thread].add(*layer, tile, first_input, thread % kLanes);
            }
            for (int thread = 0; thread < kThreads; ++thread)
                for (int i = 0; i < kNeurons; ++i) {
                    const int sample = first_sample + thread % kLanes;
                    const int neuron = (block * kWarps + thread / kLanes) * kNeurons + i;
                    const int64_t place = static_cast<int64_t>(sample) * layer->outputs + neuron;
                    if (sample < samples && neuron < layer->outputs)
                        y[place] = layer->finished(rows[thread].sums[i], neuron, place);
                }
        }
}

void conv2d(const Layer<float>* layer, const Window* window, const float* x, int images, float* y) {
    const int64_t pixels = static_cast<int64_t>(images) * window->out_height * window->out_width;
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
        for (int neuron = 0; neuron < layer->outputs; ++neuron) {
            const int64_t place = pixel_place(*layer, *window, pixel, neuron);
            y[place] = layer->finished(pixel_sum(*layer, *window, x, pixel, neuron), neuron, place);
        }
}

int column_of(int channel, int down, int right) { return packed_column(channel, down, right); }
}
