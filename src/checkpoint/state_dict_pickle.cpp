// See state_dict_pickle.h. The opcodes: CPython's Lib/pickletools.py. What torch writes:
// torch/serialization.py (persistent_id), torch/_tensor.py (__reduce_ex__), torch/_utils.py
// (_rebuild_*).
#include "state_dict_pickle.h"

#include <cstring>
#include <unordered_map>
#include <utility>

#include "billm/base/utf8.h"
#include "billm/checkpoint/json.h"
#include "pickle_globals.h"
#include "pickle_opcodes.h"
#include "pickle_stack.h"

namespace billm {
namespace {

// These bound what is copied or hashed each time that a memo entry is used again.
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxKey = 15;  // torch counts: "0", "1", ...

struct Storage {
  std::string_view key;
  DType dtype;  // U8 where it is untyped
  bool untyped;
  int64_t count;  // elements
};

class Machine : PickleStack {
 public:
  Machine(std::span<const std::byte> pickle, const std::string& where)
      : PickleStack(pickle, where) {}

  StateDict run() {
    while (step()) {
    }
    if (bytes_left() > 0) wrong("the end of the pickle after it", "more bytes");
    const Id result = top();
    if (!is_only(result)) wrong("one object on the stack", "several");
    return finish(result);
  }

 private:
  // --- objects -----------------------------------------------------------------------------------

  void push_global(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + "." + std::string(name);
    for (size_t i = 0; i < std::size(kGlobals); ++i) {
      if (full == kGlobals[i].name) {
        return push(Value{.kind = Kind::kGlobal, .number = static_cast<int64_t>(i)});
      }
    }
    const bool torch = module == "torch" || module.starts_with("torch.");
    fail(std::string("pickle opcode ") + opcode_name() + " of " + printable(full) + " at byte " +
             std::to_string(opcode_at()) + " is not allowed" +
             (torch ? ": it is no part of a dict of plain tensors" : "; this file would run code"),
         torch ? "" : "do not load this file with torch.load; get the model from another place");
  }
  const Global& global(Id id, const char* what) const {
    return kGlobals[expect(id, Kind::kGlobal, what).number];
  }

  // ('storage', torch.FloatStorage, key, location, number of elements)
  void push_storage(Id id) {
    const Tuple& parts = tuple(id, "persistent id");
    if (parts.size() != 5 ||
        expect(parts[0], Kind::kString, "kind of persistent id").text != "storage") {
      wrong("a persistent id ('storage', type, key, location, size)", "another one");
    }
    const Global& type = global(parts[1], "storage type");
    if (type.meaning != Meaning::kStorage && type.meaning != Meaning::kUntypedStorage) {
      wrong("a storage type", type.name);
    }
    const std::string_view key = expect(parts[2], Kind::kString, "storage key").text;
    if (key.size() > kMaxKey) wrong("a storage key of at most 15 bytes", describe(parts[2]));
    expect(parts[3], Kind::kString, "storage location");
    const Storage storage{key, type.dtype, type.meaning == Meaning::kUntypedStorage,
                          size(parts[4], "storage size")};
    const auto [known, added] = storage_of_.emplace(key, storage);
    const Storage& first = known->second;
    if (!added && (first.untyped != storage.untyped || first.dtype != storage.dtype ||
                   first.count != storage.count)) {
      wrong("storage " + printable(key) + " of one type and size", "two");
    }
    storages_.push_back(storage);
    push(Value{.kind = Kind::kStorage, .number = static_cast<int64_t>(storages_.size()) - 1});
  }

  void rebuild_tensor(const Tuple& arguments, bool v3) {
    expect_count(arguments, v3 ? 7 : 6);
    const Storage& storage =
        storages_[static_cast<size_t>(expect(arguments[0], Kind::kStorage, "storage").number)];
    expect(arguments[4], Kind::kBool, "requires_grad");
    expect_no_hooks(arguments[5]);
    if (v3 != storage.untyped) {
      wrong(v3 ? "an untyped storage" : "a typed storage", "the other kind");
    }
    DType dtype = storage.dtype;
    if (v3) {
      const Global& named = global(arguments[6], "dtype");
      if (named.meaning != Meaning::kDType) wrong("a dtype", named.name);
      dtype = named.dtype;
    }
    PickledTensor tensor{dtype, std::string(storage.key), 0, 0, sizes(arguments[2], "size")};
    const std::vector<int64_t> strides = sizes(arguments[3], "stride");
    const int64_t width = dtype_bytes(dtype);
    if (!tensor_bytes(dtype, tensor.shape) ||
        __builtin_mul_overflow(size(arguments[1], "offset"), width, &tensor.offset_bytes) ||
        __builtin_mul_overflow(storage.count, storage.untyped ? 1 : width, &tensor.storage_bytes)) {
      wrong("tensors of less than 2^60 bytes", shape_text(tensor.shape));
    }
    check_contiguous(tensor.shape, strides);
    tensors_.push_back(std::move(tensor));
    push(Value{.kind = Kind::kTensor, .number = static_cast<int64_t>(tensors_.size()) - 1});
  }

