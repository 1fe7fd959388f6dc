#include "check.h"

#include <algorithm>
#include <cstdlib>

#include "../cpu/files.h"
#include "../error.h"
#include "admit.h"
#include "check_rules.h"
#include "directives.h"
#include "preprocess.h"

namespace upgc {
namespace {

/// What the front end refuses, `name:line:column: message`, as a finding.
void add_refusal(const ProgramSpec& spec, const Error& error, Findings& findings) {
  std::string message = error.what();
  Token at{TokenKind::word, 0, 1, 1, 1};
  // Behind other words where the preprocessor says it.
  const size_t place = message.find(spec.source_name + ":");
  if (place != std::string::npos) {
    char* end = nullptr;
    const char* const numbers = message.c_str() + place + spec.source_name.size() + 1;
    const unsigned long line = std::strtoul(numbers, &end, 10);
    const unsigned long column = *end == ':' ? std::strtoul(end + 1, &end, 10) : 0;
    if (line != 0 && column != 0 && *end == ':') {
      at.line = uint32_t(line);
      at.column = uint32_t(column);
      message = end + 1;
      message.erase(0, std::min(message.find_first_not_of(' '), message.size()));
      message = first_lines(message, 1);
    }
  }
  while (!message.empty() && message.back() == '\n') message.pop_back();
  bool is_clangs = false;
  for (const std::string start : {"error: ", "fatal error: "})
    if (message.rfind(start, 0) == 0) message.erase(0, start.size()), is_clangs = true;
  if (findings.any_at(at.line)) return;
  // Many of these say what to do behind their last semicolon.
  const size_t advice = message.rfind("; ");
  const bool advises = advice != std::string::npos;
  const bool incomplete = message.find("without closing") != std::string::npos || is_clangs;
  const char* const general = incomplete ? "complete it" : "write plain Metal, or compile on a Mac";
  findings.add(incomplete ? "incomplete" : "refused", at, message.substr(0, advice),
               advises ? message.substr(advice + 2) : general);
}

/// All words of Metal's headers off Apple but those of comments.
std::set<std::string> library_words(const std::string& headers) {
  std::set<std::string> words;
  for (const HeaderFile& header : read_headers(headers)) {
    const std::string& text = header.content;
    for (size_t at = 0; at < text.size();) {
      if (text.compare(at, 2, "//") == 0) at = std::min(text.find('\n', at), text.size());
      size_t end = at;
      while (end < text.size() && is_word(text[end])) end++;
      if (end > at) words.insert(text.substr(at, end - at));
      at = std::max(end, at + 1);
    }
  }
  return words;
}

/// The first word that only Metal's headers declare; `nowhere` when there is none.
size_t first_use_of_library(const Syntax& syntax) {
  for (size_t i = 0; i < syntax.code().size(); i++) {
    const bool vector = is_number_type(syntax.at(i)) && component_count(syntax.at(i)) > 1;
    if (syntax.at(i) == "metal" || vector) return i;
  }
  return nowhere;
}

void check_include(const ProgramSpec& spec, const Syntax& syntax, Findings& findings) {
  for (const Directive& directive : read_directives(spec.source_name, spec.source).directives)
    if (directive.name == "include") return;
  const size_t use = first_use_of_library(syntax);
  if (use != nowhere)
    findings.add("missing-include", syntax.code()[use],
                 concat("`", syntax.at(use), "` is part of Metal's library, which the text does not include"),
                 "begin the text with #include <metal_stdlib>");
}

void check_text(const ProgramSpec& spec, const MetalText& text, Findings& findings) {
  const Syntax syntax(text);
  const bool supported = check_kernel_rules(syntax, findings);
  check_language_rules(syntax, library_words(spec.headers), findings);
  check_include(spec, syntax, findings);
  // Nothing of what clang reads here ever runs, so this need not wait for what `admit` says.
  if (supported && !findings.full()) check_types(spec, syntax, findings);
  admit(text, syntax);
}

}  // namespace

std::vector<Finding> check_kernels(const ProgramSpec& spec) {
  Findings findings;
  try {
    check_text(spec, preprocess(spec), findings);
  } catch (const Error& error) {
    if (std::string_view(error.code()) != code::compile) throw;
    add_refusal(spec, error, findings);
  }
  std::vector<Finding> list = findings.take();
  std::stable_sort(list.begin(), list.end(), [](const Finding& a, const Finding& b) {
    return a.line != b.line ? a.line < b.line : a.column < b.column;
  });
  const auto same = [](const Finding& a, const Finding& b) {
    return a.rule == b.rule && a.line == b.line && a.column == b.column;
  };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return list;
}

}  // namespace upgc
