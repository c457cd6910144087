#include "plackett_luce.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
// Exponentials of a row whose logits are farther apart than this could vanish beside each other.
constexpr double kWidestRow = 600;
constexpr int64_t kChunk = 2048;

const PlackettLuceLoops& loops() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kPlackettLuceAvx512;
    case Simd::Avx2:
      return kPlackettLuceAvx2;
    default:
      break;
  }
#endif
  return kPlackettLuceBaseline;
}

double log_add(double a, double b) {
  const double high = std::max(a, b);
  return high == kNothing ? kNothing : high + std::log1p(std::exp(-std::fabs(a - b)));
}

// Sorts by the upper 32 bits, equal ones as they stand: three passes of 11, 11 and 10 bits. `keys` gets the result.
void sort_ranked(std::vector<uint64_t>& keys, std::vector<uint64_t>& spare, int64_t n) {
  constexpr int kPasses = 3;
  constexpr int kShift[kPasses] = {32, 43, 54};
  constexpr int64_t kBuckets = 2048;
  static thread_local uint32_t counts[kPasses][kBuckets];
  std::fill(&counts[0][0], &counts[0][0] + kPasses * kBuckets, 0u);
  for (int64_t i = 0; i < n; i++) {
    for (int p = 0; p < kPasses; p++) counts[p][(keys[i] >> kShift[p]) & (kBuckets - 1)]++;
  }
  for (int p = 0; p < kPasses; p++) {
    uint32_t* count = counts[p];
    if (count[(keys[0] >> kShift[p]) & (kBuckets - 1)] == n) continue;
    uint32_t sum = 0;
    for (int64_t b = 0; b < kBuckets; b++) {
      const uint32_t here = count[b];
      count[b] = sum;
      sum += here;
    }
    const uint64_t* from = keys.data();
    uint64_t* to = spare.data();
    for (int64_t i = 0; i < n; i++) to[count[(from[i] >> kShift[p]) & (kBuckets - 1)]++] = from[i];
    keys.swap(spare);
  }
}

struct Scratch {
  std::vector<uint64_t> keys, spare;
  std::vector<double> exponentials, ratios;
  std::vector<float> floats;
  std::vector<int32_t> places;
  std::vector<int32_t> ids;
  std::vector<double> probabilities, weights, scores, sums;

  void reserve(int64_t classes) {
    const size_t n = static_cast<size_t>(classes);
    if (floats.size() < n) floats.resize(n);
  }
  void reserve_ranks(int64_t classes) {
    const size_t n = static_cast<size_t>(classes);
    if (keys.size() < n) keys.resize(n);
    if (spare.size() < n) spare.resize(n);
    if (exponentials.size() < n) exponentials.resize(n);
    if (ratios.size() < n) ratios.resize(n);
  }
};

uint64_t ranked_entry(float logit, int64_t place) {
  return static_cast<uint64_t>(descending_key(logit)) << 32 | static_cast<uint64_t>(place);
}

// The k first classes by descending x, ties by class.
void select_top(const float* x, int64_t n, int64_t k, const PlackettLuceLoops& loop, Scratch& scratch,
                std::vector<int32_t>& ids) {
  std::vector<uint64_t>& held = scratch.keys;
  const int64_t room = std::max<int64_t>(2 * k, 64);
  held.clear();
  scratch.places.resize(kChunk);
  float least = -std::numeric_limits<float>::infinity();
  bool full = false;
  const auto cut = [&] {
    std::nth_element(held.begin(), held.begin() + (k - 1), held.end());
    held.resize(static_cast<size_t>(k));
    least = logit_of_key(static_cast<uint32_t>(held[k - 1] >> 32));
    full = true;
  };
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t count = std::min(kChunk, n - at);
    // Until k are held, masked classes count too.
    int64_t hits = count;
    if (full) hits = loop.above(x + at, count, least, scratch.places.data());
    for (int64_t i = 0; i < hits; i++) {
      const int64_t place = at + (full && hits != count ? scratch.places[i] : i);
      // A later class ties with none that is held.
      if (full && !(x[place] > least)) continue;
      held.push_back(ranked_entry(x[place], place));
      if (static_cast<int64_t>(held.size()) == room) cut();
    }
  }
  std::sort(held.begin(), held.end());
  ids.resize(static_cast<size_t>(std::min<int64_t>(k, static_cast<int64_t>(held.size()))));
  for (size_t i = 0; i < ids.size(); i++) ids[i] = static_cast<int32_t>(static_cast<uint32_t>(held[i]));
}

// A row's list, as `RankedList` of the reference.
struct List {
  double tail_weight = 0;
  double label_rank = std::numeric_limits<double>::quiet_NaN();
  double entropy = 0;
  int64_t top = 0;
};

