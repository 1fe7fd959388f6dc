#pragma once

#include <string>
#include <vector>

#include "../msl/abi.h"
#include "../program_spec.h"

namespace upgc {

/// A compiled kernel module, unloaded with this object.
class Module {
 public:
  /// Loads a shared library. On failure `why` says so and the module is empty.
  static Module load(const std::string& path, std::string& why);

  Module() = default;
  Module(Module&& other) noexcept;
  Module& operator=(Module&& other) noexcept;
  ~Module();

  explicit operator bool() const { return exports_ != nullptr; }
  const abi::Module& exports() const { return *exports_; }
  /// Null when the module was not compiled to be sanitized.
  const abi::Sanitized* sanitized() const;

 private:
  void* library_ = nullptr;
  const abi::Module* exports_ = nullptr;
};

}  // namespace upgc
