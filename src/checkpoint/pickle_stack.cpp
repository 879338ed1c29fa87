// See pickle_stack.h.
#include "pickle_stack.h"

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "pickle_globals.h"
#include "pickle_opcodes.h"

namespace billm {
namespace {

constexpr const char* kKindNames[] = {"a bool", "a number", "a string",  "a tuple",
                                      "a dict", "a global", "a storage", "a tensor"};

constexpr const char* kHint =
    "billm reads what torch.save(model.state_dict(), FILE) writes, a dict of tensors; save that, "
    "or "
    "convert the file to safetensors";

const char* kind_name(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }

}  // namespace

PickleStack::PickleStack(std::span<const std::byte> pickle, const std::string& where)
    : pickle_(reinterpret_cast<const char*>(pickle.data()), pickle.size()), where_(where) {
  if (pickle.size() > kMaxPickleBytes) {
    fail("expected a pickle of at most " + std::to_string(kMaxPickleBytes) + " bytes, got " +
         std::to_string(pickle.size()));
  }
}

// --- errors --------------------------------------------------------------------------------------

void PickleStack::fail(const std::string& message, const std::string& hint) const {
  throw bad_input(where_ + ": " + message, hint.empty() ? kHint : hint);
}

void PickleStack::wrong(const std::string& expected, const std::string& got) const {
  fail(opcode() + ": expected " + expected + ", got " + got);
}

void PickleStack::too_many(const char* what, size_t limit) const {
  wrong("at most " + std::to_string(limit) + " " + what, "more");
}

const char* PickleStack::opcode_name() const {
  const char* name = pickle_opcode_name(static_cast<uint8_t>(pickle_[opcode_at_]));
  return name == nullptr ? "that does not exist" : name;
}

std::string PickleStack::opcode() const {
  return std::string("pickle opcode ") + opcode_name() + " at byte " + std::to_string(opcode_at_);
}

std::string PickleStack::describe(Id id) const {
  const Value& value = values_[id];
  if (value.kind == Kind::kString) return "the string '" + printable(value.text) + "'";
  if (value.kind == Kind::kGlobal) return kGlobals[value.number].name;
  return kind_name(value.kind);
}

// --- bytes ---------------------------------------------------------------------------------------

uint8_t PickleStack::next_opcode() {
  if (at_ >= pickle_.size()) {
    fail("expected a pickle that ends with STOP, got its end at byte " + std::to_string(at_));
  }
  opcode_at_ = at_;
  return static_cast<uint8_t>(pickle_[at_++]);
}

std::string_view PickleStack::take(size_t bytes) {
  if (bytes > bytes_left()) {
    wrong(std::to_string(bytes) + " bytes more", std::to_string(bytes_left()));
  }
  const std::string_view result = pickle_.substr(at_, bytes);
  at_ += bytes;
  return result;
}

std::string_view PickleStack::line() {
  const size_t end = pickle_.find('\n', at_);
  if (end == std::string_view::npos) wrong("a line", "the end");
  const std::string_view result = pickle_.substr(at_, end - at_);
  at_ = end + 1;
  return result;
}

// --- stack and memo ------------------------------------------------------------------------------

void PickleStack::push(Id id) {
  if (stack_.size() >= kMaxPickleStack) too_many("objects on the stack", kMaxPickleStack);
  stack_.push_back(id);
}

void PickleStack::push(Value value) {
  if (values_.size() >= kMaxPickleObjects) too_many("objects", kMaxPickleObjects);
  values_.push_back(value);
  push(static_cast<Id>(values_.size() - 1));
}

void PickleStack::push_tuple(Tuple items) {
  tuples_.push_back(std::move(items));
  push(Value{.kind = Kind::kTuple, .number = static_cast<int64_t>(tuples_.size()) - 1});
}

void PickleStack::push_dict(bool ordered) {
  dicts_.emplace_back();
  push(Value{
      .kind = Kind::kDict, .ordered = ordered, .number = static_cast<int64_t>(dicts_.size()) - 1});
}

PickleStack::Id PickleStack::pop() {
  const Id id = top();
  stack_.pop_back();
  return id;
}

PickleStack::Id PickleStack::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    wrong("an object on the stack", "none");
  }
  return stack_.back();
}

PickleStack::Tuple PickleStack::pop_many(size_t count) {
  Tuple items(count);
  for (size_t i = count; i-- > 0;) items[i] = pop();
  return items;
}

void PickleStack::mark() {
  if (marks_.size() >= kMaxPickleStack) too_many("marks", kMaxPickleStack);
  marks_.push_back(stack_.size());
}

PickleStack::Tuple PickleStack::pop_mark() {
  if (marks_.empty()) wrong("a MARK on the stack", "none");
  Tuple items(stack_.begin() + static_cast<ptrdiff_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return items;
}

void PickleStack::put(uint64_t index) {
  if (memo_.size() >= kMaxPickleMemo) too_many("memo entries", kMaxPickleMemo);
  memo_[index] = top();
}

void PickleStack::get(uint64_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) wrong("memo entry " + std::to_string(index), "none of that number");
  push(found->second);
}

// --- objects -------------------------------------------------------------------------------------

const Value& PickleStack::expect(Id id, Kind kind, const char* what) const {
  if (values_[id].kind != kind) {
    wrong(std::string("as ") + what + " " + kind_name(kind), describe(id));
  }
  return values_[id];
}

const PickleStack::Tuple& PickleStack::tuple(Id id, const char* what) const {
  return tuples_[static_cast<size_t>(expect(id, Kind::kTuple, what).number)];
}

PickleStack::Dict& PickleStack::dict(Id id, const char* what) {
  return dicts_[static_cast<size_t>(expect(id, Kind::kDict, what).number)];
}

int64_t PickleStack::size(Id id, const char* what) const {
  const int64_t number = expect(id, Kind::kInt, what).number;
  if (number < 0) wrong(std::string("as ") + what + " at least 0", std::to_string(number));
  return number;
}

}  // namespace billm