  void expect_count(const Tuple& arguments, size_t count) const {
    if (arguments.size() != count) {
      wrong(std::to_string(count) + " arguments", std::to_string(arguments.size()));
    }
  }
  void expect_no_hooks(Id id) {
    if (!dict(id, "backward hooks").empty()) wrong("no backward hooks", "some");
  }
  std::vector<int64_t> sizes(Id id, const char* what) const {
    const Tuple& items = tuple(id, what);
    if (items.size() > kMaxRank) {
      wrong("at most " + std::to_string(kMaxRank) + " dimensions", std::to_string(items.size()));
    }
    std::vector<int64_t> result;
    for (const Id item : items) result.push_back(size(item, what));
    return result;
  }

  // Row-major without gaps; a dimension of size 1 may have any stride, an empty tensor all of them.
  void check_contiguous(const std::vector<int64_t>& shape,
                        const std::vector<int64_t>& strides) const {
    if (strides.size() != shape.size()) wrong("as many strides as sizes", shape_text(strides));
    for (const int64_t extent : shape) {
      if (extent == 0) return;
    }
    int64_t expected = 1;  // the product of the shape was checked
    for (size_t i = shape.size(); i-- > 0;) {
      if (shape[i] != 1 && strides[i] != expected) {
        fail(opcode() + ": expected contiguous tensors, got one of size " + shape_text(shape) +
                 " with strides " + shape_text(strides),
             "save it with .contiguous() for every tensor, or convert the file to safetensors");
      }
      expected *= shape[i];
    }
  }

  void reduce() {
    const Id arguments_id = pop();
    const Global& callee = global(pop(), "callee");
    const Tuple& arguments = tuple(arguments_id, "arguments");
    switch (callee.meaning) {
      case Meaning::kOrderedDict:
        expect_count(arguments, 0);
        return push_dict(true);
      case Meaning::kRebuildTensor:
        return rebuild_tensor(arguments, false);
      case Meaning::kRebuildTensorV3:
        return rebuild_tensor(arguments, true);
      case Meaning::kRebuildParameter:
        expect_count(arguments, 3);
        expect(arguments[0], Kind::kTensor, "parameter");
        expect(arguments[1], Kind::kBool, "requires_grad");
        expect_no_hooks(arguments[2]);
        return push(arguments[0]);
      case Meaning::kStorage:
      case Meaning::kUntypedStorage:
      case Meaning::kDType:
        fail(opcode() + " of " + callee.name + " is not allowed");
    }
  }

  // Only what Module.state_dict() adds: the attribute _metadata (versions of modules) of an
  // OrderedDict. It is of no use here.
  void build() {
    const Dict& state = dict(pop(), "state");
    if (!expect(top(), Kind::kDict, "target of the state").ordered || state.size() != 1 ||
        expect(state[0].first, Kind::kString, "attribute").text != "_metadata") {
      wrong("the attribute _metadata of an OrderedDict", "something else");
    }
  }

  void set_items(const Tuple& items) {
    if (items.size() % 2 != 0) wrong("pairs of key and value", "an odd number");
    Dict& target = dict(top(), "target of the items");
    for (size_t i = 0; i < items.size(); i += 2) target.emplace_back(items[i], items[i + 1]);
  }

  // --- opcodes -----------------------------------------------------------------------------------

  void push_int(int64_t value) { push(Value{.kind = Kind::kInt, .number = value}); }
  void push_bool(bool value) { push(Value{.kind = Kind::kBool, .number = value ? 1 : 0}); }
  void push_string(size_t bytes) { push(Value{.kind = Kind::kString, .text = take(bytes)}); }

  void push_long(std::string_view bytes) {
    if (bytes.empty() || bytes.size() > sizeof(int64_t)) {
      wrong("an integer of 1 to 8 bytes", std::to_string(bytes.size()));
    }
    uint64_t value = (bytes.back() & 0x80) != 0 ? ~uint64_t{0} : 0;  // sign extension
    std::memcpy(&value, bytes.data(), bytes.size());
    push_int(static_cast<int64_t>(value));
  }

