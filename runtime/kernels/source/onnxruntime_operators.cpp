// The condensed operators for ONNX Runtime, domain "sparsefx": how they are registered.

#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "onnxruntime_kernel.h"

namespace sparsefx {

namespace {

using ort::Api;
using ort::Context;
using ort::CustomOperator;
using ort::Info;

// One operator each, as a function's body, which stands in where this library is not, cannot ask what is there.
constexpr Variant kVariants[] = {
    {"CondensedLinear", false, false, Activation::none},
    {"CondensedLinearRelu", false, false, Activation::relu},
    {"CondensedLinearAdd", false, true, Activation::none},
    {"CondensedLinearAddRelu", false, true, Activation::relu},
    {"CondensedLinearGelu", false, false, Activation::gelu},
    {"CondensedLinearAddGelu", false, true, Activation::gelu},
    {"CondensedConv2d", true, false, Activation::none},
    {"CondensedConv2dRelu", true, false, Activation::relu},
    {"CondensedConv2dAdd", true, true, Activation::none},
    {"CondensedConv2dAddRelu", true, true, Activation::relu},
};

// A kernel with what its errors say.
struct NamedKernel {
    Api api;
    std::string name;
    std::unique_ptr<Kernel> kernel;
};

// One variant, for sessions of these settings.
struct Operator : CustomOperator {
    Operator(const Variant& own, const Settings& own_settings, uint32_t api_version);

    const Variant* variant;
    const Settings settings;
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
        made->kernel = std::make_unique<Kernel>(made->api, info, *op.variant, op.settings);
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

// The result of a convolution may lie where the residual does: each number is read before its place is written.
size_t residual_in_place(int** inputs, int** outputs) {
    static int residual = kResidual, result = 0;
    *inputs = &residual;
    *outputs = &result;
    return 1;
}

Operator::Operator(const Variant& own, const Settings& own_settings, uint32_t api_version)
    : CustomOperator{}, variant(&own), settings(own_settings) {
    version = api_version;
    if (own.convolution && own.residual) {
        in_place = residual_in_place;
        release_in_place = [](int*, int*) {};
    }
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

// The operators for sessions of these settings, made once; ONNX Runtime may read them until the process ends.
ort::Domain* domain(const Api& api, const Settings& settings, uint32_t api_version) {
    static std::mutex mutex;
    static auto& domains = *new std::map<std::pair<std::optional<int>, std::optional<Precision>>, ort::Domain*>;
    std::lock_guard lock(mutex);
    ort::Domain*& found = domains[{settings.threads, settings.precision}];
    if (found == nullptr) {
        api.call(ort::kCreateDomain, "sparsefx", &found);
        for (const Variant& variant : kVariants)
            api.call(ort::kAddOperator, found, static_cast<CustomOperator::Self>(new Operator(variant, settings, api_version)));
    }
    return found;
}

Settings settings_of(const Api& api, const ort::Options* options) {
    Settings settings;
    const std::string threads = api.setting(options, "sparsefx.threads");
    if (!threads.empty()) settings.threads = std::atoi(threads.c_str());
    if (settings.threads && *settings.threads < 1)
        throw std::runtime_error("sparsefx.threads must be a positive number, found " + threads);
    const std::string precision = api.setting(options, "sparsefx.precision");
    if (precision == "bfloat16")
        settings.precision = Precision::bfloat16;
    else if (precision == "float32")
        settings.precision = Precision::float32;
    else if (!precision.empty())
        throw std::runtime_error("sparsefx.precision must be float32 or bfloat16, found " + precision);
    return settings;
}

}  // namespace

}  // namespace sparsefx

// What ONNX Runtime calls when the library is registered. The session's setting "sparsefx.threads" says how many of
// its threads will share a layer; "sparsefx.precision" how linear layers store their weights. Where they are silent the
// nodes' attributes count; without those it is one thread, and float32.
extern "C" __attribute__((visibility("default"))) sparsefx::ort::Status* RegisterCustomOps(
    sparsefx::ort::Options* options, const sparsefx::ort::Base* base) {
    using namespace sparsefx;
    const ort::Table table = base->table(ort::kVersion);
    if (table == nullptr)
        return ort::Api(base->table(1)).status(
            std::string("sparsefx: ONNX Runtime ") + base->release() + " is too old for the sparse kernels, " + ort::kRelease +
            " or newer is needed");
    const ort::Api api(table);
    const uint32_t version = base->table(ort::kVersionInPlace) != nullptr ? ort::kVersionInPlace : ort::kVersion;
    try {
        api.call(ort::kAddDomain, options, domain(api, settings_of(api, options), version));
        return nullptr;
    } catch (const std::exception& error) {
        return api.status(std::string("sparsefx: ") + error.what());
    }
}
