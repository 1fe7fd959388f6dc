#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace upgc {

/// The codes of `NativeErrorCode` in src/runtime/native.ts.
namespace code {
constexpr const char* unknown_device = "UPGC_UNKNOWN_DEVICE";
constexpr const char* no_clang = "UPGC_NO_CLANG";
constexpr const char* no_cuda = "UPGC_NO_CUDA";
constexpr const char* compile = "UPGC_COMPILE";
constexpr const char* bad_plan = "UPGC_BAD_PLAN";
constexpr const char* io = "UPGC_IO";
constexpr const char* kernel = "UPGC_KERNEL";
constexpr const char* sanitizer = "UPGC_SANITIZER";
constexpr const char* busy = "UPGC_BUSY";
constexpr const char* closed = "UPGC_CLOSED";
constexpr const char* aborted = "UPGC_ABORTED";
constexpr const char* not_finite = "UPGC_NOT_FINITE";
}  // namespace code

/// Becomes a JavaScript Error with that `code`.
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

/// The parts written one after another.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace upgc
