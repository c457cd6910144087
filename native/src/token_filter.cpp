#include "token_filter.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "thread_pool.hpp"
#include "token_prefix.hpp"

namespace surprisal {
namespace {

constexpr double kSlack = 1e-12;
constexpr int64_t kTopHCandidates = 100;
// Prefixes mostly end within a few nats of the top: the tokens there are tried first, while they are few.
constexpr double kNearNats[] = {4, 8, 16};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The least T that is not below v: x >= v and x >= ceil_to(v) agree for every x of type T.
template <class T>
T ceil_to(double v) {
  T t = static_cast<T>(v);
  if (static_cast<double>(t) < v) t = std::nextafter(t, std::numeric_limits<T>::infinity());
  return t;
}

// One row on its way through the filters. What is left of it ("live") is in ascending order of the ids.
template <class T>
class FilteredRow {
 public:
  FilteredRow(const T* row, int64_t vocabulary, Scratch<T>& scratch)
      : scratch_(scratch), row_(row), vocabulary_(vocabulary), loops_(token_kernels().of(row)) {}

  // False when the row holds NaN or +inf, or nothing finite.
  bool open() {
    double least;
    if (!loops_.scan(row_, vocabulary_, &row_max_, &least, &finite_) || finite_ == 0) return false;
    x_ = row_;
    ids_ = nullptr;
    n_ = vocabulary_;
    max_ = row_max_;
    least_ = least;
    plain_ = loops_.weigh(row_, vocabulary_, row_max_, 1, nullptr);
    sums_ = plain_;
    summed_ = true;
    if (finite_ < vocabulary_) keep_from(std::numeric_limits<T>::lowest());
    return true;
  }

  void apply(FilterMethod method, const double* v) {
    switch (method) {
      case FilterMethod::Temperature:
        return heat(v[0]);
      case FilterMethod::DynamicTemperature:
        return heat_by_entropy(v[0], v[1], v[2]);
      case FilterMethod::TopK:
        return top_k(v[0]);
      case FilterMethod::TopP:
        return top_p(v[0]);
      case FilterMethod::MinP:
        return keep_logits(std::log(v[0]));
      case FilterMethod::Typical:
        return typical(v[0]);
      case FilterMethod::Epsilon:
        return keep_probable(std::log(v[0]));
      case FilterMethod::Eta:
        return keep_probable(std::log(std::min(v[0], std::sqrt(v[0]) * std::exp(-entropy()))));
      case FilterMethod::TopNSigma:
        return top_n_sigma(v[0]);
      case FilterMethod::TopHPaper:
        return top_h(v[0]);
      case FilterMethod::TopHReference:
        return top_h_partial(v[0], false);
      case FilterMethod::TopHTransformers:
        return top_h_partial(v[0], true);
      case FilterMethod::Xtc:
        return exclude_top(v[0]);
      case FilterMethod::MirostatV1:
        return mirostat_v1(v[0], v[1]);
      case FilterMethod::MirostatV2:
        return mirostat_v2(v[0]);
      default:
        return;
    }
  }

  // Leaves the most probable token alone, of equal ones that of the lowest id.
  void keep_top() {
    for (int64_t i = 0; i < n_; i++) {
      if (static_cast<double>(x_[i]) == max_) {
        keep_only(i);
        return;
      }
    }
  }

  // The id at which the cumulative mass, in falling order, passes the share `uniform`.
  int32_t draw(double uniform, double* logit) {
    sum();
    const double threshold = uniform * mass_of(sums_);
    Item item;
    if (n_ == 1) {
      item = {static_cast<double>(x_[0]), 0, 1};
    } else {
      const bool found = first_prefix([=](const TokenSums& p) { return mass_of(p) > threshold; }, item);
      if (!found) item = last_weighty();
    }
    *logit = item.key;
    return id(item.at);
  }

  void figures(double* out, int64_t stride) {
    sum();
    const TokenSums tempered =
        temperature_ == 1 ? plain_ : loops_.weigh(row_, vocabulary_, row_max_, inverse(), nullptr);
    out[kFilterMax * stride] = row_max_;
    out[kFilterLogSumExp * stride] = row_max_ + std::log(mass_of(plain_));
    out[kFilterEntropy * stride] = entropy_of(plain_);
    out[kFilterTemperature * stride] = temperature_;
    out[kFilterTemperedEntropy * stride] = entropy_of(tempered);
    out[kFilterKeptMass * stride] = std::min(1.0, std::exp((max_ - row_max_) * inverse()) * mass_of(sums_) / mass_of(tempered));
    out[kFilterKeptCount * stride] = static_cast<double>(n_);
    out[kFilterEntropyAfter * stride] = entropy();
  }

