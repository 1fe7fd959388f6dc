// Reads JavaScript values. A missing or mistyped property throws upgc::Error (UPGC_BAD_PLAN) that names it, e.g.
// `spec.kernels[3].threads`; a getter that throws passes its error on as Napi::Error.
#pragma once

#include <napi.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "error.h"

namespace upgc {

// No list of a plan is longer. `new Array(4e9)` costs JavaScript nothing, walking it would take minutes.
constexpr uint32_t max_list_length = 1 << 20;

inline std::string describe(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return value.As<Napi::Boolean>().Value() ? "true" : "false";
    case napi_number: return concat(value.As<Napi::Number>().DoubleValue());
    case napi_string: return "a string";
    case napi_symbol: return "a symbol";
    case napi_object: return value.IsArray() ? "an array" : "an object";
    case napi_function: return "a function";
    case napi_bigint: return "a bigint";
    default: return "something else";
  }
}

[[noreturn]] inline void expected(const char* type, const std::string& what, Napi::Value value) {
  throw Error(code::bad_plan, concat(what, " must be ", type, ", not ", describe(value)));
}

inline std::optional<uint64_t> as_integer(Napi::Value value) {
  if (!value.IsNumber()) return std::nullopt;
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN fails too.
  if (!(number >= 0 && number <= 0x1p53 && number == std::floor(number))) return std::nullopt;
  return static_cast<uint64_t>(number);
}

/// A property of the spec. It knows where it came from, so that its path is spelled out only in an error.
class SpecNode {
 public:
  explicit SpecNode(Napi::Value root, const char* name = "spec") : value_(root), key_(name) {}

  /// Valid as long as this node.
  SpecNode at(const char* key) const {
    // Primitives have properties too ("abc".length): only objects are specs.
    if (!value_.IsObject() || value_.IsArray() || value_.IsFunction()) expected("an object", path(), value_);
    return SpecNode(value_.As<Napi::Object>().Get(key), this, key, 0);
  }

  bool absent() const { return value_.IsUndefined(); }

  std::string string() const {
    if (!value_.IsString()) expected("a string", path(), value_);
    return value_.As<Napi::String>().Utf8Value();
  }

  uint64_t integer() const {
    const std::optional<uint64_t> number = as_integer(value_);
    if (!number) expected("an integer from 0 to 2^53", path(), value_);
    return *number;
  }

  /// A finite number, or a boolean as 0 or 1.
  double scalar() const {
    if (value_.IsBoolean()) return value_.As<Napi::Boolean>().Value() ? 1 : 0;
    const double number = value_.IsNumber() ? value_.As<Napi::Number>().DoubleValue() : NAN;
    if (!std::isfinite(number)) expected("a finite number or a boolean", path(), value_);
    return number;
  }

  bool boolean() const {
    if (!value_.IsBoolean()) expected("a boolean", path(), value_);
    return value_.As<Napi::Boolean>().Value();
  }

  /// The elements of a typed array of this JavaScript type, copied.
  template <class T>
  std::vector<T> numbers(napi_typedarray_type type, const char* name) const {
    if (!value_.IsTypedArray() || value_.As<Napi::TypedArray>().TypedArrayType() != type)
      expected(name, path(), value_);
    const auto array = value_.As<Napi::TypedArrayOf<T>>();
    return {array.Data(), array.Data() + array.ElementLength()};
  }

  template <class T>
  std::vector<T> list(T (*parse)(const SpecNode&)) const {
    if (!value_.IsArray()) expected("an array", path(), value_);
    const auto array = value_.As<Napi::Array>();
    const uint32_t length = array.Length();
    if (length > max_list_length)
      throw Error(code::bad_plan, concat(path(), " has ", length, " elements; at most ", max_list_length));
    std::vector<T> result;
    for (uint32_t i = 0; i < length; i++) {
      Napi::HandleScope scope(value_.Env());
      result.push_back(parse(SpecNode(array.Get(i), this, nullptr, i)));
    }
    return result;
  }

  /// As the user would write it: `spec.kernels[3].threads`.
  std::string path() const {
    if (parent_ == nullptr) return key_;
    return key_ != nullptr ? concat(parent_->path(), ".", key_) : concat(parent_->path(), "[", index_, "]");
  }

 private:
  SpecNode(Napi::Value value, const SpecNode* parent, const char* key, uint32_t index)
      : value_(value), parent_(parent), key_(key), index_(index) {}

  Napi::Value value_;
  const SpecNode* parent_ = nullptr;
  /// Null for an element of a list, which has an index instead.
  const char* key_;
  uint32_t index_ = 0;
};

}  // namespace upgc
