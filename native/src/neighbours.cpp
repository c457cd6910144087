#include "neighbours.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "neighbour_distances.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int64_t kLeafPoints = 16;
constexpr int64_t kTilePoints = 512;
constexpr int64_t kTileQueries = 64;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The k smallest (distance, index) pairs, in order.
class Nearest {
 public:
  Nearest(int64_t k) : k_(k), found_(static_cast<size_t>(k)) {}

  void clear() { count_ = 0; }
  double bound() const { return count_ < k_ ? kInfinity : found_[k_ - 1].first; }
  const std::pair<double, int32_t>& operator[](int64_t i) const { return found_[i]; }

  void offer(double distance, int32_t index) {
    const std::pair<double, int32_t> candidate(distance, index);
    if (count_ == k_ && !(candidate < found_[k_ - 1])) return;
    int64_t at = count_ < k_ ? count_++ : k_ - 1;
    for (; at > 0 && candidate < found_[at - 1]; at--) found_[at] = found_[at - 1];
    found_[at] = candidate;
  }

 private:
  const int64_t k_;
  int64_t count_ = 0;
  std::vector<std::pair<double, int32_t>> found_;
};

// A complete binary tree: node 1 is the root, 2i and 2i+1 are the children of i, every split halves the points, so
// that the leaves (all at one depth) hold one or two sizes. Points stand in the order of the leaves, axis by axis.
struct Tree {
  int64_t n, d;
  int levels;                    // the leaves are the nodes [1 << levels, 2 << levels)
  std::vector<double> axes;      // [d, n]
  std::vector<int32_t> index;    // [n] place in the input
  std::vector<double> boxes;     // [nodes, 2, d]: lower and upper ends

  int64_t begin_of(int64_t node) const { return edge(node, 0); }
  int64_t end_of(int64_t node) const { return edge(node, 1); }
  const double* lower(int64_t node) const { return &boxes[static_cast<size_t>(node * 2 * d)]; }
  const double* upper(int64_t node) const { return lower(node) + d; }
  bool is_leaf(int64_t node) const { return node >> levels != 0; }

 private:
  int64_t edge(int64_t node, int64_t step) const {
    const int depth = 63 - __builtin_clzll(static_cast<unsigned long long>(node));
    const int64_t place = node - (int64_t{1} << depth) + step;
    return static_cast<int64_t>((static_cast<__int128>(n) * place) >> depth);
  }
};

// Lays out one node: its box, and its points split at the middle of its widest axis.
void split_node(Tree& tree, const double* points, int64_t node, std::vector<std::pair<double, int32_t>>& keys) {
  const int64_t begin = tree.begin_of(node), end = tree.end_of(node), d = tree.d;
  double* low = &tree.boxes[static_cast<size_t>(node * 2 * d)];
  double* high = low + d;
  std::fill(low, low + d, kInfinity);
  std::fill(high, high + d, -kInfinity);
  for (int64_t i = begin; i < end; i++) {
    const double* point = points + static_cast<int64_t>(tree.index[i]) * d;
    for (int64_t j = 0; j < d; j++) {
      low[j] = std::min(low[j], point[j]);
      high[j] = std::max(high[j], point[j]);
    }
  }
  if (tree.is_leaf(node)) return;
  int64_t axis = 0;
  for (int64_t j = 1; j < d; j++) {
    if (high[j] - low[j] > high[axis] - low[axis]) axis = j;
  }
  keys.resize(static_cast<size_t>(end - begin));
  for (int64_t i = begin; i < end; i++) {
    keys[i - begin] = {points[static_cast<int64_t>(tree.index[i]) * d + axis], tree.index[i]};
  }
  const int64_t middle = tree.begin_of(2 * node + 1);
  std::nth_element(keys.begin(), keys.begin() + (middle - begin), keys.end());
  for (int64_t i = begin; i < end; i++) tree.index[i] = keys[i - begin].second;
}

void split_below(Tree& tree, const double* points, int64_t node, std::vector<std::pair<double, int32_t>>& keys) {
  split_node(tree, points, node, keys);
  if (tree.is_leaf(node)) return;
  split_below(tree, points, 2 * node, keys);
  split_below(tree, points, 2 * node + 1, keys);
}

