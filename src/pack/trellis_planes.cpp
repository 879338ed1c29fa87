// Packing, checking and decoding of factors coded on a trellis: see packed_trellis.h and
// docs/format.md, "Layout `trellis`". Bits are the most significant first.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/half.h"
#include "billm/base/parallel.h"
#include "billm/checkpoint/dtype.h"
#include "billm/pack/packed_trellis.h"

namespace billm {
namespace {

constexpr const char* kScales = "scales";
constexpr int kStateBits = 8;
constexpr int64_t kGroupsAtOnce = 8;

std::string codes_name(int plane) { return "codes" + std::to_string(plane); }

struct Spec {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

// In file order.
std::vector<Spec> specs_of(const TrellisFormat& format) {
  std::vector<Spec> specs;
  for (int p = 0; p < format.planes(); ++p) {
    const int64_t groups = format.groups(), bytes = format.group_bytes(p);
    specs.push_back({codes_name(p), "U8", {groups, bytes}, groups * bytes});
  }
  specs.push_back({kScales, "F16", {format.rows}, 2 * format.rows});
  return specs;
}

const Plane* find(const PackedTrellis& packed, const std::string& name) {
  for (const Plane& plane : packed.planes) {
    if (plane.name == name) return &plane;
  }
  return nullptr;
}

uint16_t load_half(const std::byte* bytes, int64_t index) {
  uint16_t half = 0;
  std::memcpy(&half, bytes + 2 * index, sizeof(half));
  return half;
}

// Appends bits to zeroed bytes.
class BitWriter {
 public:
  explicit BitWriter(std::byte* bytes) : bytes_(bytes) {}
  void put(unsigned value, int bits) {
    for (int bit = bits - 1; bit >= 0; --bit, ++at_) {
      if ((value >> bit & 1) == 0) continue;
      bytes_[at_ / 8] |= static_cast<std::byte>(0x80u >> (at_ % 8));
    }
  }

