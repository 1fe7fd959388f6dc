#pragma once

#include <map>
#include <string>
#include <vector>

namespace upgc {

struct ProcessResult {
  /// Exit status; -1 when the process did not exit by itself or could not be started.
  int status = -1;
  bool timed_out = false;
  /// Why it could not be started; empty when it was.
  std::string start_error;
  /// What it wrote to stdout and stderr.
  std::string output;
};

/// Runs `arguments[0]` (a path) to its end, without a shell and with just this environment. At `seconds` it is killed
/// along with its children; on Linux neither may take more than 4 GiB of memory or write a file of 256 MiB.
ProcessResult run_process(const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment, int seconds);

}  // namespace upgc
