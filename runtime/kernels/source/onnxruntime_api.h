// The few functions of ONNX Runtime's C interface that a custom operator needs, by their places in its table.
//
// No package ships the header. The places are those of onnxruntime_c_api.h; they never change, new functions are
// appended. Version 17 of the table (ONNX Runtime 1.17) has all of them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace sparsefx::ort {

constexpr uint32_t kVersion = 17;
constexpr const char* kRelease = "1.17";
constexpr uint32_t kVersionInPlace = 18;  // knows outputs in place of inputs

struct Status;
struct Value;
struct Type;
struct Domain;
struct Options;
struct Info;     // of a node, while its kernel is made
struct Context;  // of a run

using Table = const void* const*;

struct Base {
    Table (*table)(uint32_t version);
    const char* (*release)();
};

enum Place : int {
    kCreateStatus = 0,
    kErrorMessage = 2,
    kCreateDomain = 26,
    kAddOperator = 27,
    kAddDomain = 28,
    kData = 51,
    kElementType = 60,
    kRank = 61,
    kSizes = 62,
    kTypeOf = 65,
    kInteger = 86,
    kInput = 90,
    kOutput = 91,
    kReleaseStatus = 93,
    kReleaseType = 99,
    kIntegers = 163,
    kHasSetting = 237,
    kSetting = 238,
    kNodeName = 244,
    kConstantInput = 249,
    kParallelFor = 274,
};

enum Element : int { kFloat = 1, kUint8 = 2 };

// A tensor's shape and memory; no data where an optional one is absent.
struct Tensor {
    int element = 0;
    std::vector<int64_t> sizes;
    void* data = nullptr;

    int64_t count() const {
        int64_t product = 1;
        for (int64_t size : sizes) product *= size;
        return product;
    }
};

// Calls by place. A status becomes an exception.
class Api {
    // What `read` returns, or its complaint with the attribute's name.
    template <typename Read>
    static auto attribute(const char* name, Read&& read) {
        try {
            return read();
        } catch (const std::exception& error) {
            throw std::runtime_error(std::string("attribute ") + name + ": " + error.what());
        }
    }

public:
    explicit Api(Table table) : table_(table) {}

    Status* status(const std::string& message) const {
        constexpr int invalid_argument = 2;
        return at<Status* (*)(int, const char*)>(kCreateStatus)(invalid_argument, message.c_str());
    }

    template <typename... Arguments>
    void call(Place place, Arguments... arguments) const {
        if (Status* status = at<Status* (*)(Arguments...)>(place)(arguments...)) throw std::runtime_error(message(status));
    }

    Tensor tensor(const Value* value) const {
        Tensor tensor;
        if (value == nullptr) return tensor;
        Type* type = nullptr;
        size_t rank = 0;
        call(kTypeOf, value, &type);
        call(kElementType, static_cast<const Type*>(type), &tensor.element);
        call(kRank, static_cast<const Type*>(type), &rank);
        tensor.sizes.resize(rank);
        call(kSizes, static_cast<const Type*>(type), tensor.sizes.data(), rank);
        at<void (*)(Type*)>(kReleaseType)(type);
        call(kData, const_cast<Value*>(value), &tensor.data);
        return tensor;
    }

    Tensor constant(const Info* info, size_t input) const {
        int is_constant = 0;
        const Value* value = nullptr;
        call(kConstantInput, info, input, &is_constant, &value);
        if (!is_constant) throw std::runtime_error("input " + std::to_string(input) + " must be an initializer");
        return tensor(value);
    }

    std::vector<int64_t> integers(const Info* info, const char* name) const {
        return attribute(name, [&] {
            size_t count = 0;
            call(kIntegers, info, name, static_cast<int64_t*>(nullptr), &count);
            std::vector<int64_t> values(count);
            call(kIntegers, info, name, values.data(), &count);
            return values;
        });
    }

    int64_t integer(const Info* info, const char* name) const {
        return attribute(name, [&] {
            int64_t value = 0;
            call(kInteger, info, name, &value);
            return value;
        });
    }

    // An attribute that need not be there.
    int64_t integer_or(const Info* info, const char* name, int64_t otherwise) const {
        try {
            return integer(info, name);
        } catch (const std::runtime_error&) {
            return otherwise;
        }
    }

    std::string node_name(const Info* info) const {
        size_t size = 0;
        call(kNodeName, info, static_cast<char*>(nullptr), &size);
        std::string name(size, '\0');
        call(kNodeName, info, name.data(), &size);
        return name.c_str();
    }

    // A setting of the session, or nothing.
    std::string setting(const Options* options, const char* key) const {
        int there = 0;
        size_t size = 0;
        call(kHasSetting, options, key, &there);
        if (!there) return "";
        call(kSetting, options, key, static_cast<char*>(nullptr), &size);
        std::string value(size, '\0');
        call(kSetting, options, key, value.data(), &size);
        return value.c_str();
    }

private:
    template <typename Function>
    Function at(Place place) const {
        return reinterpret_cast<Function>(const_cast<void*>(table_[place]));
    }

    std::string message(Status* status) const {
        const std::string text = at<const char* (*)(const Status*)>(kErrorMessage)(status);
        at<void (*)(Status*)>(kReleaseStatus)(status);
        return text;
    }

    Table table_;
};

// What ONNX Runtime asks of an operator: a structure of function pointers that it reads up to `version`.
struct CustomOperator {
    using Self = const CustomOperator*;

    uint32_t version;
    void* (*create_old)(Self, Table, const Info*);
    const char* (*name)(Self);
    const char* (*provider)(Self);
    int (*input_type)(Self, size_t);
    size_t (*inputs)(Self);
    int (*output_type)(Self, size_t);
    size_t (*outputs)(Self);
    void (*compute_old)(void*, Context*);
    void (*destroy)(void* kernel);
    int (*input_kind)(Self, size_t);
    int (*output_kind)(Self, size_t);
    int (*input_memory)(Self, size_t);
    int (*least_variadic_inputs)(Self);
    int (*alike_variadic_inputs)(Self);
    int (*least_variadic_outputs)(Self);
    int (*alike_variadic_outputs)(Self);
    Status* (*create)(Self, Table, const Info*, void** kernel);
    Status* (*compute)(void* kernel, Context*);
    Status* (*infer_shapes)(Self, void*);
    int (*first_opset)(Self);
    int (*last_opset)(Self);
    // From version 18 on: how many outputs may lie where an input does, and which.
    size_t (*in_place)(int** inputs, int** outputs);
    void (*release_in_place)(int* inputs, int* outputs);
    size_t (*aliases)(int** inputs, int** outputs);
    void (*release_aliases)(int* inputs, int* outputs);
};

}  // namespace sparsefx::ort