class Rows {
 public:
  Rows(const ListBatch& batch, Scratch& scratch) : b_(batch), loop_(loops()), s_(scratch) { s_.reserve(batch.classes); }

  bool evaluate(int64_t r) {
    r_ = r;
    n_ = b_.classes;
    student_ = b_.student + r * n_;
    gradient_ = b_.gradient == nullptr ? nullptr : b_.gradient + r * n_;
    label_ = b_.labels == nullptr ? -1 : b_.labels[r];
    first_ = b_.label_first ? label_ : -1;
    if (b_.labels != nullptr && label_ == kIgnoredLabel) {
      if (gradient_ != nullptr && b_.overwrite) std::fill(gradient_, gradient_ + n_, 0.0f);
      return true;
    }
    int64_t finite;
    if (!loop_.scan(student_, n_, &student_max_, &student_min_, &finite) || finite == 0) return false;
    student_top_ = loop_.find(student_, n_, student_max_);
    List list;
    if (b_.teacher != nullptr) {
      const float* teacher = b_.teacher + r * n_;
      float max, min;
      if (!loop_.scan(teacher, n_, &max, &min, &finite) || finite == 0) return false;
      list.top = loop_.find(teacher, n_, max);
      if (label_ >= 0) list.label_rank = static_cast<double>(loop_.before(teacher, n_, label_));
      const bool narrow = static_cast<double>(student_max_) - student_min_ <= kWidestRow;
      if (b_.listed >= n_ && narrow) return rank_all(teacher, max, list);
      list_full(teacher, max, list);
    } else if (!list_stored(list)) {
      return false;
    }
    return score(list);
  }

 private:
  void figure(ListFigure which, double value) { b_.figures[which * b_.rows + r_] = value; }

  void common_figures(const List& list) {
    figure(kListLabelRank, list.label_rank);
    figure(kListTailWeight, list.tail_weight);
    figure(kListEntropy, list.entropy);
    figure(kListAgreement, list.top == student_top_ ? 1 : 0);
  }

  // The classes of a full row as `keys`, the label in front.
  void sort_row(const float* teacher, const List& list) {
    s_.reserve_ranks(n_);
    uint64_t* keys = s_.keys.data();
    for (int64_t j = 0; j < n_; j++) keys[j] = ranked_entry(teacher[j], j);
    sort_ranked(s_.keys, s_.spare, n_);
    if (first_ < 0) return;
    const int64_t place = static_cast<int64_t>(list.label_rank);
    std::rotate(s_.keys.begin(), s_.keys.begin() + place, s_.keys.begin() + place + 1);
  }

  bool rank_all(const float* teacher, float teacher_max, List& list) {
    sort_row(teacher, list);
    RankedRow row;
    row.classes = n_;
    row.ranked = s_.keys.data();
    row.student = student_;
    row.student_max = student_max_;
    row.teacher_max = teacher_max;
    row.inverse_temperature = 1 / b_.temperature;
    row.weights = b_.weights;
    row.exponentials = s_.exponentials.data();
    row.ratios = s_.ratios.data();
    row.shares = s_.floats.data();
    row.contributions = contributions();
    row.ranks = b_.ranks;
    row.gradient = gradient_;
    row.scale = b_.scale;
    row.overwrite = b_.overwrite;
    RankedSums sums;
    const int64_t first = static_cast<uint32_t>(s_.keys[0]);
    if (!loop_.rank(row, &sums)) return false;
    list.entropy = std::log(sums.weight) - sums.moment / sums.weight;
    common_figures(list);
    figure(kListLoss, sums.loss);
    figure(kListStudentTail, 0);
    figure(kListFirstWeight, first_weight(teacher[first], teacher_max, sums.weight));
    return true;
  }

  double first_weight(double logit, double max, double total) const {
    switch (b_.weights) {
      case ListWeights::Teacher:
        return std::exp((logit - max) / b_.temperature) / total;
      case ListWeights::Position:
        return std::ldexp(1, static_cast<int>(n_ - 1)) - 1;
      default:
        return 1;
    }
  }

  double* contributions() const { return b_.contributions == nullptr ? nullptr : b_.contributions + r_ * b_.ranks; }

  void put_label_first() {
    if (first_ < 0) return;
    const auto place = std::find(s_.ids.begin(), s_.ids.end(), static_cast<int32_t>(first_));
    if (place == s_.ids.end()) {
      s_.ids.insert(s_.ids.begin(), static_cast<int32_t>(first_));
    } else {
      std::rotate(s_.ids.begin(), place, place + 1);
    }
  }

