#include "onnxruntime_kernel.h"

#include <climits>
#include <string>

namespace sparsefx {

using ort::Api;
using ort::Context;
using ort::Info;
using ort::Tensor;

namespace {

[[noreturn]] void refuse(const std::string& message) { throw std::runtime_error(message); }

// The weight's matrix, owning its arrays. Zeros only fill gaps that are too long for a byte.
struct OwnedMatrix {
    std::vector<int64_t> starts;
    std::vector<int32_t> columns;
    std::vector<float> values;

    // In groups, the columns are those of the group's own channels.
    OwnedMatrix(int64_t rows, int64_t row_length, int64_t groups, const Tensor& entries, const Tensor& gaps) {
        const auto* value = static_cast<const float*>(entries.data);
        const auto* gap = static_cast<const uint8_t*>(gaps.data);
        int64_t place = -1;
        starts.assign(1, 0);
        for (int64_t i = 0; i < entries.count(); i++) {
            place += gap[i];
            if (gap[i] == 0 || place >= rows * row_length) refuse("gaps lead out of the weight");
            if (value[i] == 0.0f) continue;
            const int64_t row = place / row_length, group = row / (rows / groups);
            while (static_cast<int64_t>(starts.size()) <= row) starts.push_back(static_cast<int64_t>(values.size()));
            columns.push_back(static_cast<int32_t>(place % row_length + group * row_length));
            values.push_back(value[i]);
        }
        while (static_cast<int64_t>(starts.size()) <= rows) starts.push_back(static_cast<int64_t>(values.size()));
    }
};

// ONNX Runtime's threads, lent for one run.
struct Lender {
    const Api& api;
    Context* context;

    struct Job {
        void (*body)(void*, int64_t);
        void* data;
    };