  void choice(double logit, double* out, int64_t stride) {
    out[kFilterLogProbabilityAfter * stride] = (logit - max_) * inverse() - std::log(mass_of(sums_));
    out[kFilterSurprisal * stride] = std::max(0.0, row_max_ - logit + std::log(mass_of(plain_)));
  }

  void kept(int32_t* out) const {
    for (int64_t i = 0; i < n_; i++) out[i] = id(i);
  }

 private:
  int32_t id(int64_t at) const { return ids_ == nullptr ? static_cast<int32_t>(at) : ids_[at]; }
  double inverse() const { return inverse_of(temperature_); }
  PrefixWalk<T> order() const { return {scratch_, vocabulary_, temperature_}; }

  void sum() {
    if (summed_) return;
    sums_ = loops_.weigh(x_, n_, max_, inverse(), nullptr);
    summed_ = true;
  }

  double entropy() {
    sum();
    return entropy_of(sums_);
  }

  void heat(double factor) {
    if (factor == 0) return keep_top();
    temperature_ *= factor;
    summed_ = summed_ && factor == 1;
  }

  void heat_by_entropy(double base, double range, double exponent) {
    const double least = std::max(0.0, base - range);
    const double share = n_ > 1 ? std::min(1.0, entropy() / std::log(static_cast<double>(n_))) : 0;
    heat(least + (base + range - least) * std::pow(share, exponent));
  }

  // What is live from here on: the `count` positions in `found`.
  void keep_found(int64_t count) {
    if (count == n_) return;
    const int32_t* found = scratch_.found.data();
    // Positions never lie below their place in the list: the arrays may be narrowed where they are.
    scratch_.logits.reserve(vocabulary_);
    scratch_.ids.reserve(vocabulary_);
    T* x = scratch_.logits.data();
    int32_t* ids = scratch_.ids.data();
    double high = -kInfinity, low = kInfinity;
    for (int64_t i = 0; i < count; i++) {
      const T v = x_[found[i]];
      ids[i] = id(found[i]);
      x[i] = v;
      high = v > high ? static_cast<double>(v) : high;
      low = v < low ? static_cast<double>(v) : low;
    }
    x_ = x;
    ids_ = ids;
    n_ = count;
    max_ = high;
    least_ = low;
    summed_ = false;
  }

  int64_t find(T least) {
    scratch_.found.reserve(vocabulary_);
    return loops_.find(x_, n_, least, scratch_.found.data());
  }

  void keep_from(T least) { keep_found(find(least)); }

  void keep_only(int64_t at) {
    scratch_.found.reserve(1);
    scratch_.found.data()[0] = static_cast<int32_t>(at);
    keep_found(1);
  }

  // Keeps what lies before `last` in the order, `last` too where `inclusive`. At least one token.
  void keep_until(const Item& last, bool inclusive) {
    const int64_t count = find(static_cast<T>(last.key));
    int32_t* found = scratch_.found.data();
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
      const bool equal = static_cast<double>(x_[found[i]]) == last.key;
      if (!equal || found[i] < last.at || (inclusive && found[i] == last.at)) found[left++] = found[i];
    }
    if (left == 0) return keep_top();
    keep_found(left);
  }

  // Tokens with (x - max)/T >= bound, or the most probable one and its equals.
  void keep_logits(double bound) {
    const double least = max_ + (bound - kSlack) * temperature_;
    keep_from(ceil_to<T>(std::min(least, max_)));
  }

  void keep_probable(double bound) {
    sum();
    keep_logits(bound + std::log(mass_of(sums_)));
  }

  // The weights of what is live, in scratch.
  const double* weigh() {
    scratch_.weights.reserve(vocabulary_);
    sums_ = loops_.weigh(x_, n_, max_, inverse(), scratch_.weights.data());
    summed_ = true;
    return scratch_.weights.data();
  }

  // First prefix of the live tokens, in falling order of the logits, that passes: its last token. False when none does.
  template <class Passes>
  bool first_prefix(Passes passes, Item& last) {
    for (const double nats : kNearNats) {
      scratch_.near.reserve(vocabulary_);
      const int64_t count = loops_.find(x_, n_, ceil_to<T>(max_ - nats * temperature_), scratch_.near.data());
      if (count > n_ / 3) break;
      if (near_prefix(count, passes, last)) return true;
    }
    return order().walk(x_, weigh(), n_, max_, least_, max_, passes, last);
  }

  // The same over the `count` most probable tokens, whose positions are in `near`.
  template <class Passes>
  bool near_prefix(int64_t count, Passes passes, Item& last) {
    const int32_t* near = scratch_.near.data();
    scratch_.near_logits.reserve(vocabulary_);
    scratch_.weights.reserve(vocabulary_);
    T* logits = scratch_.near_logits.data();
    T least = static_cast<T>(max_);
    for (int64_t i = 0; i < count; i++) {
      logits[i] = x_[near[i]];
      least = std::min(least, logits[i]);
    }
    loops_.weigh(logits, count, max_, inverse(), scratch_.weights.data());
    if (!order().walk(logits, scratch_.weights.data(), count, max_, least, max_, passes, last)) return false;
    last.at = near[last.at];
    return true;
  }

