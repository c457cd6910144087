// Attention of new positions over keys and values that are kept: softmax(scale q.k) v for every head, causal.
// Every output depends on its own query and the keys that it sees alone, added in the order of their positions: the same
// bits whatever else is in the batch, however a sequence was cut into calls, and for any number of threads and any
// instruction set.
#pragma once
#include <cstdint>

namespace surprisal {

struct AttentionRequest {
  const float* queries;  // [rows, count, heads, head_dim]
  const float* keys;     // [rows, count, kv_heads, head_dim], put into the cache first
  const float* values;   // as the keys
  float* key_cache;      // [rows, kv_heads, capacity, head_dim]
  float* value_cache;    // as the keys
  float* out;            // [rows, count, heads, head_dim]
  const int32_t* starts;  // [rows]: position of the first of the new ones
  int64_t rows, count, heads, kv_heads, head_dim, capacity;
  int64_t window;  // keys that a query sees at most, its own included; 0 for all
  float scale;
  float softcap;  // scores become softcap tanh(score / softcap); 0 for none
};

// head_dim is a multiple of 8.
void cached_attention(const AttentionRequest& request, int threads);

// Queries that share the keys of one head and are served in one pass over them.
constexpr int kMostQueries = 4;

struct QueryBlock {
  const float* queries[kMostQueries];
  float* outs[kMostQueries];
  int64_t from[kMostQueries], to[kMostQueries];  // keys that each sees
  int count;
  const float* keys;    // [capacity, head_dim]
  const float* values;  // [capacity, head_dim]
  int64_t head_dim;
  float scale, softcap;
  float* scores;  // [kMostQueries, stride]
  int64_t stride;  // largest `to`, rounded up to 8
};

using AttentionKernel = void (*)(const QueryBlock&);
extern const AttentionKernel kAttentionBaseline;
extern const AttentionKernel kAttentionAvx2;
extern const AttentionKernel kAttentionAvx512;

}  // namespace surprisal
