// What pickle's stack machine works on: the bytes, the objects made from them, stack, marks and
// memo, each with its limit. What the opcodes do with them, state_dict_pickle.cpp knows.
//
// Objects are numbered as they are made and refer to each other by number: a tuple that holds a
// tuple a million levels down costs no recursion, here or in a destructor.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace billm {

// A tensor takes about 200 bytes, 15 objects and 8 memo entries of a pickle: no file comes near
// these. A hostile one is held to some hundred megabytes by them.
inline constexpr size_t kMaxPickleBytes = 16 << 20;
inline constexpr size_t kMaxPickleObjects = 1 << 21;
inline constexpr size_t kMaxPickleStack = 1 << 20;
inline constexpr size_t kMaxPickleMemo = 1 << 20;

enum class Kind : uint8_t { kBool, kInt, kString, kTuple, kDict, kGlobal, kStorage, kTensor };

struct Value {
  Kind kind;
  bool ordered = false;  // kDict: made by OrderedDict(), not by {}
  // kBool, kInt: the value. kGlobal: row of kGlobals. kTuple, kDict, kStorage, kTensor: index into
  // the list of their contents.
  int64_t number = 0;
  std::string_view text = {};  // kString: part of the pickle
};

class PickleStack {
 public:
  using Id = uint32_t;
  using Tuple = std::vector<Id>;
  using Dict = std::vector<std::pair<Id, Id>>;

 protected:
  // Throws Error{kBadInput} starting with `where`, as all functions below do.
  PickleStack(std::span<const std::byte> pickle, const std::string& where);

  // Errors. wrong(): "WHERE: pickle opcode REDUCE at byte 17: expected ..., got ...".
  [[noreturn]] void fail(const std::string& message, const std::string& hint = "") const;
  [[noreturn]] void wrong(const std::string& expected, const std::string& got) const;
  [[noreturn]] void too_many(const char* what, size_t limit) const;
  const char* opcode_name() const;  // "REDUCE", or "0xff" for what is no opcode
  std::string opcode() const;       // "pickle opcode REDUCE at byte 17"
  std::string describe(Id id) const;

  // The pickle's bytes.
  uint8_t next_opcode();
  std::string_view take(size_t bytes);
  std::string_view line();  // up to a newline, without it
  template <typename Number>
  Number number() {
    Number value;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  size_t bytes_left() const { return pickle_.size() - at_; }
  size_t opcode_at() const { return opcode_at_; }

  // Stack and memo. Objects below the innermost mark are out of reach until it is popped.
  void push(Id id);
  void push(Value value);
  void push_tuple(Tuple items);
  void push_dict(bool ordered);
  Id pop();
  Id top();
  Tuple pop_many(size_t count);
  void mark();
  Tuple pop_mark();
  bool is_only(Id id) const { return stack_.size() == 1 && marks_.empty() && stack_[0] == id; }
  void put(uint64_t index);
  void memoize() { put(memo_.size()); }
  void get(uint64_t index);

  // Objects by number; the ones with a kind throw where it is another.
  const Value& value(Id id) const { return values_[id]; }
  const Value& expect(Id id, Kind kind, const char* what) const;
  const Tuple& tuple(Id id, const char* what) const;
  Dict& dict(Id id, const char* what);
  int64_t size(Id id, const char* what) const;  // an integer of at least 0

 private:
  std::string_view pickle_;
  const std::string& where_;
  size_t at_ = 0, opcode_at_ = 0;
  std::vector<Value> values_;
  std::vector<Tuple> tuples_;
  std::vector<Dict> dicts_;
  std::vector<Id> stack_;
  std::vector<size_t> marks_;  // the stack's size at each MARK
  std::unordered_map<uint64_t, Id> memo_;
};

}  // namespace billm