  void top_k(double k) {
    if (k >= static_cast<double>(n_)) return;
    Item last;
    if (first_prefix([=](const TokenSums& p) { return p.count >= k; }, last)) keep_from(static_cast<T>(last.key));
  }

  void top_p(double p) {
    if (p >= 1) return;
    Item last;
    sum();
    const double enough = p * mass_of(sums_) * (1 - kSlack);
    if (first_prefix([=](const TokenSums& prefix) { return mass_of(prefix) >= enough; }, last)) keep_until(last, true);
  }

  void typical(double mass) {
    if (mass >= 1) return;
    const double* weights = weigh();
    const double enough = mass * mass_of(sums_) * (1 - kSlack);
    const double center = entropy() - std::log(mass_of(sums_));
    scratch_.scores.reserve(vocabulary_);
    double* scores = scratch_.scores.data();
    double top = -kInfinity, least = kInfinity;
    for (int64_t i = 0; i < n_; i++) {
      scores[i] = -std::fabs((static_cast<double>(x_[i]) - max_) / temperature_ + center);
      top = std::max(top, scores[i]);
      least = std::min(least, scores[i]);
    }
    Item last;
    if (!order().walk(scores, weights, n_, top, least, top, [=](const TokenSums& p) { return mass_of(p) >= enough; }, last)) return;
    scratch_.found.reserve(vocabulary_);
    keep_found(token_kernels().f64.find(scores, n_, last.key, scratch_.found.data()));
  }

  void top_n_sigma(double n) {
    const double count = static_cast<double>(finite_);
    const double mean = loops_.sum_about(row_, vocabulary_, row_max_, 0, false) / count;
    const double deviation = std::sqrt(loops_.sum_about(row_, vocabulary_, row_max_, mean, true) / count);
    keep_from(ceil_to<T>(max_ - n * deviation * (1 + kSlack)));
  }

  void top_h(double alpha) {
    const double bound = alpha * entropy() * (1 + kSlack);
    // H of the prefix, d and the moments taken about the largest logit. A first token alone has entropy 0.
    const auto passes = [=](const TokenSums& p) { return p.count > 1 && entropy_of(p) > bound; };
    Item last;
    if (first_prefix(passes, last)) keep_until(last, false);
    // Tokens of no weight add nothing to the entropy and are not kept.
    keep_from(ceil_to<T>(max_ - kWeightDepth * temperature_));
  }

  // The `count` most probable tokens in falling order, with their weights; how many there are.
  int64_t most_probable(int64_t count, const Item** out) {
    T least = std::numeric_limits<T>::lowest();
    const double wanted = static_cast<double>(count);
    if (count < n_) {
      Item last;
      first_prefix([=](const TokenSums& p) { return p.count >= wanted; }, last);
      least = static_cast<T>(last.key);
    }
    const int64_t found = find(least);
    const int32_t* places = scratch_.found.data();
    scratch_.items.reserve(found);
    Item* items = scratch_.items.data();
    for (int64_t i = 0; i < found; i++) {
      const double logit = x_[places[i]];
      const double d = (logit - max_) * inverse();
      items[i] = {logit, places[i], d > -kWeightDepth ? std::exp(d) : 0};
    }
    std::sort(items, items + found, before);
    *out = items;
    return std::min(found, count);
  }

  void top_h_partial(double alpha, bool renormalised) {
    const Item* items;
    sum();
    const int64_t count = most_probable(kTopHCandidates, &items);
    double divisor = mass_of(sums_);
    if (renormalised) {
      divisor = 0;
      for (int64_t i = 0; i < count; i++) divisor += items[i].weight;
    }
    double sums[kTopHCandidates];
    double total = 0;
    for (int64_t i = 0; i < count; i++) {
      const double p = items[i].weight / divisor;
      if (p > 0) total -= p * std::log(p);
      sums[i] = total;
    }
    const double bound = alpha * total * (1 + kSlack);
    int64_t kept = 1;
    while (kept < count && items[kept].weight > 0 && sums[kept] <= bound) kept++;
    const Item last = items[kept - 1];
    keep_until(last, true);
  }

  void exclude_top(double threshold) {
    sum();
    const double least = max_ + (std::log(threshold) - kSlack + std::log(mass_of(sums_))) * temperature_;
    const int64_t above = least > max_ ? 0 : find(ceil_to<T>(least));
    const int32_t* found = scratch_.found.data();
    if (above < 2) return;
    // The least probable of those above: the smallest logit, of equal ones the highest id.
    int32_t stays = found[0];
    for (int64_t i = 1; i < above; i++) {
      if (x_[found[i]] <= x_[stays]) stays = found[i];
    }
    int64_t left = 0;
    int32_t* out = scratch_.found.data();
    const T limit = x_[stays];
    for (int64_t i = 0; i < n_; i++) {
      if (x_[i] < limit || (x_[i] == limit && i >= stays)) out[left++] = static_cast<int32_t>(i);
    }
    keep_found(left);
  }

