/** What became of a member of a group. */
export type MemberRecord = {
  readonly expert: number;
  readonly usage: number;
  /** Weight in the mean, normalised over the group. */
  readonly weight: number;
  /** To the dominant, in the basis of the settings; null where the method compares otherwise. */
  readonly similarity: number | null;
  /** Of the alignment to the dominant; null for the dominant itself and where nothing was aligned. */
  readonly alignment: {
    readonly gain_before: number;
    readonly gain: number;
    readonly gain_bound: number;
    readonly gap: number;
    readonly squared_distance_before: number | null;
    readonly squared_distance_after: number | null;
    readonly correlated_tokens: number | null;
  } | null;
};

export type RankRecord = { readonly stable_rank: number; readonly effective_rank: number };

export type GroupRecord = {
  readonly group: number;
  readonly dominant: number;
  readonly members: readonly MemberRecord[];
  /** Bytes of the source's expert, not computed. */
  readonly unchanged: boolean;
  readonly refit: {
    readonly tokens: number;
    readonly lambda: number;
    readonly path: 'cholesky' | 'conjugate-gradients';
    readonly residual: number;
  } | null;
  /** Means over the matrices of the dominant before, and of the merged expert; null where ranks were not asked for. */
  readonly dominant_ranks: RankRecord | null;
  readonly merged_ranks: RankRecord | null;
  /** Share of the squared singular values that a truncated joint SVD keeps, mean over the matrices. */
  readonly joint_energy: number | null;
};

export type LayerRecord = {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly experts_before: number;
  readonly experts_after: number;
  readonly groups: readonly GroupRecord[];
  readonly dropped: readonly { readonly expert: number; readonly usage: number }[];
  /** Experts that no calibration token chose; null without statistics. */
  readonly never_used: readonly number[] | null;
  /** Tokens of the least used expert that was used at all; null without statistics. */
  readonly fewest_tokens: number | null;
  readonly parameters_before: number;
  readonly parameters_after: number;
  /** Entropy of usage, and of usage summed by groups (of what is left, renormalised, after pruning); null without statistics. */
  readonly usage_entropy_before_nats: number | null;
  readonly usage_entropy_after_nats: number | null;
  readonly entropy_lost_nats: number | null;
  readonly effective_experts_before: number | null;
  readonly effective_experts_after: number | null;
  /** Of fitted router rows: share of the variance of their targets that the rows explain, one a group. */
  readonly router_fit_explained: readonly number[] | null;
  /** Of clusters, -1 to 1; null where the method does not cluster. */
  readonly silhouette: number | null;
  readonly warnings: readonly string[];
};
