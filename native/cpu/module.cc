#include "module.h"

#include <dlfcn.h>

#include <utility>

namespace upgc {

Module Module::load(const std::string& path, std::string& why) {
  Module module;
  // RTLD_LOCAL: modules all export the same symbol.
  module.library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module.library_ == nullptr) {
    const char* error = dlerror();
    why = error != nullptr ? error : "dlopen failed";
    return module;
  }
  const auto* exports = static_cast<const abi::Module*>(dlsym(module.library_, "upgc_module"));
  if (exports == nullptr || exports->abi_version != abi::version)
    why = path + ": made by headers of another upgc version";
  else
    module.exports_ = exports;
  return module;
}

const abi::Sanitized* Module::sanitized() const {
  return static_cast<const abi::Sanitized*>(dlsym(library_, "upgc_sanitized"));
}

Module::Module(Module&& other) noexcept
    : library_(std::exchange(other.library_, nullptr)), exports_(std::exchange(other.exports_, nullptr)) {}

Module& Module::operator=(Module&& other) noexcept {
  std::swap(library_, other.library_);
  std::swap(exports_, other.exports_);
  return *this;
}

Module::~Module() {
  if (library_ != nullptr) dlclose(library_);
}

}  // namespace upgc