  void list_full(const float* teacher, float max, List& list) {
    const double inverse = 1 / b_.temperature;
    const double total = loop_.weigh(teacher, n_, max, static_cast<float>(inverse), nullptr);
    if (b_.listed < n_) {
      select_top(teacher, n_, b_.listed, loop_, s_, s_.ids);
      put_label_first();
    } else {
      sort_row(teacher, list);
      s_.ids.resize(static_cast<size_t>(n_));
      for (int64_t k = 0; k < n_; k++) s_.ids[k] = static_cast<int32_t>(static_cast<uint32_t>(s_.keys[k]));
    }
    s_.probabilities.resize(s_.ids.size());
    for (size_t k = 0; k < s_.ids.size(); k++) {
      s_.probabilities[k] = std::exp((static_cast<double>(teacher[s_.ids[k]]) - max) / b_.temperature) / total;
    }
    weigh(list);
  }

  bool list_stored(List& list) {
    const int32_t* ids = b_.ids + r_ * b_.k;
    const double* log_probs = b_.log_probs + r_ * b_.k;
    int64_t count = 0;
    while (count < b_.k && ids[count] >= 0) count++;
    if (count == 0) return false;
    int64_t place = -1;
    for (int64_t i = 0; i < count; i++) {
      if (ids[i] >= n_ || !(log_probs[i] <= 1e-3)) return false;
      if (ids[i] == label_) place = i;
    }
    if (first_ >= 0 && place < 0 && b_.missing == MissingLabel::Error) return false;
    const double rest = std::pow(std::max(0.0, b_.leftover[r_]), 1 / b_.temperature);
    double total = b_.temperature == 1 ? 1 : rest;
    std::vector<double>& powers = s_.scores;
    powers.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i++) {
      powers[i] = std::exp(log_probs[i] / b_.temperature);
      if (b_.temperature != 1) total += powers[i];
    }
    const int64_t others = n_ - count;
    const double share = b_.missing == MissingLabel::Zero || others <= 0 ? 0 : rest / total / others;
    const int64_t kept = std::min(count, b_.listed);
    s_.ids.clear();
    s_.probabilities.clear();
    if (first_ >= 0) {
      s_.ids.push_back(static_cast<int32_t>(first_));
      s_.probabilities.push_back(place < 0 ? share : powers[place] / total);
    }
    for (int64_t i = 0; i < kept; i++) {
      if (ids[i] == first_) continue;
      s_.ids.push_back(ids[i]);
      s_.probabilities.push_back(powers[i] / total);
    }
    list.top = ids[0];
    if (label_ >= 0) list.label_rank = static_cast<double>(place < 0 ? count : place);
    weigh(list);
    return true;
  }

  void weigh(List& list) {
    const int64_t length = static_cast<int64_t>(s_.ids.size());
    double mass = 0;
    for (const double p : s_.probabilities) {
      mass += p;
      if (p > 0) list.entropy -= p * std::log(p);
    }
    list.tail_weight = length >= n_ ? 0 : std::max(0.0, 1 - mass);
    if (list.tail_weight > 0) list.entropy -= list.tail_weight * std::log(list.tail_weight);
    s_.weights = s_.probabilities;
    const bool with_tail = length < n_ && b_.tail == ListTail::Partial;
    for (int64_t k = 0; k < length; k++) {
      double& w = s_.weights[k];
      switch (b_.weights) {
        case ListWeights::Teacher:
          if (length < n_ && !with_tail) w = mass > 0 ? w / mass : 0;
          break;
        case ListWeights::Uniform:
          w = 1;
          break;
        case ListWeights::Label:
          w = k == 0 ? 1 : 0;
          break;
        case ListWeights::Position:
          w = std::ldexp(1, static_cast<int>(length - 1 - k + (with_tail ? 1 : 0))) - 1;
          break;
      }
    }
  }

  // Exponentials of the logits outside the list in `floats`, 0 for those in it; the log-sum-exp of them.
  double score_tail() {
    const int64_t length = static_cast<int64_t>(s_.ids.size());
    float* rest = s_.floats.data();
    if (length >= n_) return kNothing;
    std::copy(student_, student_ + n_, rest);
    for (const int32_t id : s_.ids) rest[id] = -std::numeric_limits<float>::infinity();
    float max, min;
    int64_t finite;
    loop_.scan(rest, n_, &max, &min, &finite);
    if (finite == 0) return kNothing;
    tail_max_ = max;
    const double sum = loop_.weigh(rest, n_, max, 1, rest);
    for (const int32_t id : s_.ids) rest[id] = 0;
    return max + std::log(sum);
  }

  bool score(const List& list) {
    const size_t length = s_.ids.size();
    s_.scores.resize(length);
    s_.sums.resize(length + 1);
    for (size_t k = 0; k < length; k++) {
      s_.scores[k] = student_[s_.ids[k]];
      if (s_.scores[k] == kNothing && s_.weights[k] != 0) return false;
    }
    const double outside = score_tail();
    const bool with_tail = b_.tail == ListTail::Partial;
    s_.sums[length] = with_tail ? outside : kNothing;
    double listed = kNothing;
    for (size_t k = length; k-- > 0;) {
      s_.sums[k] = log_add(s_.sums[k + 1], s_.scores[k]);
      listed = log_add(listed, s_.scores[k]);
    }
    double loss = 0;
    double* terms = contributions();
    for (size_t k = 0; k < length; k++) {
      const double term = s_.weights[k] == 0 ? 0 : s_.weights[k] * (s_.sums[k] - s_.scores[k]);
      loss += term;
      if (static_cast<int64_t>(k) < b_.ranks) terms[k] = term;
    }
    common_figures(list);
    figure(kListLoss, loss);
    figure(kListFirstWeight, s_.weights[0]);
    figure(kListStudentTail, outside == kNothing ? 0 : std::exp(outside - log_add(outside, listed)));
    if (gradient_ != nullptr) write_gradient(with_tail && outside > kNothing ? outside : kNothing);
    return true;
  }

  void write_gradient(double tail) {
    const size_t length = s_.ids.size();
    double prefix = 0;
    for (size_t k = 0; k < length; k++) {
      const double drop = k == 0 || s_.sums[k] == kNothing ? 0 : std::exp(s_.sums[k] - s_.sums[k - 1]);
      prefix = s_.weights[k] + prefix * drop;
      const double share = s_.scores[k] == kNothing ? 0 : std::exp(s_.scores[k] - s_.sums[k]) * prefix;
      s_.scores[k] = (share - s_.weights[k]) * b_.scale;
    }
    if (tail > kNothing) {
      prefix *= std::exp(tail - s_.sums[length - 1]);
      const double factor = prefix * std::exp(tail_max_ - tail) * b_.scale;
      loop_.spread(s_.floats.data(), n_, static_cast<float>(factor), b_.overwrite, gradient_);
    } else if (b_.overwrite) {
      std::fill(gradient_, gradient_ + n_, 0.0f);
    }
    for (size_t k = 0; k < length; k++) {
      float& g = gradient_[s_.ids[k]];
      g = static_cast<float>((b_.overwrite ? 0.0 : static_cast<double>(g)) + s_.scores[k]);
    }
  }

  const ListBatch& b_;
  const PlackettLuceLoops& loop_;
  Scratch& s_;
  int64_t r_ = 0, n_ = 0, label_ = -1, first_ = -1, student_top_ = 0;
  const float* student_ = nullptr;
  float* gradient_ = nullptr;
  float student_max_ = 0, student_min_ = 0;
  double tail_max_ = 0;
};

