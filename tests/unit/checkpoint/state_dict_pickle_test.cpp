// Hostile pickles, opcode by opcode: what a state dict does not need is refused where it stands,
// and nothing that a file says makes this reader allocate, recurse or loop out of proportion.
// tests/support/make_torch_files.py has the ones that Python's own pickle writes.
#include "src/checkpoint/state_dict_pickle.h"

#include <chrono>

#include "src/checkpoint/pickle_opcodes.h"
#include "testing.h"

namespace billm {
namespace {

using namespace std::string_literals;

StateDict read(const std::string& pickle) { return read_state_dict(bytes_of(pickle), "x"); }

void refused(const std::string& pickle, std::initializer_list<std::string_view> parts) {
  expect_bad_input([&] { read(pickle); }, parts);
}

std::string repeat(const std::string& text, size_t count) {
  std::string result;
  result.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

template <typename Number>
std::string raw(Number number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(number));
}

std::string text(const std::string& value) {
  return "X" + raw(static_cast<uint32_t>(value.size())) + value;
}

std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}

const std::string kOrderedDict = global("collections", "OrderedDict") + ")R";
const std::string kStorage =
    "(" + text("storage") + global("torch", "FloatStorage") + text("0") + text("cpu") + "K\x0ctQ";

// A tensor [3, 4] with these parts.
std::string tensor(const std::string& storage = kStorage, const std::string& size = "K\3K\4\x86",
                   const std::string& stride = "K\4K\1\x86",
                   const std::string& rest = "\x89" + kOrderedDict) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage + "K\0"s + size + stride +
         rest + "tR";
}

std::string dict_of(const std::string& value) { return "\x80\x02}" + text("a") + value + "s."; }

TEST(StateDictPickle, OneTensor) {
  const StateDict dict = read(dict_of(tensor()));
  ASSERT_EQ(dict.size(), 1u);
  const PickledTensor& a = dict.at("a");
  EXPECT_EQ(a.dtype, DType::F32);
  EXPECT_EQ(a.storage, "0");
  EXPECT_EQ(a.storage_bytes, 48);
  EXPECT_EQ(a.offset_bytes, 0);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{3, 4}));
  EXPECT_TRUE(read("}.").empty());
}

TEST(StateDictPickle, EveryOtherOpcodeIsRefusedByName) {
  // The opcodes that occur in files of torch.save; the other 37 of pickle's 68 have no business
  // there: INST, OBJ, NEWOBJ, EXT1..4, PERSID, lists, sets, bytes, floats, DUP, POP ...
  const std::string known =
      "IJKM\x8a\x88\x89\x8cX)t\x85\x86\x87}su(hjqr\x94"
      "c\x93Rb\x80.\x95Q";
  int refused_codes = 0;
  for (int code = 0; code < 256; ++code) {
    const char byte = static_cast<char>(code);
    if (known.find(byte) != std::string::npos) continue;
    const char* name = pickle_opcode_name(static_cast<uint8_t>(code));
    refused(std::string("}") + byte + std::string(16, 1),
            {"x: pickle opcode " + std::string(name == nullptr ? "that does not exist" : name) +
             " at byte 1 is not allowed"});
    refused_codes += name != nullptr;
  }
  EXPECT_EQ(refused_codes, 37);
}

TEST(StateDictPickle, GlobalsAreATable) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"__builtin__", "exec"},
                                                        {"builtins", "getattr"},
                                                        {"collections", "OrderedDict.fromkeys"},
                                                        {"collections.OrderedDict", ""},
                                                        {"", "collections.OrderedDict"},
                                                        {"", ""},
                                                        {"os\rsystem", "x"}}) {
    refused(global(module, name) + ".",
            {"pickle opcode GLOBAL of ", "at byte 0 is not allowed", "this file would run code"});
    refused(text(module) + text(name) + "\x93.", {"pickle opcode STACK_GLOBAL of ", "not allowed"});
  }
  refused(global("torch", "load") + ".", {"GLOBAL of torch.load", "not allowed"});
  refused(global("torch.hub", "load") + ".", {"GLOBAL of torch.hub.load", "not allowed"});
  refused(global("torchvision", "x") + ".", {"would run code"});
  refused("K\1K\2\x93.", {"STACK_GLOBAL", "expected as name a string, got a number"});
}

