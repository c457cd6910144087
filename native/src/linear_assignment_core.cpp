// Assignment among lists of candidates: augmenting row reduction and shortest augmenting paths (Jonker & Volgenant 1987),
// and the auction (Bertsekas 1988).
#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "linear_assignment.hpp"

namespace surprisal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct TwoBest {
  double best = -kInfinity;
  double second = -kInfinity;
  int32_t edge = -1;
  int32_t other = -1;
};

// The two best candidates of a row, the first of equal ones.
TwoBest two_best(const Candidates& core, int32_t row, const double* column_duals) {
  TwoBest found;
  for (int32_t e = core.starts[row]; e < core.starts[row + 1]; e++) {
    const double value = core.gains[e] - column_duals[core.columns[e]];
    if (!(value > found.second)) continue;
    if (value > found.best) {
      found.second = found.best;
      found.other = found.edge;
      found.best = value;
      found.edge = e;
    } else {
      found.second = value;
      found.other = e;
    }
  }
  return found;
}

// The rows that are still free after at most `steps` steps, ascending.
std::vector<int32_t> reduce_rows(const Candidates& core, const int32_t* free, int64_t count, PartialAssignment& state,
                                 int64_t steps) {
  std::vector<int32_t> now(std::make_reverse_iterator(free + count), std::make_reverse_iterator(free));
  int64_t taken = 0;
  for (int pass = 0; pass < 2; pass++) {
    std::vector<int32_t> later;
    while (!now.empty() && taken < steps) {
      const int32_t row = now.back();
      now.pop_back();
      taken++;
      const TwoBest two = two_best(core, row, state.column_duals);
      const bool tie = !(two.best > two.second);
      int32_t edge = two.edge;
      if (tie && state.row_of_column[core.columns[edge]] >= 0) edge = two.other;
      const int32_t column = core.columns[edge];
      const int32_t displaced = state.row_of_column[column];
      if (!tie) state.column_duals[column] += two.best - two.second;
      state.row_duals[row] = core.gains[edge] - state.column_duals[column];
      state.column_of_row[row] = column;
      state.row_of_column[column] = row;
      if (displaced < 0) continue;
      state.column_of_row[displaced] = -1;
      (tie ? later : now).push_back(displaced);
    }
    now.insert(now.end(), later.begin(), later.end());
    std::sort(now.begin(), now.end(), std::greater<int32_t>());
  }
  std::reverse(now.begin(), now.end());
  return now;
}

// Columns, the nearest first, equally near ones by ascending column.
class ColumnHeap {
 public:
  explicit ColumnHeap(const std::vector<double>& distance)
      : distance_(distance), columns_(distance.size()), places_(distance.size(), -1) {}

  bool empty() const { return size_ == 0; }

  void clear() {
    for (int32_t i = 0; i < size_; i++) places_[columns_[i]] = -1;
    size_ = 0;
  }

  // The column is new or has come nearer.
  void update(int32_t column) {
    int32_t place = places_[column] >= 0 ? places_[column] : size_++;
    while (place > 0) {
      const int32_t parent = (place - 1) >> 1;
      if (!before(column, columns_[parent])) break;
      put(columns_[parent], place);
      place = parent;
    }
    put(column, place);
  }

  int32_t pop() {
    const int32_t first = columns_[0];
    places_[first] = -1;
    if (--size_ > 0) sink(columns_[size_]);
    return first;
  }

 private:
  bool before(int32_t a, int32_t b) const {
    return distance_[a] < distance_[b] || (distance_[a] == distance_[b] && a < b);
  }

  void put(int32_t column, int32_t place) {
    columns_[place] = column;
    places_[column] = place;
  }

  void sink(int32_t column) {
    int32_t place = 0;
    for (int32_t child = 1; child < size_; child = 2 * place + 1) {
      if (child + 1 < size_ && before(columns_[child + 1], columns_[child])) child++;
      if (!before(columns_[child], column)) break;
      put(columns_[child], place);
      place = child;
    }
    put(column, place);
  }

