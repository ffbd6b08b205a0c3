// A node of one of the condensed operators, as ONNX Runtime makes and runs it.
//
// Inputs: x; values (non-zeros, float); gaps (uint8): from each non-zero to the next in the flattened weight, the first
// counted from one place in front of it; bias; and for some variants the residual. Attributes: `shape` of the weight; a
// convolution has `strides`, `pads`, `dilations`, `group` as ONNX's Conv, and `pixels`, its output pixels, about. Where
// the session's entries say nothing, `threads` and `bfloat16` (1: how a linear layer stores its weights) do, if there.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "convolution.h"
#include "linear.h"
#include "onnxruntime_api.h"

namespace sparsefx {

struct Variant {
    const char* name;
    bool convolution, residual;
    Activation activation;
};

enum Input : size_t { kX, kValues, kGaps, kBias, kResidual };

// What a session's entries say, if anything.
struct Settings {
    std::optional<int> threads;
    std::optional<Precision> precision;  // of the linear layers
};

class Kernel {
public:
    Kernel(const ort::Api& api, const ort::Info* info, const Variant& variant, const Settings& settings);

    void run(ort::Context* context) const;

private:
    void make(const ort::Info* info, const SparseMatrix& matrix, const float* bias);
    ort::Tensor input(ort::Context* context, Input number) const;
    std::vector<int64_t> linear_sizes(const ort::Tensor& x) const;
    std::vector<int64_t> convolution_sizes(const ort::Tensor& x) const;

    const ort::Api api_;
    const Variant& variant_;
    const int threads_;
    const Precision precision_;
    std::vector<int64_t> shape_;
    Axis height_{}, width_{};
    std::unique_ptr<Linear> linear_;
    std::unique_ptr<Convolution> convolution_;
};

}  // namespace sparsefx