    static void run(void* self, int64_t tasks, void (*body)(void*, int64_t), void* data) {
        const Lender& lender = *static_cast<Lender*>(self);
        Job job{body, data};
        void (*step)(void*, size_t) = [](void* user, size_t task) {
            const Job& own = *static_cast<Job*>(user);
            own.body(own.data, static_cast<int64_t>(task));
        };
        lender.api.call(
            ort::kParallelFor, static_cast<const Context*>(lender.context), step, static_cast<size_t>(tasks), size_t{0},
            static_cast<void*>(&job));
    }
};

int threads_of(const Api& api, const Info* info, const Settings& settings) {
    const int64_t threads = settings.threads ? *settings.threads : api.integer_or(info, "threads", 1);
    if (threads < 1 || threads > INT_MAX) refuse("attribute threads must be a positive number");
    return static_cast<int>(threads);
}

Precision precision_of(const Api& api, const Info* info, const Settings& settings) {
    if (settings.precision) return *settings.precision;
    return api.integer_or(info, "bfloat16", 0) == 1 ? Precision::bfloat16 : Precision::float32;
}

}  // namespace

Kernel::Kernel(const Api& api, const Info* info, const Variant& variant, const Settings& settings)
    : api_(api),
      variant_(variant),
      threads_(threads_of(api, info, settings)),
      precision_(precision_of(api, info, settings)) {
    shape_ = api.integers(info, "shape");
    const Tensor values = api.constant(info, kValues), gaps = api.constant(info, kGaps), bias = api.constant(info, kBias);
    if (shape_.size() != (variant.convolution ? 4u : 2u)) refuse("attribute shape has the wrong length");
    int64_t row_length = 1;
    for (size_t i = 0; i < shape_.size(); i++) {
        if (shape_[i] < 1 || shape_[i] > INT_MAX) refuse("attribute shape is out of range");
        if (i > 0 && (row_length *= shape_[i]) > INT_MAX) refuse("the weight is too large");
    }
    if (values.element != ort::kFloat || gaps.element != ort::kUint8 || bias.element != ort::kFloat)
        refuse("values and bias must be float, gaps uint8");
    if (values.count() != gaps.count()) refuse("there are not as many gaps as values");
    if (bias.count() != shape_[0]) refuse("the bias does not fit the outputs");
    const int64_t groups = variant.convolution ? api.integer(info, "group") : 1;
    if (groups < 1 || shape_[0] % groups != 0 || row_length * groups > INT_MAX) refuse("attribute group does not fit");
    const OwnedMatrix own(shape_[0], row_length, groups, values, gaps);
    const SparseMatrix matrix{
        shape_[0], row_length * groups, own.starts.data(), own.columns.data(), own.values.data()};
    if (const char* problem = problem_of(matrix, static_cast<int64_t>(own.values.size()))) refuse(problem);
    make(info, matrix, static_cast<const float*>(bias.data));
}

void Kernel::run(Context* context) const {
    const Tensor x = input(context, kX);
    std::vector<int64_t> sizes = variant_.convolution ? convolution_sizes(x) : linear_sizes(x);
    const Tensor residual = variant_.residual ? input(context, kResidual) : Tensor();
    if (variant_.residual && residual.sizes != sizes) refuse("the residual does not have the result's shape");
    ort::Value* value = nullptr;
    api_.call(ort::kOutput, context, size_t{0}, static_cast<const int64_t*>(sizes.data()), sizes.size(), &value);
    const Tensor y = api_.tensor(value);
    Lender lender{api_, context};
    const Threads threads{threads_, Lender::run, &lender};
    const auto *in = static_cast<const float*>(x.data), *beside = static_cast<const float*>(residual.data);
    auto* out = static_cast<float*>(y.data);
    if (variant_.convolution)
        convolution_->run(in, beside, x.sizes[0], x.sizes[2], x.sizes[3], out, threads);
    else
        linear_->run(in, beside, x.count() / shape_[1], out, threads);
}

void Kernel::make(const Info* info, const SparseMatrix& matrix, const float* bias) {
    const Kernels& kernels = *find_kernels(nullptr);
    if (!variant_.convolution) {
        linear_ = std::make_unique<Linear>(
            kernels, matrix, bias, variant_.activation, threads_, precision_);
        return;
    }
    const auto strides = api_.integers(info, "strides"), pads = api_.integers(info, "pads");
    const auto dilations = api_.integers(info, "dilations");
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2) refuse("strides, pads or dilations do not fit");
    height_ = {shape_[2], strides[0], pads[0], pads[2], dilations[0]};
    width_ = {shape_[3], strides[1], pads[1], pads[3], dilations[1]};
    for (const Axis& axis : {height_, width_})
        if (axis.stride < 1 || axis.dilation < 1 || axis.padding_before < 0 || axis.padding_after < 0)
            refuse("strides, pads or dilations are out of range");
    convolution_ = std::make_unique<Convolution>(
        kernels, matrix, height_, width_, bias, variant_.activation, api_.integer(info, "pixels"), threads_);
}

Tensor Kernel::input(Context* context, Input number) const {
    const ort::Value* value = nullptr;
    api_.call(ort::kInput, static_cast<const Context*>(context), static_cast<size_t>(number), &value);
    return api_.tensor(value);
}

std::vector<int64_t> Kernel::linear_sizes(const Tensor& x) const {
    if (x.sizes.empty() || x.sizes.back() != shape_[1])
        refuse("the last axis of x must have " + std::to_string(shape_[1]) + " entries");
    std::vector<int64_t> sizes = x.sizes;
    sizes.back() = shape_[0];
    return sizes;
}

std::vector<int64_t> Kernel::convolution_sizes(const Tensor& x) const {
    if (x.sizes.size() != 4 || x.sizes[1] != convolution_->channels())
        refuse("x must be images of " + std::to_string(convolution_->channels()) + " channels");
    const std::vector<int64_t> sizes{x.sizes[0], shape_[0], height_.output(x.sizes[2]), width_.output(x.sizes[3])};
    if (sizes[2] < 1 || sizes[3] < 1) refuse("an image is smaller than the kernel");
    return sizes;
}

}  // namespace sparsefx
