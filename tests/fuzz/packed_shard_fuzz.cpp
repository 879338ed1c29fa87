// Any bytes are either a shard of a packed model, whose layers then decode to the same weights in
// both ways that there are, and can be made ready to run, or an error.
#include <cstring>
#include <vector>

#include "billm/checkpoint/safetensors.h"
#include "billm/codes/region_codes.h"
#include "billm/pack/packed_checkpoint.h"
#include "billm/pack/plane_tiles.h"
#include "kernels/cpu/gemv.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  constexpr int64_t kMostWeights = 1 << 16;  // to be quick; what is checked does not depend on it
  return fuzz::answer([&] {
    const auto content = parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& [module, description] : content.metadata) {
      if (!is_module_key(module)) continue;
      if (describes_integer_rows(description)) {
        IntegerRows stored = parse_integer_rows(description, module);
        for (const char* name : {"codes", "scales"}) {
          const auto plane = content.tensors.find(module + "." + name);
          if (plane == content.tensors.end()) continue;
          const TensorView& view = plane->second;
          stored.planes.push_back({name, dtype_name(view.dtype), view.shape, view.data});
        }
        check_integer_rows(stored, module);
        if (stored.rows > kMostWeights / stored.cols) continue;
        std::vector<float> values(static_cast<size_t>(stored.rows * stored.cols));
        decode_rows(stored, 0, stored.rows, values.data());
        const std::vector<float> run = dequantize(region_codes(stored, 0, stored.rows, 128));
        fuzz::require(values == run);
        continue;
      }
      const PackedLayer layer =
          open_packed(content.tensors, module, parse_description(description, module), module);
      const int64_t rows = layer.rows(), cols = layer.cols();
      // A rotation has no planes: its size is what the description says.
      if (rows > kMostWeights / cols) continue;
      std::vector<float> decoded(static_cast<size_t>(rows * cols));
      decode(layer, 1, decoded.data());
      const std::vector<float> rebuilt = dequantize(unpack(layer));
      fuzz::require(std::memcmp(decoded.data(), rebuilt.data(), decoded.size() * 4) == 0);
      if (!unsupported(layer).empty() || layer.product()) continue;
      if (!std::holds_alternative<PackedPlanes>(layer.factors.front())) continue;
      const auto& packed = std::get<PackedPlanes>(layer.factors.front());
      const PlaneTiles tiles(packed, kernels::cpu_tile_order(), 1);
      kernels::GemvInput input;
      input.prepare(tiles.view(), std::vector<float>(static_cast<size_t>(cols), 1.0f).data());
      std::vector<float> y(static_cast<size_t>(rows));
      kernels::gemv(tiles.view(), &input, 1, 0, tiles.view().tiles(), y.data(), rows);
    }
  });
}