Tree build_tree(const double* points, int64_t n, int64_t d, int threads) {
  Tree tree;
  tree.n = n;
  tree.d = d;
  tree.levels = 0;
  while ((n >> tree.levels) > kLeafPoints) tree.levels++;
  tree.index.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) tree.index[i] = static_cast<int32_t>(i);
  tree.boxes.resize(static_cast<size_t>((int64_t{2} << tree.levels) * 2 * d));
  // The first levels one after another with their nodes side by side, then whole subtrees side by side.
  const int shared_levels = std::min(tree.levels, 5);
  for (int level = 0; level < shared_levels; level++) {
    parallel_for(int64_t{1} << level, 1, threads, [&](int64_t begin, int64_t end) {
      std::vector<std::pair<double, int32_t>> own;
      for (int64_t i = begin; i < end; i++) split_node(tree, points, (int64_t{1} << level) + i, own);
    });
  }
  parallel_for(int64_t{1} << shared_levels, 1, threads, [&](int64_t begin, int64_t end) {
    std::vector<std::pair<double, int32_t>> own;
    for (int64_t i = begin; i < end; i++) split_below(tree, points, (int64_t{1} << shared_levels) + i, own);
  });
  tree.axes.resize(static_cast<size_t>(n * d));
  parallel_for(n, 65536, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const double* point = points + static_cast<int64_t>(tree.index[i]) * d;
      for (int64_t j = 0; j < d; j++) tree.axes[j * n + i] = point[j];
    }
  });
  return tree;
}

// Distance from a point to the nearest place of a box; 0 inside.
template <int D>
inline double nearest_of_box(const double* low, const double* high, const double* query, int64_t d) {
  double distance = 0;
  const int64_t axes = D > 0 ? D : d;
  for (int64_t j = 0; j < axes; j++) {
    distance = std::max(distance, std::max(low[j] - query[j], query[j] - high[j]));
  }
  return distance;
}

template <int D>
inline double farthest_of_box(const double* low, const double* high, const double* query, int64_t d) {
  double distance = 0;
  const int64_t axes = D > 0 ? D : d;
  for (int64_t j = 0; j < axes; j++) {
    distance = std::max(distance, std::max(std::fabs(low[j] - query[j]), std::fabs(query[j] - high[j])));
  }
  return distance;
}

// Distances to the points of a leaf; the leaf holds at most kLeafPoints of them.
template <int D>
inline void leaf_distances(const Tree& tree, int64_t begin, int64_t end, const double* query, double* out) {
  const int64_t axes = D > 0 ? D : tree.d;
  const int64_t count = end - begin;
  for (int64_t i = 0; i < count; i++) out[i] = 0;
  for (int64_t j = 0; j < axes; j++) {
    const double* axis = &tree.axes[static_cast<size_t>(j * tree.n + begin)];
    const double at = query[j];
    for (int64_t i = 0; i < count; i++) {
      const double distance = std::fabs(axis[i] - at);
      out[i] = distance > out[i] ? distance : out[i];
    }
  }
}

template <int D>
void offer_leaf(const Tree& tree, int64_t node, const double* query, int64_t self, Nearest& nearest) {
  double distances[kLeafPoints + 1];
  const int64_t begin = tree.begin_of(node), end = tree.end_of(node);
  leaf_distances<D>(tree, begin, end, query, distances);
  for (int64_t i = begin; i < end; i++) {
    if (i != self && distances[i - begin] <= nearest.bound()) nearest.offer(distances[i - begin], tree.index[i]);
  }
}

// `exact_ties`: boxes at the very bound are searched too, for a point of a lower index at the same distance.
template <int D>
void search_nearest(const Tree& tree, const double* query, int64_t self, int64_t home, bool exact_ties,
                    Nearest& nearest) {
  struct Open {
    int64_t node;
    double distance;
  } stack[96];
  int open = 0;
  nearest.clear();
  offer_leaf<D>(tree, home, query, self, nearest);
  stack[open++] = {1, 0};
  while (open > 0) {
    const Open next = stack[--open];
    const double bound = nearest.bound();
    // At distance 0 all choices among the points give the same extents.
    if (exact_ties && bound > 0 ? next.distance > bound : next.distance >= bound) continue;
    if (tree.is_leaf(next.node)) {
      if (next.node != home) offer_leaf<D>(tree, next.node, query, self, nearest);
      continue;
    }
    const int64_t left = 2 * next.node, right = left + 1;
    const double to_left = nearest_of_box<D>(tree.lower(left), tree.upper(left), query, tree.d);
    const double to_right = nearest_of_box<D>(tree.lower(right), tree.upper(right), query, tree.d);
    if (to_left <= to_right) {
      stack[open++] = {right, to_right};
      stack[open++] = {left, to_left};
    } else {
      stack[open++] = {left, to_left};
      stack[open++] = {right, to_right};
    }
  }
}

