// Softmax sums of attention rows from queries and keys: no scores of a whole row ever exist.
#pragma once
#include <cstdint>

namespace surprisal {

// One layer's attention over one window. Query i stands at position query_start + i and sees the keys up to its own
// position (all keys when not causal), at most `window` of them.
struct ScoreRequest {
  const void* queries;  // [query_count, heads * head_dim]
  const void* keys;     // [key_count, key_heads * head_dim]; heads share keys in runs of heads / key_heads
  int64_t heads, key_heads, head_dim;
  int64_t query_count, key_count;
  int64_t query_start;
  int64_t window;  // 0 for none
  bool causal;
  double scale;                // on the products
  double softcap;              // scores become c tanh(score / c); 0 for none
  const double* temperatures;  // [heads, query_count] that divide the scores, or null
  bool moments;                // the second moment too
};

// Numbers of one row: the score of key 0 (-inf when it is not seen), and over the other keys m = max z,
// Z = sum e^(z-m), A = sum e^(z-m) (z-m), Q = sum e^(z-m) (z-m)^2 (0 unless asked for).
constexpr int kScoreSums = 5;

// sums [heads, query_count, kScoreSums]; the same bits whatever the number of threads and the split into queries.
void attention_scores_f32(const ScoreRequest& request, double* sums, int threads);
void attention_scores_f64(const ScoreRequest& request, double* sums, int threads);

// What the instruction sets differ in. A panel is [head_dim][keys_per_panel], a group of queries [head_dim][rows].
struct ScoreRows {
  const void* queries;    // groups, one after the other
  const void* panels;     // panels of the keys from first_panel on
  int64_t first_panel;
  int64_t head_dim;
  int64_t rows;           // rows that count; the last group is filled up with zeros
  const int64_t* from;    // first key that a row sees, [rows]
  const int64_t* to;      // one past the last
  const double* divisors; // temperature of each row
  double scale, softcap;
  bool moments;
  double* sums;           // [rows, kScoreSums]
};

struct ScoreKernel {
  int64_t keys_per_panel;
  int64_t rows_per_group;
  void (*pack_keys)(const void* keys, int64_t stride, int64_t count, int64_t head_dim, void* panel);
  void (*pack_queries)(const void* queries, int64_t stride, int64_t count, int64_t head_dim, void* group);
  void (*rows)(const ScoreRows& rows);
};

struct ScoreKernels {
  ScoreKernel f32, f64;
};

extern const ScoreKernels kScoreKernelsBaseline;
#if defined(__x86_64__)
extern const ScoreKernels kScoreKernelsAvx2;
extern const ScoreKernels kScoreKernelsAvx512;
#endif

}  // namespace surprisal
