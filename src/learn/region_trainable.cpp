// See region_trainable.h.
#include "region_trainable.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "region_start.h"
#include "region_tiles.h"

namespace billm {
namespace {

// Elements of a tile on a CPU: a few tensors of them fit into a core's cache.
constexpr int64_t kTileElements = 1 << 16;
constexpr double kSmallestHalf = 0x1p-24, kLargestHalf = 65504;

template <typename T>
at::Tensor tensor_of(const std::vector<T>& values, at::IntArrayRef shape, c10::Device device) {
  const at::ScalarType type = c10::CppTypeToScalarType<T>::value;
  return at::from_blob(const_cast<T*>(values.data()), shape, type)
      .to(device, type, /*non_blocking=*/false, /*copy=*/true);
}

const at::Tensor* find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return &value;
  }
  return nullptr;
}

}  // namespace

RegionTrainable::RegionTrainable(const RegionCodes& codes, const at::Tensor& original,
                                 const LearnRates& rates, double margin, c10::Device device,
                                 int threads)
    : start_(codes), rates_(rates), device_(device), codes_learned_(rates.code > 0) {
  const RegionFormat& format = start_.shape;
  const Refusal refusal = cannot_learn(format);
  if (refusal.refused()) throw Error(ErrorCode::kUsage, refusal.what, refusal.hint);
  const at::NoGradGuard no_grad;
  const int64_t rows = format.rows, cols = format.cols, groups = format.groups();
  const std::vector<int64_t> by_region = {format.regions(), rows, groups};
  if (codes_learned_) {
    const RegionStart start =
        start_latents(start_, original.const_data_ptr<float>(), margin, threads);
    latent_ = tensor_of(start.latent, {rows, cols}, device);
    threshold_ = tensor_of(start.threshold, by_region, device);
    unit_ = tensor_of(start.unit, {rows, groups}, device);
  } else {
    latent_ = tensor_of(signed_classes(start_, threads), {rows, cols}, device);
  }
  scale_ = start_scale_ = tensor_of(scales_by_region(start_), by_region, device);
  if (rates.scale > 0) log_scale_ = tensor_of(scale_dither(start_), by_region, device);
  if (format.column_scales) {
    column_ = start_column_ = tensor_of(start_.column_scale, {cols}, device);
    if (rates.scale > 0) log_column_ = at::zeros({cols}, column_.options());
  }
  if (format.scale_format == ScaleFormat::kLog8) {
    std::vector<float> values(256), borders(255);
    for (int i = 0; i < 256; ++i) values[i] = log8_decode(static_cast<uint8_t>(i), start_.base);
    for (int i = 0; i < 255; ++i) borders[i] = 0.5f * (values[i] + values[i + 1]);
    grid_ = tensor_of(values, {256}, device);
    grid_borders_ = tensor_of(borders, {255}, device);
  }
  if (format.nm.active()) {
    std::vector<int8_t> kept(start_.region.size());
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = start_.region[i] != kPrunedRegion;
    kept_ = tensor_of(kept, {rows, cols}, device);
  }
  std::vector<int64_t> salient, salient_group;
  for (int64_t col = 0; col < cols && format.salient_classes > 0; ++col) {
    if (start_.salient[col] == 0) continue;
    salient.push_back(col);
    salient_group.push_back(format.group_of(col));
  }
  if (!salient.empty()) {
    const auto count = static_cast<int64_t>(salient.size());
    salient_ = tensor_of(salient, {count}, device);
    salient_group_ = tensor_of(salient_group, {count}, device);
    std::vector<float> sum(static_cast<size_t>(count * groups), 0.0f);
    for (int64_t i = 0; i < count; ++i) sum[i * groups + salient_group[i]] = 1;
    salient_sum_ = tensor_of(sum, {count, groups}, device);
  }
  if (format.integer_bits > 0) {
    std::vector<int64_t> places;
    std::vector<float> values;
    for (int64_t row = 0; row < rows; ++row) {
      integer_rows_.push_back(static_cast<int64_t>(places.size()));
      const int64_t step = start_.step_index(0, row);
      for (int64_t at = row * cols; at < (row + 1) * cols; ++at) {
        if (start_.region[at] != format.integer_region()) continue;
        places.push_back(at);
        values.push_back(static_cast<float>(start_.code[at] - start_.zero[step]) *
                         start_.step[step]);
      }
    }
    integer_rows_.push_back(static_cast<int64_t>(places.size()));
    const auto count = static_cast<int64_t>(places.size());
    integer_at_ = tensor_of(places, {count}, device);
    integer_value_ = tensor_of(values, {count}, device);
  }
}