 private:
  std::byte* bytes_;
  int64_t at_ = 0;
};

void write_states(const TrellisFormat& format, int plane, const uint8_t* states, std::byte* bytes) {
  const int rate = format.rates[static_cast<size_t>(plane)];
  const int64_t segment = format.segment_rows();
  BitWriter writer(bytes);
  for (int64_t row = 0; row < format.rows; ++row) {
    writer.put(states[row], row % segment == 0 ? kStateBits : rate);
  }
}

void check_group_padding(const TrellisFormat& format, int plane, const std::byte* codes,
                         const std::string& where) {
  const int64_t bits = format.group_bits(plane), bytes = format.group_bytes(plane);
  if (bits % 8 == 0) return;
  for (int64_t group = 0; group < format.groups(); ++group) {
    const auto last = static_cast<unsigned>(codes[(group + 1) * bytes - 1]);
    if ((last & (0xffu >> (bits % 8))) != 0) {
      throw bad_input(where + "." + codes_name(plane) + ": expected zero padding bits");
    }
  }
}

// The states of one segment, `rows` of them, from the bytes of its group.
void read_states(const TrellisFormat& format, int plane, const std::byte* bytes, int64_t segment,
                 int64_t rows, uint8_t* states) {
  const int rate = format.rates[static_cast<size_t>(plane)];
  int64_t first = segment * (kStateBits - rate + rate * format.segment_rows());
  for (int64_t row = 0; row < rows; ++row, first += rate) {
    unsigned window = static_cast<unsigned>(bytes[first / 8]) << 8;
    if (first % 8 != 0) window |= static_cast<unsigned>(bytes[first / 8 + 1]);
    states[row] = static_cast<uint8_t>(window >> (8 - first % 8));
  }
}

int64_t rows_of_segment(const TrellisFormat& format, int64_t segment) {
  return std::min(format.segment_rows(), format.rows - segment * format.segment_rows());
}

// The columns of some groups of a segment, at their places in `out` [rows of the segment, cols].
void decode_groups(const PackedTrellis& packed, const float* scales, int64_t segment,
                   int64_t first_group, int64_t end_group, float* out) {
  const TrellisFormat& format = packed.format;
  const std::vector<int32_t> gains = trellis_gains(format.rates);
  const int64_t rows = rows_of_segment(format, segment);
  std::vector<uint8_t> states[kMaxTrellisPlanes];
  for (auto& own : states) own.resize(static_cast<size_t>(rows));
  for (int64_t group = first_group; group < end_group; ++group) {
    for (int p = 0; p < format.planes(); ++p) {
      read_states(format, p, packed.codes(p) + group * format.group_bytes(p), segment, rows,
                  states[p].data());
    }
    const int64_t col = group * kTrellisColumns;
    const int64_t width = std::min<int64_t>(kTrellisColumns, format.cols - col);
    for (int64_t row = 0; row < rows; ++row) {
      uint8_t own[kMaxTrellisPlanes];
      for (int p = 0; p < format.planes(); ++p) own[p] = states[p][static_cast<size_t>(row)];
      float values[kTrellisColumns];
      trellis_values(gains, own, values);
      for (int64_t j = 0; j < width; ++j) {
        out[row * format.cols + col + j] = scales[row] * values[j];
      }
    }
  }
}

}  // namespace

const std::byte* PackedTrellis::codes(int plane) const {
  return find(*this, codes_name(plane))->bytes.data();
}
std::vector<float> PackedTrellis::row_scales() const {
  const std::byte* halves = find(*this, kScales)->bytes.data();
  std::vector<float> scales;
  for (int64_t row = 0; row < format.rows; ++row) {
    scales.push_back(half_to_float(load_half(halves, row)));
  }
  return scales;
}

PackedTrellis pack(const TrellisCodes& codes, int threads) {
  check_codes(codes, threads);
  PackedTrellis packed;
  packed.format = codes.format;
  const TrellisFormat& format = packed.format;
  for (const Spec& spec : specs_of(format)) {
    packed.owned.emplace_back(static_cast<size_t>(spec.bytes));
    packed.planes.push_back({spec.name, spec.dtype, spec.shape, packed.owned.back()});
  }
  for (int p = 0; p < format.planes(); ++p) {
    std::byte* to = packed.owned[static_cast<size_t>(p)].data();
    const uint8_t* states = codes.states[static_cast<size_t>(p)].data();
    parallel_parts(format.groups(), kGroupsAtOnce, threads, [&](int64_t first, int64_t end) {
      for (int64_t group = first; group < end; ++group) {
        write_states(format, p, states + group * format.rows, to + group * format.group_bytes(p));
      }
    });
  }
  std::byte* scales = packed.owned.back().data();
  for (int64_t row = 0; row < format.rows; ++row) {
    const uint16_t half = float_to_half(codes.scale[static_cast<size_t>(row)]);
    std::memcpy(scales + 2 * row, &half, sizeof(half));
  }
  return packed;
}

void check_packed(const PackedTrellis& packed, const std::string& where) {
  const TrellisFormat& format = packed.format;
  check_trellis_format(format, where);
  const std::vector<Spec> specs = specs_of(format);
  for (const Spec& spec : specs) {
    const Plane* plane = find(packed, spec.name);
    if (plane == nullptr) throw bad_input(where + ": missing plane " + spec.name);
    if (plane->dtype != spec.dtype || plane->shape != spec.shape ||
        static_cast<int64_t>(plane->bytes.size()) != spec.bytes) {
      throw bad_input(where + "." + spec.name + ": expected " + spec.dtype + " " +
                      shape_text(spec.shape) + ", got " + plane->dtype + " " +
                      shape_text(plane->shape) + " of " + std::to_string(plane->bytes.size()) +
                      " bytes");
    }
  }
  if (packed.planes.size() != specs.size()) {
    throw bad_input(where + ": expected " + std::to_string(specs.size()) + " planes, got " +
                    std::to_string(packed.planes.size()));
  }
  for (int p = 0; p < format.planes(); ++p) check_group_padding(format, p, packed.codes(p), where);
  for (const float scale : packed.row_scales()) {
    if (!std::isfinite(scale) || std::signbit(scale)) {
      throw bad_input(where + "." + kScales + ": expected finite numbers >= 0");
    }
  }
}

void decode(const PackedTrellis& packed, int threads, float* out) {
  const TrellisFormat& format = packed.format;
  const std::vector<float> scales = packed.row_scales();
  const int64_t segments = format.segments(), segment_rows = format.segment_rows();
  parallel_parts(format.groups() * segments, kGroupsAtOnce, threads,
                 [&](int64_t part, int64_t end) {
                   while (part < end) {  // groups of one segment at a time
                     const int64_t segment = part / format.groups(), group = part % format.groups();
                     const int64_t count = std::min(end - part, format.groups() - group);
                     const int64_t row = segment * segment_rows;
                     decode_groups(packed, scales.data() + row, segment, group, group + count,
                                   out + row * format.cols);
                     part += count;
                   }
                 });
}

TrellisCodes unpack(const PackedTrellis& packed, int threads) {
  TrellisCodes codes = make_trellis_codes(packed.format);
  const TrellisFormat& format = packed.format;
  for (int p = 0; p < format.planes(); ++p) {
    uint8_t* states = codes.states[static_cast<size_t>(p)].data();
    parallel_for(format.groups(), threads, [&](int64_t group) {
      for (int64_t segment = 0; segment < format.segments(); ++segment) {
        read_states(format, p, packed.codes(p) + group * format.group_bytes(p), segment,
                    rows_of_segment(format, segment),
                    states + group * format.rows + segment * format.segment_rows());
      }
    });
  }
  codes.scale = packed.row_scales();
  return codes;
}

}  // namespace billm