  const std::vector<double>& distance_;
  std::vector<int32_t> columns_;
  std::vector<int32_t> places_;
  int32_t size_ = 0;
};

// The dual of the row that has the column, so that they add up to their gain.
void tighten(const Candidates& core, PartialAssignment& state, int32_t column) {
  const int32_t owner = state.row_of_column[column];
  const int32_t* begin = core.columns + core.starts[owner];
  const int32_t* end = core.columns + core.starts[owner + 1];
  const int64_t edge = std::lower_bound(begin, end, column) - core.columns;
  state.row_duals[owner] = core.gains[edge] - state.column_duals[column];
}

}  // namespace

bool augment_candidates(const Candidates& core, const int32_t* free, int64_t count, PartialAssignment state,
                        int64_t steps) {
  std::vector<double> distance(static_cast<size_t>(state.n), kInfinity);
  std::vector<int32_t> from(static_cast<size_t>(state.n)), touched, scanned;
  ColumnHeap heap(distance);
  for (const int32_t source : reduce_rows(core, free, count, state, steps)) {
    int32_t row = source;
    double base = two_best(core, row, state.column_duals).best;
    double least = 0;
    int32_t sink = -1;
    touched.clear();
    scanned.clear();
    for (;;) {
      for (int32_t e = core.starts[row]; e < core.starts[row + 1]; e++) {
        const int32_t j = core.columns[e];
        // Not nearer than what was scanned: rounding must not open a scanned column again.
        const double through = std::max(least, base - (core.gains[e] - state.column_duals[j]));
        if (!(through < distance[j])) continue;
        if (distance[j] == kInfinity) touched.push_back(j);
        distance[j] = through;
        from[j] = row;
        if (through <= least && state.row_of_column[j] < 0) {
          sink = j;
          break;
        }
        heap.update(j);
      }
      if (sink >= 0) break;
      if (heap.empty()) return false;
      const int32_t nearest = heap.pop();
      least = distance[nearest];
      if (state.row_of_column[nearest] < 0) {
        sink = nearest;
        break;
      }
      scanned.push_back(nearest);
      row = state.row_of_column[nearest];
      base = least + state.row_duals[row];
    }
    for (const int32_t column : scanned) {
      state.column_duals[column] += std::max(0.0, distance[sink] - distance[column]);
    }
    flip_path(state, from.data(), source, sink);
    for (const int32_t column : scanned) tighten(core, state, column);
    tighten(core, state, sink);
    for (const int32_t column : touched) distance[column] = kInfinity;
    heap.clear();
  }
  return true;
}

bool auction_candidates(const Candidates& core, PartialAssignment state, double epsilon, int64_t bids) {
  const int64_t n = state.n;
  std::fill_n(state.column_of_row, n, -1);
  std::fill_n(state.row_of_column, n, -1);
  // Free rows wait in a ring: at most n at a time.
  std::vector<int32_t> queue(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) queue[i] = static_cast<int32_t>(i);
  int64_t head = 0;
  for (int64_t waiting = n; waiting > 0; waiting--, bids--) {
    if (bids <= 0) return false;
    const int32_t row = queue[head];
    const TwoBest two = two_best(core, row, state.column_duals);
    const int32_t column = core.columns[two.edge];
    const int32_t displaced = state.row_of_column[column];
    state.column_duals[column] += two.best - two.second + epsilon;
    state.row_duals[row] = core.gains[two.edge] - state.column_duals[column];
    state.column_of_row[row] = column;
    state.row_of_column[column] = row;
    if (displaced >= 0) {
      state.column_of_row[displaced] = -1;
      queue[(head + waiting) % n] = displaced;
      waiting++;
    }
    head = (head + 1) % n;
  }
  return true;
}

}  // namespace surprisal
