#include "parse_pack.h"

#include <algorithm>
#include <thread>

#include "spec_node.h"

namespace upgc {
namespace {

using namespace pack;

const Stored& stored_type(const SpecNode& node) {
  const Stored* type = find_stored(node.string());
  if (type == nullptr) throw Error(code::bad_plan, concat(node.path(), ": there is no stored type ", node.string()));
  return *type;
}

Source parse_source(const SpecNode& node) {
  const SpecNode random = node.at("random");
  if (!random.absent())
    return RandomWeights{random.at("seed").integer(), random.at("mean").scalar(), random.at("deviation").scalar()};
  const Stored& type = stored_type(node.at("dtype"));
  const SpecNode data = node.at("data");
  if (!data.absent()) {
    if (type.elements != 1) throw Error(code::bad_plan, concat(data.path(), " must be of plain elements"));
    return BytesSource{data.numbers<uint8_t>(napi_uint8_array, "a Uint8Array"), &type};
  }
  const SpecNode head_rows = node.at("headRows");
  const SpecNode transposed = node.at("transposed");
  return FileSource{node.at("file").integer(), node.at("offset").integer(), &type,
                    head_rows.absent() ? 0 : head_rows.integer(), !transposed.absent() && transposed.boolean()};
}

Method parse_method(const SpecNode& node) {
  const std::string name = node.string();
  if (name == "nearest") return Method::nearest;
  if (name == "search") return Method::search;
  throw Error(code::bad_plan, concat(node.path(), " is no method"));
}

uint64_t parse_offset(const SpecNode& node) { return node.integer(); }
std::string parse_file(const SpecNode& node) { return node.string(); }

std::optional<Pruning> parse_pruning(const SpecNode& node) {
  if (node.absent()) return std::nullopt;
  return Pruning{node.at("rows").integer(), node.at("columns").integer(), node.at("blockRows").integer(),
                 node.at("blockColumns").integer(), node.at("indices").boolean()};
}

Weight parse_weight(const SpecNode& node) {
  Weight weight{};
  weight.name = node.at("name").string();
  weight.rows = node.at("rows").integer();
  weight.columns = node.at("columns").integer();
  weight.source = parse_source(node.at("source"));
  const std::string format = node.at("format").string();
  weight.packed = find_format(format);
  if (weight.packed == nullptr) {
    for (const char* name : {"F32", "F16", "BF16"}) {
      const Stored* plain = find_stored(name);
      std::string lower = plain->name;
      std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return char(std::tolower(c)); });
      if (format == lower) weight.plain = plain;
    }
    if (format == "u16") weight.plain = &indices;
    if (weight.plain == nullptr) throw Error(code::bad_plan, concat(node.path(), ": there is no format ", format));
  }
  weight.tile_rows = node.at("tileRows").integer();
  weight.offsets = node.at("offsets").list(parse_offset);
  weight.method = parse_method(node.at("method"));
  const SpecNode importance = node.at("importance");
  if (!importance.absent()) {
    weight.importance = importance.numbers<float>(napi_float32_array, "a Float32Array");
    for (const float value : weight.importance)
      if (!(value >= 0) || std::isinf(value))
        throw Error(code::bad_plan, concat(importance.path(), " must be finite and not negative"));
  }
  weight.pruning = parse_pruning(node.at("pruning"));
  return weight;
}

}  // namespace

PackSpec parse_pack_spec(Napi::Value value) {
  const SpecNode node(value);
  PackSpec spec;
  spec.file = node.at("file").string();
  spec.partial = node.at("partial").string();
  spec.bytes = node.at("bytes").integer();
  spec.fingerprint = node.at("fingerprint").string();
  spec.files = node.at("files").list(parse_file);
  spec.weights = node.at("weights").list(parse_weight);
  const SpecNode threads = node.at("threads");
  const uint64_t count = threads.absent() ? std::max(1u, std::thread::hardware_concurrency()) : threads.integer();
  if (count < 1 || count > 1024) throw Error(code::bad_plan, concat(threads.path(), " must be 1 to 1024"));
  spec.threads = unsigned(count);
  return spec;
}

}  // namespace upgc
