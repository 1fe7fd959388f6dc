#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#ifdef __linux__
#include <sys/resource.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace upgc {
namespace {

// A compiler that prints without end must not fill the memory.
constexpr size_t max_output = 1 << 20;
// The largest public kernel files take clang half a gigabyte; what takes much more was written to.
constexpr uint64_t max_memory = uint64_t(4) << 30;
constexpr uint64_t max_file_bytes = uint64_t(256) << 20;

std::vector<char*> c_strings(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// Starts the process with `output` as its stdout and stderr. Returns an errno.
int spawn(pid_t* process, std::vector<std::string> arguments, std::vector<std::string> environment, int output) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // Node blocks signals on pool threads and ignores SIGPIPE; the child would inherit both. A process group of its own
  // lets us kill the compiler's children (the linker) too.
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  const int error = posix_spawn(process, arguments[0].c_str(), &files, &attributes, c_strings(arguments).data(),
                                c_strings(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

/// Limits the process and the children that it has not started yet. Other systems than Linux enforce no such limit.
void limit_memory([[maybe_unused]] pid_t process) {
#ifdef __linux__
  const rlimit memory{max_memory, max_memory}, file{max_file_bytes, max_file_bytes};
  prlimit(process, RLIMIT_AS, &memory, nullptr);
  prlimit(process, RLIMIT_FSIZE, &file, nullptr);
#endif
}

/// Reads until the other end closes; false when `seconds` pass before that.
bool read_all(int input, std::string& output, int seconds) {
  using clock = std::chrono::steady_clock;
  const auto deadline = clock::now() + std::chrono::seconds(seconds);
  char buffer[16384];
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock::now()).count();
    if (left <= 0) return false;
    pollfd ready{input, POLLIN, 0};
    const int count = poll(&ready, 1, static_cast<int>(left));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    const ssize_t bytes = read(input, buffer, sizeof buffer);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return true;
    if (output.size() < max_output) output.append(buffer, bytes);
  }
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment, int seconds) {
  ProcessResult result;
  int ends[2];
  if (pipe(ends) != 0) {
    result.start_error = std::strerror(errno);
    return result;
  }
  for (const int end : ends) fcntl(end, F_SETFD, FD_CLOEXEC);

  std::vector<std::string> settings;
  for (const auto& [name, value] : environment) settings.push_back(name + "=" + value);
  pid_t process = 0;
  const int error = spawn(&process, arguments, settings, ends[1]);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    result.start_error = std::strerror(error);
    return result;
  }
  limit_memory(process);
  result.timed_out = !read_all(ends[0], result.output, seconds);
  close(ends[0]);
  if (result.timed_out) kill(-process, SIGKILL);
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

}  // namespace upgc
