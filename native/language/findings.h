#pragma once

#include <set>
#include <string>
#include <vector>

#include "tokens.h"

namespace upgc {

/// A reason for which Apple's compiler or run time refuses a text that a C++ compiler takes; or, where it is no error,
/// a trap that a text shows.
struct Rule {
  const char* id;
  bool is_error;
  /// What must hold: one line, lower case, no full stop. docs/check.md has the same table.
  const char* doc;
};

const std::vector<Rule>& check_rules();

/// See Finding in src/runtime/native.ts.
struct Finding {
  const Rule* rule;
  std::string message;
  /// What to do about it.
  std::string fix;
  uint32_t line, column, length;
};

/// What the rules find, at most `max_findings`.
class Findings {
 public:
  void add(const char* rule, const Token& at, const std::string& message, const std::string& fix);
  bool any_at(uint32_t line) const { return lines_.count(line) != 0; }
  bool full() const { return list_.size() >= max_findings; }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  static constexpr size_t max_findings = 200;

  std::vector<Finding> list_;
  std::set<uint32_t> lines_;
};

/// The rule with this id, which must be one of the table.
const Rule& find_rule(const char* id);

}  // namespace upgc