TEST(StateDictPickle, KnownGlobalsAreCalledOnlyAsTorchDoes) {
  const std::string ordered = global("collections", "OrderedDict");
  refused(ordered + "(K\1tR.", {"REDUCE at byte", "expected 0 arguments, got 1"});
  refused(ordered + "K\1R.", {"expected as arguments a tuple, got a number"});
  refused(text("os.system") + ")R.", {"expected as callee a global, got the string 'os.system'"});
  refused(global("torch", "FloatStorage") + ")R.", {"REDUCE at byte 21 of torch.FloatStorage"});
  refused(global("torch", "uint16") + ")R.", {"torch.uint16", "not allowed"});
  refused(global("torch._utils", "_rebuild_tensor_v2") + ")R.", {"expected 6 arguments, got 0"});
  refused(global("torch._utils", "_rebuild_parameter") + "(K\1\x88" + kOrderedDict + "tR.",
          {"expected as parameter a tensor, got a number"});
  refused(dict_of(tensor("K\1")), {"expected as storage a storage, got a number"});
  refused(dict_of(tensor(kStorage, "K\3")), {"expected as size a tuple, got a number"});
  refused(dict_of(tensor(kStorage, "K\3K\4\x86", text("x"))), {"expected as stride a tuple"});
  refused(dict_of(tensor(kStorage, "K\3" + text("4") + "\x86")), {"as size a number"});
  refused(dict_of(tensor(kStorage, "K\3K\4\x86", "K\4K\1\x86", "K\1" + kOrderedDict)),
          {"expected as requires_grad a bool"});
  refused(dict_of(tensor(kStorage, "K\3K\4\x86", "K\4K\1\x86", "\x89K\1")), {"backward hooks"});
  refused(dict_of(tensor(kStorage, "K\3K\4\x86", "K\4K\1\x86", "\x89}" + text("h") + "K\1s")),
          {"expected no backward hooks"});
  refused(dict_of(tensor(kStorage, "(" + repeat("K\1", 9) + "t")), {"at most 8 dimensions, got 9"});
}

TEST(StateDictPickle, PersistentIds) {
  const std::string type = global("torch", "FloatStorage");
  const auto id = [](const std::string& parts) { return "(" + parts + "tQ."; };
  refused("K\1Q.", {"expected as persistent id a tuple"});
  refused(id(""), {"expected a persistent id ('storage'"});
  refused(id(text("module") + type + text("0") + text("cpu") + "K\1"), {"('storage'"});
  refused(
      id(text("storage") + global("collections", "OrderedDict") + text("0") + text("cpu") + "K\1"),
      {"expected a storage type, got collections.OrderedDict"});
  refused(id(text("storage") + type + "K\1" + text("cpu") + "K\1"), {"storage key a string"});
  refused(id(text("storage") + type + text(std::string(16, '0')) + text("cpu") + "K\1"),
          {"at most 15 bytes"});
  refused(id(text("storage") + type + text("0") + text("cpu") + "J\xff\xff\xff\xff"),
          {"at least 0, got -1"});
  refused(id(text("storage") + type + text("0") + text("cpu") + text("1")),
          {"storage size a number"});
  // One storage, two opinions of it.
  refused(kStorage + "(" + text("storage") + type + text("0") + text("cpu") + "K\x0dtQ.",
          {"storage 0 of one type and size, got two"});
  refused(kStorage + "(" + text("storage") + global("torch", "IntStorage") + text("0") +
              text("cpu") + "K\x0ctQ.",
          {"storage 0 of one type and size"});
}

TEST(StateDictPickle, BuildSetsMetadataOnly) {
  const std::string state = "}" + text("_metadata") + "}s";
  EXPECT_TRUE(read(kOrderedDict + state + "b.").empty());
  refused("}" + state + "b.", {"BUILD", "the attribute _metadata of an OrderedDict"});
  refused(kOrderedDict + "}" + text("__class__") + "}sb.", {"BUILD", "_metadata"});
  refused(kOrderedDict + "}" + text("_metadata") + "}s" + text("x") + "}sb.", {"BUILD"});
  refused(kOrderedDict + "}b.", {"BUILD"});
  refused(kOrderedDict + "K\1b.", {"expected as state a dict"});
  refused(global("collections", "OrderedDict") + state + "b.", {"target of the state a dict"});
}

