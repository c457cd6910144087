// Causal self-attention of whole windows with its gradient: rotary embedding, softmax(scale q.k) v for every head, and
// back. Scores are formed again in the backward pass from the logarithm of each row's sum, so that nothing of the size
// of length squared exists. The work is split by windows and heads of keys: the same bits for any number of threads.
#pragma once
#include <cstdint>

namespace surprisal {

struct SelfAttention {
  const float* queries;  // [batch, length, heads, head_dim]
  const float* keys;     // [batch, length, kv_heads, head_dim]
  const float* values;   // as the keys
  const float* cosines;  // [length, rope_dims / 2]; null where nothing is turned
  const float* sines;
  float* mixed;  // as the queries: what the heads give; read by the backward pass
  float* sums;   // [batch, heads, length]: logarithm of the sum of exponentials; read by the backward pass
  // The backward pass alone:
  const float* mixed_gradient;
  float* queries_gradient;
  float* keys_gradient;
  float* values_gradient;
  int64_t batch, length, heads, kv_heads, head_dim, rope_dims;
  int64_t window;  // keys that a query sees at most, its own included; 0 for all
  float scale;
  float softcap;  // scores become softcap tanh(score / softcap); 0 for none
};

void self_attention_forward(const SelfAttention& request, int threads);
void self_attention_backward(const SelfAttention& request, int threads);

// One window and head of keys, with the heads of queries that share it.
struct SelfAttentionLoops {
  void (*forward)(const SelfAttention&, int64_t window, int64_t kv_head);
  void (*backward)(const SelfAttention&, int64_t window, int64_t kv_head);
};
extern const SelfAttentionLoops kSelfAttentionBaseline;
extern const SelfAttentionLoops kSelfAttentionAvx2;
extern const SelfAttentionLoops kSelfAttentionAvx512;

}  // namespace surprisal
