// The condensed operators for ONNX Runtime, domain "sparsefx".
//
// Inputs: x; values (non-zeros, float); gaps (uint8): from each non-zero to the next in the flattened weight, the first
// counted from one place in front of it; bias; and for some variants the residual. Attributes: `shape` of the weight; a
// convolution has `strides`, `pads`, `dilations`, `group` as ONNX's Conv, and `pixels`, its output pixels, about.

#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "convolution.h"
#include "linear.h"
#include "onnxruntime_api.h"

namespace sparsefx {

namespace {

using ort::Api;
using ort::Context;
using ort::CustomOperator;
using ort::Info;
using ort::Tensor;

struct Variant {
    const char* name;
    bool convolution, residual;
    Activation activation;
};

// One operator each, as a function's body, which stands in where this library is not, cannot ask what is there.
constexpr Variant kVariants[] = {
    {"CondensedLinear", false, false, Activation::none},
    {"CondensedLinearRelu", false, false, Activation::relu},
    {"CondensedLinearAdd", false, true, Activation::none},
    {"CondensedLinearAddRelu", false, true, Activation::relu},
    {"CondensedConv2d", true, false, Activation::none},
    {"CondensedConv2dRelu", true, false, Activation::relu},
    {"CondensedConv2dAdd", true, true, Activation::none},
    {"CondensedConv2dAddRelu", true, true, Activation::relu},
};

enum Input : size_t { kX, kValues, kGaps, kBias, kResidual };

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

class Kernel {
public:
    Kernel(const Api& api, const Info* info, const Variant& variant, int threads)
        : api_(api), variant_(variant), threads_(threads) {
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

    void run(Context* context) const {
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

private:
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

    void make(const Info* info, const SparseMatrix& matrix, const float* bias) {
        const Kernels& kernels = *find_kernels(nullptr);
        if (!variant_.convolution) {
            linear_ = std::make_unique<Linear>(kernels, matrix, bias, variant_.activation, threads_);
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

    Tensor input(Context* context, Input number) const {
        const ort::Value* value = nullptr;
        api_.call(ort::kInput, static_cast<const Context*>(context), static_cast<size_t>(number), &value);
        return api_.tensor(value);
    }

    std::vector<int64_t> linear_sizes(const Tensor& x) const {
        if (x.sizes.empty() || x.sizes.back() != shape_[1])
            refuse("the last axis of x must have " + std::to_string(shape_[1]) + " entries");
        std::vector<int64_t> sizes = x.sizes;
        sizes.back() = shape_[0];
        return sizes;
    }

    std::vector<int64_t> convolution_sizes(const Tensor& x) const {
        if (x.sizes.size() != 4 || x.sizes[1] != convolution_->channels())
            refuse("x must be images of " + std::to_string(convolution_->channels()) + " channels");
        const std::vector<int64_t> sizes{x.sizes[0], shape_[0], height_.output(x.sizes[2]), width_.output(x.sizes[3])};
        if (sizes[2] < 1 || sizes[3] < 1) refuse("an image is smaller than the kernel");
        return sizes;
    }

    const Api api_;
    const Variant& variant_;
    const int threads_;
    std::vector<int64_t> shape_;
    Axis height_{}, width_{};
    std::unique_ptr<Linear> linear_;
    std::unique_ptr<Convolution> convolution_;
};

// A kernel with what its errors say.
struct NamedKernel {
    Api api;
    std::string name;
    std::unique_ptr<Kernel> kernel;
};

// One variant, for sessions of so many threads.
struct Operator : CustomOperator {
    Operator(const Variant& own, int own_threads);

    const Variant* variant;
    int threads;
};

ort::Status* failure(const Api& api, const std::string& node, const std::exception& error) {
    return api.status("sparsefx: node '" + node + "': " + error.what());
}

ort::Status* create(CustomOperator::Self self, ort::Table table, const Info* info, void** kernel) {
    const Api api(table);
    std::string name;
    try {
        const auto& op = *static_cast<const Operator*>(self);
        name = api.node_name(info);
        auto made = std::make_unique<NamedKernel>(NamedKernel{api, name, nullptr});
        made->kernel = std::make_unique<Kernel>(made->api, info, *op.variant, op.threads);
        *kernel = made.release();
        return nullptr;
    } catch (const std::exception& error) {
        return failure(api, name, error);
    }
}

ort::Status* compute(void* kernel, Context* context) {
    const auto& named = *static_cast<NamedKernel*>(kernel);
    try {
        named.kernel->run(context);
        return nullptr;
    } catch (const std::exception& error) {
        return failure(named.api, named.name, error);
    }
}

Operator::Operator(const Variant& own, int own_threads) : CustomOperator{}, variant(&own), threads(own_threads) {
    version = ort::kVersion;
    CustomOperator::name = [](Self self) { return static_cast<const Operator*>(self)->variant->name; };
    provider = [](Self) { return "CPUExecutionProvider"; };
    inputs = [](Self self) { return static_cast<const Operator*>(self)->variant->residual ? size_t{5} : size_t{4}; };
    input_type = [](Self, size_t input) -> int { return input == kGaps ? ort::kUint8 : ort::kFloat; };
    outputs = [](Self) { return size_t{1}; };
    output_type = [](Self, size_t) -> int { return ort::kFloat; };
    input_kind = output_kind = [](Self, size_t) { return 0; };  // required
    input_memory = [](Self, size_t) { return 0; };              // the provider's own
    least_variadic_inputs = least_variadic_outputs = [](Self) { return 1; };
    alike_variadic_inputs = alike_variadic_outputs = [](Self) { return 1; };
    CustomOperator::create = sparsefx::create;
    CustomOperator::compute = sparsefx::compute;
    destroy = [](void* kernel) { delete static_cast<NamedKernel*>(kernel); };
    first_opset = [](Self) { return 1; };
    last_opset = [](Self) { return INT_MAX; };
}

// The operators for sessions of so many threads, made once; ONNX Runtime may read them until the process ends.
ort::Domain* domain(const Api& api, int threads) {
    static std::mutex mutex;
    static auto& domains = *new std::map<int, ort::Domain*>;
    std::lock_guard lock(mutex);
    ort::Domain*& found = domains[threads];
    if (found == nullptr) {
        api.call(ort::kCreateDomain, "sparsefx", &found);
        for (const Variant& variant : kVariants)
            api.call(ort::kAddOperator, found, static_cast<CustomOperator::Self>(new Operator(variant, threads)));
    }
    return found;
}

}  // namespace

}  // namespace sparsefx

// What ONNX Runtime calls when the library is registered. The session's setting "sparsefx.threads" says how many of
// its threads will share a layer; one without it.
extern "C" __attribute__((visibility("default"))) sparsefx::ort::Status* RegisterCustomOps(
    sparsefx::ort::Options* options, const sparsefx::ort::Base* base) {
    using namespace sparsefx;
    const ort::Table table = base->table(ort::kVersion);
    if (table == nullptr)
        return ort::Api(base->table(1)).status(
            std::string("sparsefx: ONNX Runtime ") + base->release() + " is too old for the sparse kernels, " + ort::kRelease +
            " or newer is needed");
    const ort::Api api(table);
    try {
        const std::string threads = api.setting(options, "sparsefx.threads");
        const int count = threads.empty() ? 1 : std::atoi(threads.c_str());
        if (count < 1) return api.status("sparsefx: sparsefx.threads must be a positive number, found " + threads);
        api.call(ort::kAddDomain, options, domain(api, count));
        return nullptr;
    } catch (const std::exception& error) {
        return api.status(std::string("sparsefx: ") + error.what());
    }
}