std::vector<Parameter> RegionTrainable::parameters() {
  std::vector<Parameter> result;
  if (codes_learned_) result.push_back({"latent", latent_, rates_.code});
  if (log_scale_.defined()) result.push_back({"scale", log_scale_, rates_.scale});
  if (log_column_.defined()) result.push_back({"column_scale", log_column_, rates_.scale});
  return result;
}

int64_t RegionTrainable::tile_rows() const {
  return device_.is_cpu() ? std::max<int64_t>(1, kTileElements / start_.shape.cols)
                          : start_.shape.rows;
}

template <typename Body>
void RegionTrainable::for_tiles(int threads, const Body& body) const {
  const int64_t size = tile_rows();
  parallel_parts(start_.shape.rows, size, threads, [&](int64_t first, int64_t end) {
    const at::NoGradGuard no_grad;
    body(tile(first, end - first), first / size);
  });
}

RegionTrainable::Tile RegionTrainable::tile(int64_t first, int64_t rows) const {
  const RegionFormat& format = start_.shape;
  Tile tile = {first, rows, latent_.narrow(0, first, rows), {}, {}, {}};
  if (!codes_learned_) tile.latent = tile.latent.to(at::kFloat);
  const auto table = [&](const at::Tensor& of_region, int region) {  // [n, groups]
    return of_region.select(0, region).narrow(0, first, rows);
  };
  const auto fill = [&](Set* set, int classes, const auto& broadcast) {
    for (int k = 0; k < classes; ++k) {
      set->levels.push_back(broadcast(table(scale_, set->first + k)));
      if (k + 1 == classes) break;
      // Without latents the thresholds lie between the class numbers: 1.5 and 2.5.
      set->thresholds.push_back(codes_learned_ ? broadcast(table(threshold_, set->first + k))
                                               : at::full({}, k + 1.5, tile.latent.options()));
    }
  };
  const int64_t full = format.cols / format.block_size;
  for (const auto& [group, count] :
       {std::pair{int64_t{0}, full}, std::pair{full, format.groups() - full}}) {
    if (count == 0) continue;
    Set set;
    set.latent = Tile::part(tile.latent, format, group);
    fill(&set, format.classes,
         [&](const at::Tensor& x) { return x.narrow(1, group, count).unsqueeze(2); });
    tile.ordinary.push_back(std::move(set));
    tile.group.push_back(group);
  }
  if (salient_.defined()) {
    tile.salient.first = format.classes;
    tile.salient.latent = tile.latent.index_select(1, salient_);
    fill(&tile.salient, format.salient_classes,
         [&](const at::Tensor& x) { return x.index_select(1, salient_group_); });
  }
  return tile;
}