  void mirostat_v1(double mu, double candidates) {
    const Item* items;
    const int64_t count = most_probable(static_cast<int64_t>(candidates), &items);
    double products = 0, squares = 0;
    for (int64_t i = 0; i + 1 < count; i++) {
      const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
      products += t * (items[i].key / temperature_ - items[i + 1].key / temperature_);
      squares += t * t;
    }
    if (!(squares > 0)) return keep_top();
    const double exponent = products / squares;
    const double excess = exponent - 1;
    const double log_vocabulary = std::log(static_cast<double>(vocabulary_));
    const double ratio =
        std::fabs(excess) < 1e-9 ? 1 / log_vocabulary : excess / -std::expm1(-excess * log_vocabulary);
    const double base = ratio * std::exp2(mu);
    const double power = 1 / exponent;
    // 1^infinity counts as NaN, and keeps one token.
    const double kept = base == 1 && std::isinf(power) ? 1 : std::pow(base, power);
    const double whole = std::max(1.0, std::floor(std::min(kept, static_cast<double>(vocabulary_))));
    if (whole >= static_cast<double>(n_)) return;
    Item last;
    if (first_prefix([=](const TokenSums& p) { return p.count >= whole; }, last)) keep_until(last, true);
  }

  void mirostat_v2(double mu) {
    sum();
    if (-mu * M_LN2 + std::log(mass_of(sums_)) - kSlack > 0) return keep_top();
    keep_probable(-mu * M_LN2);
  }

  // The last token of the order that has any weight.
  Item last_weighty() {
    const double* weights = weigh();
    Item last{-kInfinity, 0, 0};
    for (int64_t i = 0; i < n_; i++) {
      const Item item{static_cast<double>(x_[i]), static_cast<int32_t>(i), weights[i]};
      if (item.weight > 0 && (last.weight == 0 || before(last, item))) last = item;
    }
    return last;
  }

  Scratch<T>& scratch_;
  const T* row_;
  int64_t vocabulary_;
  const TokenLoops<T>& loops_;
  double row_max_ = 0;
  TokenSums plain_;  // of the whole row at temperature 1
  int64_t finite_ = 0;
  const T* x_ = nullptr;
  const int32_t* ids_ = nullptr;
  int64_t n_ = 0;
  double max_ = 0, least_ = 0, temperature_ = 1;
  TokenSums sums_;  // of what is live, where `summed_`
  bool summed_ = false;
};

template <class T>
bool filter_row(const FilterBatch<T>& batch, int64_t r, Scratch<T>& scratch) {
  FilteredRow<T> row(batch.logits + r * batch.vocabulary, batch.vocabulary, scratch);
  if (!row.open()) return false;
  const double* values = batch.values + (batch.own_values ? r * batch.steps * kFilterValues : 0);
  for (int64_t s = 0; s < batch.steps; s++) {
    row.apply(static_cast<FilterMethod>(batch.methods[s]), values + s * kFilterValues);
  }
  if (batch.greedy) row.keep_top();
  double* figures = batch.figures + r;
  row.figures(figures, batch.rows);
  batch.tokens[r] = -1;
  figures[kFilterLogProbabilityAfter * batch.rows] = figures[kFilterSurprisal * batch.rows] =
      std::numeric_limits<double>::quiet_NaN();
  if (batch.uniforms != nullptr) {
    double logit;
    batch.tokens[r] = row.draw(batch.uniforms[r], &logit);
    row.choice(logit, figures, batch.rows);
  }
  if (batch.kept != nullptr) row.kept(batch.kept + r * batch.vocabulary);
  return true;
}

}  // namespace

template <class T>
int64_t filter_tokens(const FilterBatch<T>& batch, int threads) {
  std::atomic<int64_t> first_bad{batch.rows};
  parallel_for(batch.rows, 1, threads, [&](int64_t begin, int64_t end) {
    // Kept from call to call: a step of generation is one row, and its buffers are some megabytes.
    thread_local Scratch<T> scratch;
    for (int64_t r = begin; r < end; r++) {
      if (filter_row(batch, r, scratch)) continue;
      int64_t known = first_bad.load();
      while (r < known && !first_bad.compare_exchange_weak(known, r)) {
      }
    }
  });
  return first_bad < batch.rows ? first_bad.load() : -1;
}

template int64_t filter_tokens(const FilterBatch<float>&, int);
template int64_t filter_tokens(const FilterBatch<double>&, int);

}  // namespace surprisal