template <int D>
int64_t search_count(const Tree& tree, const double* query, double radius, bool strict) {
  int64_t stack[96];
  int open = 0;
  int64_t count = 0;
  double distances[kLeafPoints + 1];
  stack[open++] = 1;
  while (open > 0) {
    const int64_t node = stack[--open];
    const double nearest = nearest_of_box<D>(tree.lower(node), tree.upper(node), query, tree.d);
    if (strict ? nearest >= radius : nearest > radius) continue;
    const double farthest = farthest_of_box<D>(tree.lower(node), tree.upper(node), query, tree.d);
    const int64_t begin = tree.begin_of(node), end = tree.end_of(node);
    if (strict ? farthest < radius : farthest <= radius) {
      count += end - begin;
    } else if (tree.is_leaf(node)) {
      leaf_distances<D>(tree, begin, end, query, distances);
      for (int64_t i = 0; i < end - begin; i++) count += strict ? distances[i] < radius : distances[i] <= radius;
    } else {
      stack[open++] = 2 * node;
      stack[open++] = 2 * node + 1;
    }
  }
  return count;
}

// Calls body(position, query, leaf) for every point in the order of the leaves.
template <class Body>
void each_query(const Tree& tree, int threads, Body&& body) {
  const int64_t first = int64_t{1} << tree.levels;
  parallel_for(first, 64, threads, [&](int64_t begin, int64_t end) {
    auto local = body();
    std::vector<double> query(static_cast<size_t>(tree.d));
    for (int64_t leaf = first + begin; leaf < first + end; leaf++) {
      for (int64_t i = tree.begin_of(leaf); i < tree.end_of(leaf); i++) {
        for (int64_t j = 0; j < tree.d; j++) query[j] = tree.axes[j * tree.n + i];
        local(i, query.data(), leaf);
      }
    }
  });
}

void store(const Nearest& nearest, int64_t k, int64_t point, double* distances, int32_t* neighbours) {
  distances[point] = nearest[k - 1].first;
  if (neighbours == nullptr) return;
  for (int64_t i = 0; i < k; i++) neighbours[point * k + i] = nearest[i].second;
}

template <int D>
void tree_nearest(const Tree& tree, int64_t k, double* distances, int32_t* neighbours, int threads) {
  each_query(tree, threads, [&] {
    return [&, nearest = Nearest(k)](int64_t i, const double* query, int64_t leaf) mutable {
      search_nearest<D>(tree, query, i, leaf, neighbours != nullptr, nearest);
      store(nearest, k, tree.index[i], distances, neighbours);
    };
  });
}

template <int D>
void tree_counts(const Tree& tree, const double* radii, bool strict, int32_t* counts, int threads) {
  each_query(tree, threads, [&] {
    return [&](int64_t i, const double* query, int64_t) {
      const double radius = radii[tree.index[i]];
      const int64_t self = strict ? radius > 0 : radius >= 0;
      counts[tree.index[i]] = static_cast<int32_t>(search_count<D>(tree, query, radius, strict) - self);
    };
  });
}

std::vector<double> by_axis(const double* points, int64_t n, int64_t d) {
  std::vector<double> axes(static_cast<size_t>(n * d));
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < d; j++) axes[j * n + i] = points[i * d + j];
  }
  return axes;
}

// Calls body(state of the query, query, first point, count, distances) over tiles of queries and points.
template <class State, class Visit, class Finish>
void each_tile(const double* points, int64_t n, int64_t d, int threads, State&& state, Visit&& visit, Finish&& finish) {
  const std::vector<double> axes = by_axis(points, n, d);
  const MaxDistances distances_of = max_distances();
  parallel_for(n, kTileQueries, threads, [&](int64_t begin, int64_t end) {
    std::vector<decltype(state())> states;
    for (int64_t i = begin; i < end; i++) states.push_back(state());
    double distances[kTilePoints];
    for (int64_t start = 0; start < n; start += kTilePoints) {
      const int64_t count = std::min(kTilePoints, n - start);
      for (int64_t i = begin; i < end; i++) {
        distances_of(&axes[static_cast<size_t>(start)], n, d, points + i * d, count, distances);
        visit(states[i - begin], i, start, count, distances);
      }
    }
    for (int64_t i = begin; i < end; i++) finish(states[i - begin], i);
  });
}

