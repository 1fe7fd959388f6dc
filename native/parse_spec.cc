#include "parse_spec.h"

#include <cmath>
#include <cstdlib>

#include "error.h"

namespace upgc {
namespace {

// No list of a plan is longer. `new Array(4e9)` costs JavaScript nothing, walking it would take minutes.
constexpr uint32_t max_list_length = 1 << 20;

std::string describe(Napi::Value value) {
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

[[noreturn]] void expected(const char* type, const std::string& what, Napi::Value value) {
  throw Error(code::bad_plan, concat(what, " must be ", type, ", not ", describe(value)));
}

std::optional<uint64_t> as_integer(Napi::Value value) {
  if (!value.IsNumber()) return std::nullopt;
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN fails too.
  if (!(number >= 0 && number <= 0x1p53 && number == std::floor(number))) return std::nullopt;
  return static_cast<uint64_t>(number);
}

/// A property of the spec. It knows where it came from, so that its path is spelled out only in an error.
class Node {
 public:
  explicit Node(Napi::Value root, const char* name = "spec") : value_(root), key_(name) {}

  /// Valid as long as this node.
  Node at(const char* key) const {
    // Primitives have properties too ("abc".length): only objects are specs.
    if (!value_.IsObject() || value_.IsArray() || value_.IsFunction()) expected("an object", path(), value_);
    return Node(value_.As<Napi::Object>().Get(key), this, key, 0);
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

  template <class T>
  std::vector<T> list(T (*parse)(const Node&)) const {
    if (!value_.IsArray()) expected("an array", path(), value_);
    const auto array = value_.As<Napi::Array>();
    const uint32_t length = array.Length();
    if (length > max_list_length)
      throw Error(code::bad_plan, concat(path(), " has ", length, " elements; at most ", max_list_length));
    std::vector<T> result;
    for (uint32_t i = 0; i < length; i++) {
      Napi::HandleScope scope(value_.Env());
      result.push_back(parse(Node(array.Get(i), this, nullptr, i)));
    }
    return result;
  }

  /// As the user would write it: `spec.kernels[3].threads`.
  std::string path() const {
    if (parent_ == nullptr) return key_;
    return key_ != nullptr ? concat(parent_->path(), ".", key_) : concat(parent_->path(), "[", index_, "]");
  }

 private:
  Node(Napi::Value value, const Node* parent, const char* key, uint32_t index)
      : value_(value), parent_(parent), key_(key), index_(index) {}

  Napi::Value value_;
  const Node* parent_ = nullptr;
  /// Null for an element of a list, which has an index instead.
  const char* key_;
  uint32_t index_ = 0;
};

Argument parse_argument(const Node& node) {
  const std::string kind = node.at("kind").string();
  Argument argument{ArgumentKind::position, "", "", node.at("index").integer(), node.at("bytes").integer()};
  const Node name = node.at("name");
  if (!name.absent()) argument.name = name.string();
  if (kind == "buffer") argument.kind = ArgumentKind::buffer;
  else if (kind == "threadgroup") argument.kind = ArgumentKind::threadgroup;
  else if (is_position(kind)) argument.position = kind;
  else throw Error(code::bad_plan, concat(node.path(), ".kind is not a kind of kernel argument"));
  return argument;
}

uint64_t parse_size(const Node& node) { return node.integer(); }

/// [x, y, z]
std::array<uint64_t, 3> parse_extent(const Node& node) {
  const std::vector<uint64_t> sizes = node.list(parse_size);
  if (sizes.size() != 3) throw Error(code::bad_plan, concat(node.path(), " must have 3 elements"));
  return {sizes[0], sizes[1], sizes[2]};
}

/// An optional boolean.
bool flag(const Node& node) { return !node.absent() && node.boolean(); }

Kernel parse_kernel(const Node& node) {
  return {node.at("name").string(), parse_extent(node.at("threads")), node.at("arguments").list(parse_argument),
          flag(node.at("sequential"))};
}

Arena parse_arena(const Node& node) {
  Arena arena{node.at("name").string(), node.at("bytes").integer(), std::nullopt};
  const Node file = node.at("file");
  if (!file.absent()) arena.file = file.string();
  return arena;
}

Binding parse_binding(const Node& node) {
  return {node.at("arena").integer(), node.at("offset").integer(), node.at("bytes").integer()};
}

Dispatch parse_dispatch(const Node& node) {
  const Node grid_threads = node.at("gridThreads");
  return {node.at("kernel").integer(), parse_extent(node.at("grid")),
          grid_threads.absent() ? std::nullopt : std::optional(parse_extent(grid_threads)),
          node.at("bindings").list(parse_binding), node.at("barrier").boolean()};
}

Entry parse_entry(const Node& node) {
  return {node.at("name").string(), node.at("dispatches").list(parse_dispatch)};
}

struct FunctionConstantValue {
  uint64_t index;
  double value;
};

FunctionConstantValue parse_function_constant(const Node& node) {
  return {node.at("index").integer(), node.at("value").scalar()};
}

std::map<std::string, std::string> compiler_environment() {
  std::map<std::string, std::string> environment;
  for (const char* name : {"PATH", "HOME", "TMPDIR", "SDKROOT", "DEVELOPER_DIR", "UPGC_NVRTC", "CUDA_HOME",
                           "CUDA_PATH"})
    if (const char* setting = std::getenv(name)) environment[name] = setting;
  return environment;
}

}  // namespace

uint64_t parse_integer(Napi::Value value, const char* what) {
  const std::optional<uint64_t> number = as_integer(value);
  if (!number) expected("an integer from 0 to 2^53", what, value);
  return *number;
}

ProgramSpec parse_program_spec(Napi::Value value) {
  const Node node(value);
  ProgramSpec spec;
  spec.source = node.at("source").string();
  spec.source_name = node.at("sourceName").string();
  spec.simd_width = node.at("simdWidth").integer();
  spec.kernels = node.at("kernels").list(parse_kernel);
  spec.arenas = node.at("arenas").list(parse_arena);
  spec.entries = node.at("entries").list(parse_entry);
  spec.headers = node.at("headers").string();
  spec.cache = node.at("cache").string();
  const Node clang = node.at("clang");
  if (!clang.absent()) spec.clang = clang.string();
  const Node shuffle = node.at("shuffle");
  if (!shuffle.absent()) spec.shuffle = shuffle.integer();
  const Node constants = node.at("functionConstants");
  if (!constants.absent())
    for (const auto& [index, value] : constants.list(parse_function_constant))
      if (!spec.function_constants.emplace(index, value).second)
        throw Error(code::bad_plan, concat("function constant ", index, " is given twice"));
  spec.sanitize = flag(node.at("sanitize"));
  const Node threads = node.at("threads");
  if (!threads.absent()) spec.threads = threads.integer();
  spec.environment = compiler_environment();
  return spec;
}

ProgramSpec parse_inspection(Napi::Value source, Napi::Value source_name, Napi::Value options) {
  ProgramSpec spec;
  spec.source = Node(source, "source").string();
  spec.source_name = Node(source_name, "sourceName").string();
  const Node node(options, "options");
  spec.headers = node.at("headers").string();
  spec.cache = node.at("cache").string();
  const Node clang = node.at("clang");
  if (!clang.absent()) spec.clang = clang.string();
  spec.environment = compiler_environment();
  return spec;
}

}  // namespace upgc
