// The library's C interface, which Python calls. Functions return null or a message of what is wrong.

#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "convolution.h"
#include "linear.h"
#include "pool.h"

using namespace sparsefx;

#define SPARSEFX_API extern "C" __attribute__((visibility("default")))

namespace {

// The message of the last call of this thread that failed.
const char* failed(const std::string& message) {
    static thread_local std::string last;
    last = message;
    return last.c_str();
}

template <typename Body>
const char* guarded(Body&& body) {
    try {
        return body();
    } catch (const std::exception& error) {
        return failed(error.what());
    }
}

struct Layer {
    std::unique_ptr<Linear> linear;
    std::unique_ptr<Convolution> convolution;
};

}  // namespace

// The name of the fastest kernels that run here, or of those asked for; null where they do not.
SPARSEFX_API const char* sparsefx_kernels(const char* name) {
    const Kernels* kernels = find_kernels(name);
    return kernels == nullptr ? nullptr : kernels->name;
}

struct CLayer {
    SparseMatrix matrix;
    int64_t nonzeros;
    const float* bias;  // or null
    int32_t activation, threads;
    const char* kernels;  // or null for the fastest
    int32_t precision;
};

namespace {

const char* problem_of(const CLayer& layer) {
    if (find_kernels(layer.kernels) == nullptr) return "these kernels do not run on this processor";
    if (layer.threads < 1) return "there must be at least one thread";
    if (layer.activation < 0 || layer.activation > static_cast<int32_t>(Activation::gelu)) return "unknown activation";
    if (layer.precision < 0 || layer.precision > static_cast<int32_t>(Precision::bfloat16)) return "unknown precision";
    return problem_of(layer.matrix, layer.nonzeros);
}

}  // namespace

SPARSEFX_API const char* sparsefx_linear(const CLayer* layer, void** out) {
    return guarded([&]() -> const char* {
        if (const char* problem = problem_of(*layer)) return problem;
        auto made = std::make_unique<Layer>();
        made->linear = std::make_unique<Linear>(
            *find_kernels(layer->kernels), layer->matrix, layer->bias, static_cast<Activation>(layer->activation),
            layer->threads, static_cast<Precision>(layer->precision));
        *out = made.release();
        return nullptr;
    });
}

// `pixels`: output pixels that an image will have, about.
SPARSEFX_API const char* sparsefx_convolution(
    const CLayer* layer, const Axis* height, const Axis* width, int64_t pixels, void** out) {
    return guarded([&]() -> const char* {
        if (const char* problem = problem_of(*layer)) return problem;
        if (layer->precision != 0) return "only linear layers have another precision than float32";
        if (layer->activation == static_cast<int32_t>(Activation::gelu)) return "only linear layers have a GELU";
        for (const Axis* axis : {height, width})
            if (axis->kernel < 1 || axis->stride < 1 || axis->dilation < 1 || axis->padding_before < 0 ||
                axis->padding_after < 0)
                return "kernel, stride, dilation or padding is out of range";
        if (layer->matrix.columns_count % (height->kernel * width->kernel) != 0)
            return "the columns are not those of whole channels";
        auto made = std::make_unique<Layer>();
        made->convolution = std::make_unique<Convolution>(
            *find_kernels(layer->kernels), layer->matrix, *height, *width, layer->bias,
            static_cast<Activation>(layer->activation), pixels, layer->threads);
        *out = made.release();
        return nullptr;
    });
}

SPARSEFX_API void sparsefx_free(void* layer) { delete static_cast<Layer*>(layer); }

SPARSEFX_API void* sparsefx_pool(int32_t threads) { return new Pool(threads); }
SPARSEFX_API void sparsefx_free_pool(void* pool) { delete static_cast<Pool*>(pool); }

SPARSEFX_API const char* sparsefx_run_linear(
    const void* layer, const float* x, const float* residual, int64_t batch, float* y, void* pool) {
    return guarded([&]() -> const char* {
        const Threads threads = pool == nullptr ? Threads{} : static_cast<Pool*>(pool)->threads();
        static_cast<const Layer*>(layer)->linear->run(x, residual, batch, y, threads);
        return nullptr;
    });
}

SPARSEFX_API const char* sparsefx_run_convolution(
    const void* layer, const float* x, const float* residual, int64_t batch, int64_t height, int64_t width, float* y,
    void* pool) {
    return guarded([&]() -> const char* {
        const Threads threads = pool == nullptr ? Threads{} : static_cast<Pool*>(pool)->threads();
        static_cast<const Layer*>(layer)->convolution->run(x, residual, batch, height, width, y, threads);
        return nullptr;
    });
}
