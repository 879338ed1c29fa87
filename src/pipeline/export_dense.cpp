// `billm export --dense`: a packed model as an ordinary fp16 checkpoint, shard by shard.
#include <cstring>
#include <set>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/model/model.h"
#include "billm/pipeline/quantize_model.h"
#include "output_directory.h"
#include "result_files.h"

namespace billm {
namespace {

// The weight of a packed module as fp16 bytes, [rows, cols].
std::vector<std::byte> decode_half(const PackedModules& modules, const std::string& module,
                                   int threads) {
  const IntegerRows* const integers = modules.integer_rows(module);
  const PackedModules::Size size = modules.size(module);
  const int64_t rows = size.rows, cols = size.cols;
  std::vector<float> weight(static_cast<size_t>(rows * cols));
  if (integers != nullptr) {
    decode_rows(*integers, 0, rows, weight.data());
  } else {
    decode(modules.open(module), threads, weight.data());
  }
  std::vector<std::byte> bytes(weight.size() * 2);
  constexpr int64_t kTile = 64;
  parallel_parts(rows, kTile, threads, [&](int64_t first, int64_t end) {
    for (int64_t i = first * cols; i < end * cols; ++i) {
      const float value = weight[static_cast<size_t>(i)];
      const uint16_t half = float_to_half(value);
      if ((half & 0x7c00u) == 0x7c00u) {
        throw bad_input(module + ": a weight of " + std::to_string(value) + " does not fit fp16",
                        "this model cannot be exported as fp16");
      }
      std::memcpy(bytes.data() + i * 2, &half, 2);
    }
  });
  return bytes;
}

}  // namespace

void export_dense(const std::filesystem::path& model_directory, const std::filesystem::path& out,
                  bool overwrite, int threads, bool quiet) {
  const Model model(model_directory, threads);
  const PackedModules* packed = model.packed();
  if (packed == nullptr) {
    throw bad_input(model_directory.string() + ": is not a packed model",
                    "give the directory that billm quantize wrote");
  }
  using Existing = OutputDirectory::Existing;
  OutputDirectory directory(out, overwrite ? Existing::kOverwrite : Existing::kRefuse,
                            {model_directory});
  const auto& shards = model.checkpoint().shards();
  Progress progress("export", static_cast<int64_t>(shards.size()), quiet);
  std::vector<std::string> names;
  for (const TensorFile& shard : shards) {
    std::vector<TensorToWrite> tensors;
    std::set<std::string> modules;
    for (const auto& [name, view] : shard.tensors()) {
      const std::string module = packed->module_of(name);
      if (module.empty()) {
        tensors.push_back({name, view.dtype, view.shape, view.data});
      } else if (modules.insert(module).second) {
        const auto [rows, cols] = packed->size(module);
        tensors.push_back(
            {module + ".weight", DType::F16, {rows, cols}, {}, [packed, module, threads] {
               return decode_half(*packed, module, threads);
             }});
      }
    }
    names.push_back(shard.path().filename());
    write_safetensors(directory.partial() / names.back(), tensors, {{"format", "pt"}});
    progress.step(names.back());
  }
  write_index(directory.partial(), names);
  copy_side_files(model_directory, directory.partial());
  nlohmann::ordered_json config =
      parse_ordered_json(read_text_file(model_directory / "config.json"));
  config.erase("quantization_config");
  // A loader casts everything to this: it must be what the weights are.
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.contains(key)) config[key] = "float16";
  }
  write_file_atomic(directory.partial() / "config.json", dump_json(config, 2) + "\n");
  directory.finish();
}

}  // namespace billm