bool top_row(const TopBatch& batch, int64_t r, const PlackettLuceLoops& loop, Scratch& scratch) {
  const float* x = batch.logits + r * batch.classes;
  float max, min;
  int64_t finite;
  if (!loop.scan(x, batch.classes, &max, &min, &finite) || finite == 0) return false;
  const double inverse = 1 / batch.temperature;
  scratch.reserve(batch.classes);
  float* e = scratch.floats.data();
  const double total = loop.weigh(x, batch.classes, max, static_cast<float>(inverse), e);
  select_top(x, batch.classes, batch.k, loop, scratch, scratch.ids);
  for (int64_t i = 0; i < batch.k; i++) {
    const bool held = i < finite;
    const int64_t id = scratch.ids[i];
    batch.ids[r * batch.k + i] = held ? static_cast<int32_t>(id) : -1;
    const double below = (static_cast<double>(x[id]) - max) / batch.temperature;
    batch.log_probs[r * batch.k + i] = held ? static_cast<float>(below - std::log(total)) : 0;
    e[id] = 0;
  }
  double left = 0;
  for (int64_t j = 0; j < batch.classes; j++) left += e[j];
  batch.leftover[r] = static_cast<float>(left / total);
  return true;
}

template <class Row>
int64_t first_refused(int64_t rows, int threads, Row row) {
  std::atomic<int64_t> first_bad{rows};
  parallel_for(rows, 1, threads, [&](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    for (int64_t r = begin; r < end; r++) {
      if (row(r, scratch)) continue;
      int64_t known = first_bad.load();
      while (r < known && !first_bad.compare_exchange_weak(known, r)) {
      }
    }
  });
  return first_bad < rows ? first_bad.load() : -1;
}

}  // namespace

int64_t plackett_luce_rows(const ListBatch& batch, int threads) {
  return first_refused(batch.rows, threads,
                       [&](int64_t r, Scratch& scratch) { return Rows(batch, scratch).evaluate(r); });
}

int64_t top_log_probs(const TopBatch& batch, int threads) {
  const PlackettLuceLoops& loop = loops();
  return first_refused(batch.rows, threads,
                       [&](int64_t r, Scratch& scratch) { return top_row(batch, r, loop, scratch); });
}

}  // namespace surprisal