at::Tensor RegionTrainable::weight(int threads) const {
  const RegionFormat& format = start_.shape;
  at::Tensor weight = at::empty({format.rows, format.cols}, scale_.options());
  for_tiles(threads, [&](const Tile& tile, int64_t) {
    at::Tensor out = weight.narrow(0, tile.first, tile.rows);
    for (size_t i = 0; i < tile.ordinary.size(); ++i) {
      at::Tensor part = Tile::part(out, format, tile.group[i]);
      tile.ordinary[i].decode(part);
    }
    if (salient_.defined()) {
      at::Tensor part = at::empty_like(tile.salient.latent);
      tile.salient.decode(part);
      out.index_copy_(1, salient_, part);
    }
    if (kept_.defined()) out.mul_(kept_.narrow(0, tile.first, tile.rows).to(at::kFloat));
    if (integer_at_.defined()) {
      const int64_t first = integer_rows_[tile.first];
      const int64_t count = integer_rows_[tile.first + tile.rows] - first;
      weight.view(-1).index_copy_(0, integer_at_.narrow(0, first, count),
                                  integer_value_.narrow(0, first, count));
    }
    if (column_.defined()) out.mul_(column_);
  });
  return weight;
}

std::vector<at::Tensor> RegionTrainable::gradients(const at::Tensor& weight,
                                                   const at::Tensor& gradient, int threads) const {
  std::vector<at::Tensor> result;
  if (codes_learned_) result.push_back(gradient);
  if (!log_scale_.defined()) return result;
  const RegionFormat& format = start_.shape;
  at::Tensor of_scale = at::zeros(scale_.sizes(), scale_.options());
  const int64_t tiles = (format.rows + tile_rows() - 1) / tile_rows();
  std::vector<at::Tensor> of_column(static_cast<size_t>(tiles));
  for_tiles(threads, [&](const Tile& tile, int64_t index) {
    // d loss / d log of a scale, weight by weight.
    at::Tensor product =
        at::mul(gradient.narrow(0, tile.first, tile.rows), weight.narrow(0, tile.first, tile.rows));
    if (log_column_.defined()) {
      of_column[static_cast<size_t>(index)] = product.sum(at::IntArrayRef{0});
    }
    if (integer_at_.defined()) {
      const int64_t first = integer_rows_[tile.first];
      const int64_t count = integer_rows_[tile.first + tile.rows] - first;
      product.view(-1).index_fill_(
          0, integer_at_.narrow(0, first, count).sub(tile.first * format.cols), 0);
    }
    // The weights of the last class, which are taken out, then those of the class before ...
    const auto sums = [&](const Set& set, at::Tensor product, const auto& store) {
      const std::vector<at::Tensor> above = set.masks();
      for (size_t k = above.size(); k-- > 0;) {
        const at::Tensor of_class = at::mul(product, above[k]);
        store(set.first + static_cast<int>(k) + 1, of_class);
        product = product.sub(of_class);
      }
      store(set.first, product);
    };
    const auto target = [&](int region) {
      return of_scale.select(0, region).narrow(0, tile.first, tile.rows);
    };
    if (salient_.defined()) {
      sums(tile.salient, product.index_select(1, salient_), [&](int region, const at::Tensor& x) {
        target(region).copy_(at::matmul(x, salient_sum_));
      });
      product.index_fill_(1, salient_, 0);
    }
    for (size_t i = 0; i < tile.ordinary.size(); ++i) {
      const at::Tensor part = Tile::part(product, format, tile.group[i]);
      sums(tile.ordinary[i], part, [&](int region, const at::Tensor& x) {
        target(region).narrow(1, tile.group[i], x.size(1)).copy_(x.sum(at::IntArrayRef{2}));
      });
    }
  });
  result.push_back(of_scale);
  if (log_column_.defined()) {
    result.push_back(at::stack(of_column).to(at::kDouble).sum(at::IntArrayRef{0}).to(at::kFloat));
  }
  return result;
}