// Sorted values with binary searches: the predicate |value - x| < radius is monotone on each side of x, also rounded.
void count_sorted(const double* points, int64_t n, const double* radii, bool strict, int32_t* counts, int threads) {
  std::vector<std::pair<double, int32_t>> sorted(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) sorted[i] = {points[i], static_cast<int32_t>(i)};
  // Runs are sorted side by side and merged in pairs.
  const int64_t runs = n < 65536 ? 1 : 16;
  const auto edge = [&](int64_t run) { return sorted.begin() + n * run / runs; };
  parallel_for(runs, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t run = begin; run < end; run++) std::sort(edge(run), edge(run + 1));
  });
  for (int64_t width = 1; width < runs; width *= 2) {
    parallel_for(runs / (2 * width), 1, threads, [&](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; pair++) {
        std::inplace_merge(edge(2 * pair * width), edge((2 * pair + 1) * width), edge((2 * pair + 2) * width));
      }
    });
  }
  std::vector<double> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) values[i] = sorted[i].first;
  parallel_for(n, 4096, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const double x = values[i];
      const double radius = radii[sorted[i].second];
      const auto inside = [&](int64_t at) {
        const double distance = std::fabs(values[at] - x);
        return strict ? distance < radius : distance <= radius;
      };
      if (!inside(i)) {
        counts[sorted[i].second] = 0;
        continue;
      }
      // Steps that double, then halve: counts are small against n.
      int64_t left = i, step = 1;
      while (left - step >= 0 && inside(left - step)) {
        left -= step;
        step *= 2;
      }
      for (; step > 0; step /= 2) {
        if (left - step >= 0 && inside(left - step)) left -= step;
      }
      int64_t right = i;
      step = 1;
      while (right + step < n && inside(right + step)) {
        right += step;
        step *= 2;
      }
      for (; step > 0; step /= 2) {
        if (right + step < n && inside(right + step)) right += step;
      }
      counts[sorted[i].second] = static_cast<int32_t>(right - left);
    }
  });
}

}  // namespace

void nearest_neighbours(const double* points, int64_t n, int64_t d, int64_t k, double* distances, int32_t* neighbours,
                        int threads) {
  if (d <= kMostTreeDimensions) {
    const Tree tree = build_tree(points, n, d, threads);
    if (d == 1) return tree_nearest<1>(tree, k, distances, neighbours, threads);
    if (d == 2) return tree_nearest<2>(tree, k, distances, neighbours, threads);
    if (d == 3) return tree_nearest<3>(tree, k, distances, neighbours, threads);
    return tree_nearest<0>(tree, k, distances, neighbours, threads);
  }
  each_tile(
      points, n, d, threads, [&] { return Nearest(k); },
      [&](Nearest& nearest, int64_t query, int64_t start, int64_t count, const double* to) {
        for (int64_t i = 0; i < count; i++) {
          if (to[i] <= nearest.bound() && start + i != query) nearest.offer(to[i], static_cast<int32_t>(start + i));
        }
      },
      [&](const Nearest& nearest, int64_t query) { store(nearest, k, query, distances, neighbours); });
}

void count_within(const double* points, int64_t n, int64_t d, const double* radii, bool strict, int32_t* counts,
                  int threads) {
  if (d == 1) return count_sorted(points, n, radii, strict, counts, threads);
  if (d <= kMostTreeDimensions) {
    const Tree tree = build_tree(points, n, d, threads);
    if (d == 2) return tree_counts<2>(tree, radii, strict, counts, threads);
    if (d == 3) return tree_counts<3>(tree, radii, strict, counts, threads);
    return tree_counts<0>(tree, radii, strict, counts, threads);
  }
  each_tile(
      points, n, d, threads, [] { return int64_t{0}; },
      [&](int64_t& found, int64_t query, int64_t, int64_t count, const double* to) {
        const double radius = radii[query];
        for (int64_t i = 0; i < count; i++) found += strict ? to[i] < radius : to[i] <= radius;
      },
      [&](int64_t found, int64_t query) {
        const double radius = radii[query];
        counts[query] = static_cast<int32_t>(found - (strict ? radius > 0 : radius >= 0));
      });
}

}  // namespace surprisal