  void stack_global() {
    const Id name = pop(), module = pop();
    // By itself: the order in which a call's arguments are checked is the compiler's.
    const std::string_view attribute = expect(name, Kind::kString, "name").text;
    push_global(expect(module, Kind::kString, "module").text, attribute);
  }

  bool step() {
    switch (static_cast<Opcode>(next_opcode())) {
      case Opcode::kProto:
        if (const uint8_t version = number<uint8_t>();
            opcode_at() != 0 || version < 2 || version > 5) {
          wrong("protocol 2 to 5 at byte 0", std::to_string(version));
        }
        break;
      case Opcode::kFrame:  // only groups what follows
        if (const auto bytes = number<uint64_t>(); bytes > bytes_left()) {
          wrong("at most " + std::to_string(bytes_left()) + " bytes", std::to_string(bytes));
        }
        break;
      case Opcode::kStop:
        return false;
      case Opcode::kMark:
        mark();
        break;
      case Opcode::kNewTrue:
        push_bool(true);
        break;
      case Opcode::kNewFalse:
        push_bool(false);
        break;
      case Opcode::kInt: {  // protocol 1 writes its bools so, and nothing else
        const std::string_view text = line();
        if (text != "00" && text != "01") wrong("00 or 01", printable(text));
        push_bool(text == "01");
        break;
      }
      case Opcode::kBinInt:
        push_int(number<int32_t>());
        break;
      case Opcode::kBinInt1:
        push_int(number<uint8_t>());
        break;
      case Opcode::kBinInt2:
        push_int(number<uint16_t>());
        break;
      case Opcode::kLong1:
        push_long(take(number<uint8_t>()));
        break;
      case Opcode::kBinUnicode:
        push_string(number<uint32_t>());
        break;
      case Opcode::kShortBinUnicode:
        push_string(number<uint8_t>());
        break;
      case Opcode::kEmptyTuple:
        push_tuple({});
        break;
      case Opcode::kTuple1:
        push_tuple(pop_many(1));
        break;
      case Opcode::kTuple2:
        push_tuple(pop_many(2));
        break;
      case Opcode::kTuple3:
        push_tuple(pop_many(3));
        break;
      case Opcode::kTuple:
        push_tuple(pop_mark());
        break;
      case Opcode::kEmptyDict:
        push_dict(false);
        break;
      case Opcode::kSetItem:
        set_items(pop_many(2));
        break;
      case Opcode::kSetItems:
        set_items(pop_mark());
        break;
      case Opcode::kBinPut:
        put(number<uint8_t>());
        break;
      case Opcode::kLongBinPut:
        put(number<uint32_t>());
        break;
      case Opcode::kMemoize:
        memoize();
        break;
      case Opcode::kBinGet:
        get(number<uint8_t>());
        break;
      case Opcode::kLongBinGet:
        get(number<uint32_t>());
        break;
      case Opcode::kGlobal: {
        const std::string_view module = line(), name = line();
        push_global(module, name);
        break;
      }
      case Opcode::kStackGlobal:
        stack_global();
        break;
      case Opcode::kBinPersId:
        push_storage(pop());
        break;
      case Opcode::kReduce:
        reduce();
        break;
      case Opcode::kBuild:
        build();
        break;
      default:
        fail(opcode() + " is not allowed: a dict of tensors needs none");
    }
    return true;
  }

  StateDict finish(Id id) {
    StateDict result;
    for (const auto& [key, item] : dict(id, "the file's object")) {
      const std::string name(expect(key, Kind::kString, "name of a tensor").text);
      if (name.find('\0') != std::string::npos ||
          find_invalid_utf8(name) != std::string_view::npos) {
        fail("expected names of tensors in UTF-8, got other bytes");
      }
      if (value(item).kind == Kind::kDict) {
        fail(printable(name) + ": expected a tensor, got a dict",
             "if these are the weights, unwrap them: torch.save(torch.load(FILE, "
             "weights_only=True)[NAME], NEW_FILE)");
      }
      if (value(item).kind != Kind::kTensor) {
        fail(printable(name) + ": expected a tensor, got " + describe(item));
      }
      if (!result.emplace(name, tensors_[static_cast<size_t>(value(item).number)]).second) {
        fail(printable(name) + ": expected each tensor once, got it twice");
      }
    }
    return result;
  }

  std::vector<Storage> storages_;
  std::unordered_map<std::string_view, Storage> storage_of_;  // by key, the first of each
  std::vector<PickledTensor> tensors_;
};

}  // namespace

StateDict read_state_dict(std::span<const std::byte> pickle, const std::string& where) {
  return Machine(pickle, where).run();
}

}  // namespace billm