void RegionTrainable::refresh_scales() {
  const RegionFormat& format = start_.shape;
  at::Tensor scale = log_scale_.exp().mul_(start_scale_);
  switch (format.scale_format) {
    case ScaleFormat::kLog8:
      // As log8_encode(): the nearest value, the lower one of two.
      scale = grid_.index_select(0, at::bucketize(scale.view(-1), grid_borders_)).view_as(scale);
      break;
    case ScaleFormat::kF16:
      scale = scale.clamp_max_(kLargestHalf).to(at::kHalf).to(at::kFloat);
      break;
    case ScaleFormat::kF32:
      break;
  }
  for (const auto& [first, classes] :
       {std::pair{0, format.classes}, std::pair{format.classes, format.salient_classes}}) {
    for (int k = 1; k < classes; ++k) {  // they never cross
      at::Tensor upper = scale.select(0, first + k);
      at::maximum_out(upper, upper, scale.select(0, first + k - 1));
    }
  }
  scale_ = scale;
  if (!log_column_.defined()) return;
  column_ = log_column_.exp()
                .mul_(start_column_)
                .clamp_(kSmallestHalf, kLargestHalf)
                .to(at::kHalf)
                .to(at::kFloat);
}

void RegionTrainable::refresh(int threads) {
  const at::NoGradGuard no_grad;
  if (log_scale_.defined()) refresh_scales();
  if (!codes_learned_) return;
  // Latents stay within reach of their levels: a unit beyond the largest one.
  const at::Tensor bound = scale_.amax(at::IntArrayRef{0}).div_(unit_).add_(1);
  for_tiles(threads, [&](const Tile& tile, int64_t) {
    const at::Tensor high = bound.narrow(0, tile.first, tile.rows);
    const at::Tensor low = high.neg();
    for (size_t i = 0; i < tile.ordinary.size(); ++i) {
      at::Tensor part = tile.ordinary[i].latent;
      const auto of = [&](const at::Tensor& x) {
        return x.narrow(1, tile.group[i], part.size(1)).unsqueeze(2);
      };
      part.clamp_max_(of(high)).clamp_min_(of(low));
    }
  });
}

at::Tensor RegionTrainable::levels() const {
  const RegionFormat& format = start_.shape;
  at::Tensor result = at::empty({format.rows, format.cols}, scale_.options().dtype(at::kChar));
  for_tiles(1, [&](const Tile& tile, int64_t) {
    at::Tensor level = at::empty_like(tile.latent);
    const auto fill = [&](const Set& set, at::Tensor out) {
      out.fill_(1);
      for (const at::Tensor& above : set.masks()) out.add_(above);
      at::copysign_out(out, out, set.latent);
    };
    for (size_t i = 0; i < tile.ordinary.size(); ++i) {
      fill(tile.ordinary[i], Tile::part(level, format, tile.group[i]));
    }
    if (salient_.defined()) {
      at::Tensor part = at::empty_like(tile.salient.latent);
      fill(tile.salient, part);
      level.index_copy_(1, salient_, part);
    }
    result.narrow(0, tile.first, tile.rows).copy_(level);
  });
  return result;
}

NamedTensors RegionTrainable::state() const {
  const at::NoGradGuard no_grad;
  NamedTensors result;
  if (codes_learned_) result.emplace_back("levels", levels());
  if (log_scale_.defined()) result.emplace_back("scale", scale_);
  if (log_column_.defined()) result.emplace_back("column_scale", column_);
  return result;
}

void RegionTrainable::restore(const NamedTensors& state) {
  if (const at::Tensor* levels = find(state, "levels")) {
    latent_ = levels->to(device_);
    codes_learned_ = false;
  }
  if (const at::Tensor* scale = find(state, "scale")) scale_ = scale->to(device_);
  if (const at::Tensor* column = find(state, "column_scale")) column_ = column->to(device_);
}

RegionCodes RegionTrainable::codes(int threads) const {
  const at::Tensor levels = (codes_learned_ ? this->levels() : latent_).cpu().contiguous();
  const at::Tensor scale = scale_.cpu().contiguous();
  std::vector<float> column;
  if (column_.defined()) {
    const at::Tensor host = column_.cpu().contiguous();
    column.assign(host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel());
  }
  return codes_of_levels(start_, levels.const_data_ptr<int8_t>(), scale.const_data_ptr<float>(),
                         column, threads);
}

}  // namespace billm