TEST(StateDictPickle, StackMarksAndMemo) {
  refused("", {"expected a pickle that ends with STOP, got its end at byte 0"});
  refused("}", {"its end at byte 1"});
  refused(".", {"an object on the stack, got none"});
  refused("}}.", {"one object on the stack, got several"});
  refused("}(.", {"an object on the stack"});
  refused("(}t(.", {"an object on the stack"});
  refused("}}(\x85.", {"TUPLE1", "an object on the stack, got none"});
  refused("t.", {"a MARK on the stack"});
  refused("u.", {"a MARK on the stack"});
  refused("}(K\1u.", {"pairs of key and value"});
  refused("K\1K\2K\3s.", {"target of the items a dict, got a number"});
  refused("s.", {"an object on the stack"});
  refused("h\0."s, {"memo entry 0, got none"});
  refused("j\xff\xff\xff\xff.", {"memo entry 4294967295, got none"});
  refused("q\0."s, {"BINPUT", "an object on the stack"});
  refused("\x94.", {"MEMOIZE", "an object on the stack"});
  EXPECT_TRUE(read("}r\xff\xff\xff\xffj\xff\xff\xff\xffh\0."s.substr(0, 6) + ".").empty());
  refused("})s.", {"an object on the stack, got none"});
}

TEST(StateDictPickle, Protocols) {
  for (const char version : {2, 3, 4, 5}) EXPECT_TRUE(read("\x80"s + version + "}.").empty());
  for (const char version : {0, 1, 6, -1}) {
    refused("\x80"s + version + "}.", {"PROTO at byte 0: expected protocol 2 to 5"});
  }
  refused("}\x80\x02.", {"PROTO at byte 1"});
  refused("\x80\x04\x95" + raw(uint64_t{3}) + "}.", {"FRAME", "at most 2 bytes, got 3"});
  refused("\x95" + raw(~uint64_t{0}) + "}.", {"FRAME"});
  refused("I2\n.", {"INT", "expected 00 or 01, got 2"});
  refused("I01", {"INT", "a line"});
  refused("I" + std::string(100000, '9') + "\n.", {"INT"});
}

TEST(StateDictPickle, LengthsAreCheckedBeforeAnythingIsTaken) {
  refused("X\xff\xff\xff\xff.", {"BINUNICODE at byte 0: expected 4294967295 bytes more, got 1"});
  refused("\x8c\xff.", {"SHORT_BINUNICODE", "255 bytes more, got 1"});
  refused("\x8a\xff.", {"LONG1", "255 bytes more"});
  refused("\x8a\0."s, {"LONG1", "1 to 8 bytes, got 0"});
  refused("\x8a\x09" + std::string(9, 1) + ".", {"LONG1", "1 to 8 bytes, got 9"});
  refused("J\1\2.", {"BININT", "4 bytes more, got 3"});
  refused("c" + std::string(1000, 'x'), {"GLOBAL", "expected a line"});
  refused(std::string((16 << 20) + 1, '('), {"expected a pickle of at most 16777216 bytes"});
}

// Each of these is quick and small here, and would not be in a reader that trusts it.
TEST(StateDictPickle, Bombs) {
  const auto begin = std::chrono::steady_clock::now();
  // A dict in a dict in a dict ...: recursion when printed or freed. A tuple likewise.
  refused(repeat("}" + text("a"), 100000) + "}" + repeat("s", 100000) + ".",
          {"a: expected a tensor"});
  refused(")" + repeat("\x85", 1000000) + ".", {"the file's object a dict, got a tuple"});
  // Doubling through the memo: 2^30 leaves if anybody walks them.
  refused(")" + repeat("q\1h\1\x86", 30) + ".", {"got a tuple"});
  // A dict that holds itself.
  refused("}q\1" + text("a") + "h\1s.", {"a: expected a tensor, got a dict"});
  refused(std::string(2000000, '('), {"at most 1048576 marks"});
  refused(std::string(2000000, ')'), {"at most 1048576 objects on the stack"});
  refused(repeat("(" + std::string(500000, ')') + "t", 5), {"at most 2097152 objects"});
  refused(")" + repeat("\x94", 2000000), {"at most 1048576 memo entries"});
  std::string puts = ")";
  for (uint32_t i = 0; i < 2000000; ++i) puts += "r" + raw(i * 2146);
  refused(puts, {"at most 1048576 memo entries"});
  // A long key and a long shape, used again and again: the time of a hash or copy each.
  refused(text(std::string(8 << 20, 'k')) + "q\1" +
              repeat("(" + text("storage") + global("torch", "FloatStorage") + "h\1h\1K\1tQ", 1000),
          {"at most 15 bytes"});
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin);
  EXPECT_LT(seconds.count(), 20.0);  // under the sanitizers, beside other tests; about 1 s alone
}

TEST(StateDictPickle, TruncatedAtEveryByte) {
  const std::string whole = dict_of(tensor());
  for (size_t size = 0; size < whole.size(); ++size) refused(whole.substr(0, size), {"x: "});
}

}  // namespace
}  // namespace billm
