#include "preprocess.h"

#include <algorithm>

#include "../cpu/clang.h"
#include "../cpu/files.h"
#include "../cpu/process.h"
#include "../error.h"
#include "directives.h"

namespace upgc {
namespace {

constexpr int preprocess_seconds = 20;
constexpr int max_diagnostic_lines = 40;

void check_size(const std::string& name, const std::string& text) {
  if (text.size() > max_text_bytes)
    throw Error(code::compile, concat(name, ": ", text.size(), " bytes of Metal text; at most ", max_text_bytes,
                                      " are read"));
}

/// What Metal's headers define, for `#if` and `#ifdef`: the macros that ask for a version with their value, the others
/// as themselves, so that they are still there after preprocessing.
std::string header_macros(const std::string& headers) {
  std::string macros;
  for (const HeaderFile& header : read_headers(headers)) {
    std::istringstream lines(header.content);
    for (std::string line; std::getline(lines, line);) {
      const std::string define = "#define ";
      if (line.rfind(define, 0) != 0) continue;
      size_t end = define.size();
      while (end < line.size() && is_word(line[end])) end++;
      const std::string name = line.substr(define.size(), end - define.size());
      const bool takes_arguments = end < line.size() && line[end] == '(';
      if (name.rfind("__", 0) == 0) macros += line + "\n";
      else if (!takes_arguments && name[0] >= 'A' && name[0] <= 'Z' && name.rfind("UPGC_", 0) != 0)
        macros += concat("#define ", name, " ", name, "\n");
    }
  }
  return macros;
}

/// The text with its #includes blanked: they name Metal's headers, of which nothing is wanted but `header_macros`.
std::string without_includes(std::string text, const std::vector<Directive>& directives) {
  for (const Directive& directive : directives)
    if (directive.name == "include")
      std::replace_if(
          text.begin() + directive.begin, text.begin() + directive.end, [](char c) { return c != '\n' && c != '\\'; },
          ' ');
  return text;
}

/// The part of clang's output that the user's text gave, where every line marker must name the user's text.
std::string users_part(const ProgramSpec& spec, const std::string& output) {
  const std::string name = quoted(spec.source_name);
  std::string result;
  bool users = false;
  for (size_t at = 0; at < output.size();) {
    const size_t end = std::min(output.find('\n', at), output.size());
    const bool marker = output.compare(at, 2, "# ") == 0 && at + 2 < end && is_digit(output[at + 2]);
    const bool names_text =
        marker && output.compare(std::min(output.find('"', at), end), name.size(), name) == 0;
    users |= names_text;
    if (users && marker && !names_text)
      throw Error(code::compile, concat(spec.source_name, ": includes ", output.substr(at, end - at)));
    // The flags behind the name are clang's own.
    if (users) result.append(output, at, end - at) += '\n';
    at = end + 1;
  }
  return result;
}

std::string run_clang(const ProgramSpec& spec, const RawText& raw) {
  const Clang clang = find_clang(spec);
  prepare_private_folder(spec.cache);
  const TemporaryFolder temporary(spec.cache);
  const std::string input = temporary.path + "/kernels.metal", output = temporary.path + "/kernels.i";
  // __has_include and its kin would ask what files this machine has.
  write_file(input, concat("#undef __has_include\n#undef __has_include_next\n#undef __has_embed\n",
                           header_macros(spec.headers), "#line 1 ", quoted(spec.source_name), "\n",
                           without_includes(spec.source, raw.directives), "\n"));
  const ProcessResult run = run_process({clang.path, "-E", "-x", "c++", "-std=c++17", "-undef", "-nostdinc",
                                         "-Wno-everything", "-fno-color-diagnostics", "-o", output, input},
                                        spec.environment, preprocess_seconds);
  if (run.timed_out)
    throw Error(code::compile, concat(spec.source_name, ": preprocessing took longer than ", preprocess_seconds, " s"));
  if (run.status != 0)
    throw Error(code::compile, concat(spec.source_name, " cannot be preprocessed:\n", run.start_error,
                                      first_lines(run.output, max_diagnostic_lines)));
  std::string result;
  if (!read_file(output, result)) throw Error(code::io, concat("cannot read ", output));
  return users_part(spec, result);
}

}  // namespace

MetalText preprocess(const ProgramSpec& spec) {
  check_size(spec.source_name, spec.source);
  const RawText raw = read_directives(spec.source_name, spec.source);
  if (!raw.needs_preprocessor) return MetalText(spec.source_name, spec.source);
  const std::string text = run_clang(spec, raw);
  check_size(spec.source_name, text);
  return MetalText(spec.source_name, text);
}

}  // namespace upgc
