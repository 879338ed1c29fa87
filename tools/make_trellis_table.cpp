// Makes the table T[256][4] of the layout `trellis` (docs/format.md) and the constants that go with
// it, and measures what other shapes of the trellis would give. A program of its own: T is part of
// the format, so it was made once and its digest is pinned; this says how, and can be run again.
//
//   flags="-std=c++20 -O3 -march=native -ffp-contract=off -pthread"
//   g++ $flags tools/make_trellis_table.cpp -o /tmp/make_trellis_table
//   /tmp/make_trellis_table table     # the numbers of trellis_table.cpp, and what planes give
//   /tmp/make_trellis_table shapes    # distortion by width of the state and columns of a step
//
// Training data are Gaussian and seeded. The table starts random; Lloyd's rule: code sequences with
// the best path (Viterbi), replace every entry by the mean of the weights that it coded, and so on;
// noise that dies down moves it out of poor optima, and the best of several starts is kept.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numbers>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kSteps = 512;  // of a sequence: the format's longest segment

// A trellis: states of `state_bits`, `bits` new ones a step, which codes `columns` numbers.
struct Shape {
  int state_bits = 8, columns = 4, bits = 4;
  int states() const { return 1 << state_bits; }
};

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// `count` numbers of N(0, 1) that depend on the seed alone.
std::vector<float> gaussian(int64_t count, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i += 2) {
    const uint64_t a = mix(mix(seed) + 2 * static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u);
    const uint64_t b = mix(mix(seed) + (2 * static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u);
    const double radius = std::sqrt(-2 * std::log((static_cast<double>(a >> 11) + 0.5) * 0x1p-53));
    const double angle = 2 * std::numbers::pi * static_cast<double>(b >> 11) * 0x1p-53;
    x[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) x[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return x;
}

// The states of the best path of x [kSteps][columns] for the entries table [columns][states].
void best_path(const Shape& shape, const float* table, const float* x, uint16_t* path) {
  const int states = shape.states(), old = states >> shape.bits, fresh = 1 << shape.bits;
  std::vector<float> cost(states, 0.0f), best(old), before(states);
  std::vector<uint8_t> from(static_cast<size_t>(kSteps * old));
  for (int step = 0; step < kSteps; ++step) {
    // State s comes from the states h * old + s / fresh, h < fresh.
    uint8_t* choice = from.data() + static_cast<size_t>(step) * old;
    if (step > 0) {
      std::copy_n(cost.begin(), old, best.begin());
      std::fill_n(choice, old, uint8_t{0});
      for (int h = 1; h < fresh; ++h) {
        const float* next = cost.data() + h * old;
        for (int m = 0; m < old; ++m) {
          const bool less = next[m] < best[m];
          best[m] = less ? next[m] : best[m];
          choice[m] = less ? static_cast<uint8_t>(h) : choice[m];
        }
      }
      for (int m = 0; m < old; ++m) std::fill_n(before.begin() + m * fresh, fresh, best[m]);
    }
    const float* target = x + step * shape.columns;
    std::fill(cost.begin(), cost.end(), 0.0f);
    for (int j = 0; j < shape.columns; ++j) {
      const float* entries = table + j * states;
      const float t = target[j];
      for (int s = 0; s < states; ++s) {
        const float e = t - entries[s];
        cost[s] += e * e;
      }
    }
    if (step > 0) {
      for (int s = 0; s < states; ++s) cost[s] += before[s];
    }
  }
  int state = static_cast<int>(std::min_element(cost.begin(), cost.end()) - cost.begin());
  for (int step = kSteps - 1; step >= 0; --step) {
    path[step] = static_cast<uint16_t>(state);
    if (step == 0) break;
    const int m = state >> shape.bits;
    state = from[static_cast<size_t>(step) * old + m] * old + m;
  }
}

// The paths of all sequences of x, on all threads.
std::vector<uint16_t> code(const Shape& shape, const std::vector<float>& table,
                           const std::vector<float>& x) {
  const int64_t size = int64_t{kSteps} * shape.columns;
  const auto sequences = static_cast<int64_t>(x.size()) / size;
  std::vector<uint16_t> paths(static_cast<size_t>(sequences * kSteps));
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      for (int64_t i = t; i < sequences; i += threads) {
        best_path(shape, table.data(), x.data() + i * size, paths.data() + i * kSteps);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  return paths;
}

std::vector<float> scaled(const std::vector<float>& table, double by) {
  std::vector<float> result(table);
  for (float& t : result) t = static_cast<float>(t * by);
  return result;
}

// What a table gives: mean square error, and the factor to the table that would make it least.
struct Fit {
  double distortion = 0, gain = 0;
};
Fit measure(const Shape& shape, const std::vector<float>& table, const std::vector<float>& x,
            std::vector<float>* rest = nullptr) {
  const std::vector<uint16_t> paths = code(shape, table, x);
  double error = 0, with_x = 0, with_itself = 0;
  if (rest != nullptr) rest->resize(x.size());
  for (size_t step = 0; step < paths.size(); ++step) {
    for (int j = 0; j < shape.columns; ++j) {
      const size_t at = step * static_cast<size_t>(shape.columns) + static_cast<size_t>(j);
      const double q = table[static_cast<size_t>(j * shape.states() + paths[step])];
      error += (x[at] - q) * (x[at] - q);
      with_x += x[at] * q;
      with_itself += q * q;
      if (rest != nullptr) (*rest)[at] = static_cast<float>(x[at] - q);
    }
  }
  return {error / static_cast<double>(x.size()), with_x / with_itself};
}

// What a table is trained for: a rate, how much it counts, and the factor to the table that is best
// for it, which is found on the way.
struct Goal {
  int bits = 4;
  double weight = 1, gain = 1;
};

// One step of Lloyd's rule on data of this seed.
void lloyd(Shape shape, std::vector<Goal>* goals, int sequences, uint64_t seed,
           std::vector<float>* table) {
  const int states = shape.states();
  const auto x = gaussian(int64_t{sequences} * kSteps * shape.columns, seed);
  std::vector<double> sums(table->size(), 0.0), counts(static_cast<size_t>(states), 0.0);
  for (Goal& goal : *goals) {
    shape.bits = goal.bits;
    const std::vector<float> own = scaled(*table, goal.gain);
    const std::vector<uint16_t> paths = code(shape, own, x);
    double with_x = 0, with_itself = 0;
    for (size_t step = 0; step < paths.size(); ++step) {
      counts[paths[step]] += goal.weight * goal.gain * goal.gain;
      for (int j = 0; j < shape.columns; ++j) {
        const auto at = static_cast<size_t>(j * states + paths[step]);
        const float target = x[step * static_cast<size_t>(shape.columns) + static_cast<size_t>(j)];
        sums[at] += goal.weight * goal.gain * target;
        with_x += double{target} * own[at];
        with_itself += double{own[at]} * own[at];
      }
    }
    if (goals->size() > 1 && goal.bits != goals->front().bits) goal.gain *= with_x / with_itself;
  }
  for (int j = 0; j < shape.columns; ++j) {
    for (int s = 0; s < states; ++s) {
      float& entry = (*table)[static_cast<size_t>(j * states + s)];
      entry = static_cast<float>((sums[static_cast<size_t>(j * states + s)] + 0.5 * entry) /
                                 (counts[static_cast<size_t>(s)] + 0.5));
    }
  }
}

struct Training {
  int starts = 1, rounds = 20, sequences = 64;
  double noise = 0;  // of an entry in the first round
  int last_rounds = 5, last_sequences = 256;
};

std::vector<float> train(const Shape& shape, const Training& how, uint64_t seed) {
  const std::vector<float> held_out = gaussian(int64_t{64} * kSteps * shape.columns, ~seed);
  std::vector<float> best;
  double least = INFINITY;
  for (int start = 0; start < how.starts; ++start) {
    const uint64_t own = seed * 1000 + static_cast<uint64_t>(start);
    std::vector<float> table = gaussian(int64_t{shape.columns} * shape.states(), own);
    std::vector<Goal> goals = {{shape.bits}};
    for (int round = 0; round < how.rounds; ++round) {
      const uint64_t data = own * 1000 + static_cast<uint64_t>(round) + 1;
      lloyd(shape, &goals, how.sequences, data, &table);
      const double noise = how.noise * (1 - (round + 1.0) / how.rounds);
      if (noise <= 0) continue;
      const auto moves = gaussian(static_cast<int64_t>(table.size()), ~data);
      for (size_t i = 0; i < table.size(); ++i) table[i] += static_cast<float>(noise * moves[i]);
    }
    for (int round = 0; round < how.last_rounds; ++round) {
      lloyd(shape, &goals, how.last_sequences, own * 1000 + 500 + static_cast<uint64_t>(round),
            &table);
    }
    const double distortion = measure(shape, table, held_out).distortion;
    std::fprintf(stderr, "start %d: %.4f\n", start, distortion);
    if (distortion < least) best = table;
    least = std::min(least, distortion);
  }
  return best;
}

// How much the rates 1 to 4 count in the last rounds, in which all are trained together.
constexpr double kShares[] = {0.1, 0.2, 0.3, 1};
constexpr int kJointRounds = 8;

std::vector<float> test_data(int columns) { return gaussian(int64_t{400} * kSteps * columns, 99); }

// What the table with a unit for each rate leaves of Gaussian numbers, plane by plane.
void print_planes(const std::vector<float>& table, const double* units, const double* roots,
                  const std::vector<int>& rates, std::vector<float> x) {
  double scale = 1, last = 0;
  std::printf("// planes");
  for (const int rate : rates) {
    std::vector<float> rest;
    last = scale * measure({8, 4, rate}, scaled(table, units[rate]), x, &rest).distortion;
    x = scaled(rest, 1 / roots[rate]);
    scale *= roots[rate] * roots[rate];
    std::printf(" %d", rate);
  }
  std::printf(": distortion %.4f\n", last);
}

void print_table() {
  const Shape shape;
  std::vector<float> trained =
      train(shape, {.starts = 12, .rounds = 60, .sequences = 64, .noise = 0.25}, 1);
  const std::vector<float> x = test_data(4);
  std::printf("// trained for rate 4: %.4f", measure(shape, trained, x).distortion);
  std::vector<Goal> goals = {
      {4, kShares[3]}, {3, kShares[2], 0.95}, {2, kShares[1], 0.85}, {1, kShares[0], 0.65}};
  for (int round = 0; round < kJointRounds; ++round) {
    lloyd(shape, &goals, 256, 5000 + static_cast<uint64_t>(round), &trained);
  }
  std::printf(", after all rates together: %.4f\n", measure(shape, trained, x).distortion);
  float largest = 0;
  for (const float t : trained) largest = std::max(largest, std::fabs(t));
  const double unit = static_cast<double>(largest) / 127;
  std::vector<float> table(trained.size());
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<float>(std::lround(trained[i] / unit));
  }
  for (int s = 0; s < shape.states(); ++s) {
    std::printf(s % 4 == 0 ? "    {" : " {");
    for (int j = 0; j < 4; ++j) {
      std::printf(j < 3 ? "%d, " : "%d},", static_cast<int>(table[j * 256 + s]));
    }
    if (s % 4 == 3) std::printf("\n");
  }
  double units[5] = {}, roots[5] = {};
  for (int bits = 1; bits <= 4; ++bits) {
    const Shape own = {8, 4, bits};
    units[bits] = unit;
    Fit fit;
    for (int i = 0; i < 12; ++i) {
      fit = measure(own, scaled(table, units[bits]), x);
      units[bits] *= fit.gain;
    }
    units[bits] = std::round(units[bits] * 0x1p19) * 0x1p-19;
    fit = measure(own, scaled(table, units[bits]), x);
    roots[bits] = std::sqrt(fit.distortion);
    std::printf("// rate %d: unit %.0f / 2^19, distortion %.4f, its root %.0f / 2^16\n", bits,
                units[bits] * 0x1p19, fit.distortion, roots[bits] * 0x1p16);
  }
  const std::vector<std::vector<int>> splits = {
      {4, 1},    {3, 2},    {2, 3},    {4, 2},    {3, 3},    {4, 3},    {3, 4},      {4, 4},
      {4, 4, 1}, {3, 3, 3}, {4, 4, 2}, {4, 3, 3}, {4, 4, 3}, {4, 4, 4}, {3, 3, 3, 3}};
  for (const std::vector<int>& rates : splits) print_planes(table, units, roots, rates, x);
}

void print_shapes() {
  std::printf("state bits, columns, bits a step, bits a number, distortion, bound\n");
  for (const int state_bits : {8, 10, 12}) {
    for (const int columns : {2, 4}) {
      for (int bits = 1; bits <= 4; ++bits) {
        const Shape shape = {state_bits, columns, bits};
        const double rate = static_cast<double>(bits) / columns;
        const int data = state_bits == 8 ? 32 : state_bits == 10 ? 64 : 128;
        const std::vector<float> table = train(
            shape, {.rounds = 20, .sequences = data, .last_rounds = 2, .last_sequences = data}, 7);
        const auto x = gaussian(int64_t{100} * kSteps * columns, 99);
        std::printf("%d, %d, %d, %.2f, %.4f, %.4f\n", state_bits, columns, bits, rate,
                    measure(shape, table, x).distortion, std::exp2(-2 * rate));
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  if (what == "table") {
    print_table();
  } else if (what == "shapes") {
    print_shapes();
  } else {
    std::fprintf(stderr, "usage: make_trellis_table table | shapes\n");
    return 2;
  }
  return 0;
}
