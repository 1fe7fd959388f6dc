#pragma once

#include "../error.h"

namespace upgc::pack {

/// UPGC_IO with what a message for the user is made of.
struct IoError : Error {
  IoError(const std::string& message, std::string path, bool writing, int number)
      : Error(code::io, message), path(std::move(path)), writing(writing), number(number) {}

  std::string path;
  bool writing;
  /// errno, or 0 when the file ended early.
  int number;
  /// Where it ended, and how much was missing.
  uint64_t position = 0;
  uint64_t missing = 0;
  /// The weight that was being read.
  std::string weight;
};

[[noreturn]] void fail_reading(const std::string& path);
[[noreturn]] void fail_writing(const std::string& path);

}  // namespace upgc::pack
