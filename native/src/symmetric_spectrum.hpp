// Eigenvalues of a dense symmetric matrix: full to band by blocked reflections at the speed of matrix products, band to
// tridiagonal by chasing bulges (Bischof, Lang & Sun 2000), eigenvalues by rational QR sweeps.
#pragma once
#include <cstdint>

namespace surprisal {

enum class SpectrumOutcome : int { Done = 0, NotFinite = 1, Stalled = 2 };

// Overwrites the matrix [n, n], row-major, of which the lower triangle is read; `values` [n] come out ascending. A
// matrix that holds NaN or an infinity is left as it was.
SpectrumOutcome symmetric_spectrum(double* matrix, int64_t n, double* values, int threads);

// Half-width of the band: a column has its diagonal entry and kBand below. Twice as much halves the reads of the full
// matrix and doubles the work of the chase: as fast at order 3000, slower below.
constexpr int64_t kBand = 32;

// Lower band, by columns: entry (i, j) at data[j * kBandStride + i - j]. The second half of a column is room for bulges.
constexpr int64_t kBandStride = 2 * kBand;
// Columns of zeros behind the last, so that every block of a chase is whole.
constexpr int64_t kBandPadding = 2 * kBand;

// Reduces to the band, which is [n + kBandPadding][kBandStride] and comes filled with zeros.
void reduce_to_band(double* matrix, int64_t n, double* band, int threads);

// Reduces the band to a diagonal [n] and the entries beside it [n - 1].
void reduce_band(double* band, int64_t n, double* diagonal, double* off, int threads);

// Eigenvalues, not sorted, of a tridiagonal matrix, over its diagonal; `off` [n], of which n - 1 are given, is
// overwritten.
bool tridiagonal_values(double* diagonal, double* off, int64_t n);

// A reflection I - factor v v', v[0] = 1.
struct Reflection {
  alignas(64) double v[kBand];
  double factor;
};

constexpr int64_t kMostChain = 8;

struct SpectrumKernels {
  // QR factors of a panel of kBand columns: column j lies at panel + j * stride, stride a multiple of 8, and is zero
  // from `rows` to the next multiple of 8. The columns become the vectors of Q = I - V T V', ones and zeros included;
  // r[j * kBand + i] = R(i, j) for i <= j; t[i * kBand + j] = T(i, j), upper.
  void (*factor_panel)(double* panel, int64_t stride, int64_t rows, double* r, double* t);
  // g[i * kBand + j] = sum of x[i * stride + l] y[j * stride + l] over l < count, a multiple of 8, for j <= i;
  // added to g.
  void (*add_inner_products)(const double* x, const double* y, int64_t stride, int64_t count, double* g);
  // m = -1/2 T' G T, of G [kBand, kBand] the lower triangle being given, T upper.
  void (*middle_factor)(const double* t, double* g, double* m);
  // Direct reduction of a small matrix to tridiagonal form; scratch [2 n].
  void (*reduce_directly)(double* matrix, int64_t n, double* diagonal, double* off, double* scratch);
  // Annihilates the entries of a column of the band below the one beside the diagonal, and applies the reflection to
  // the diagonal block that follows.
  void (*begin_chase)(double* column, Reflection* made);
  // Applies `before` from the right to the block left of the diagonal block that begins at `column`, annihilates that
  // block's first column but for its first entry, and applies the new reflection to both blocks.
  void (*chase)(double* column, const Reflection* before, Reflection* made);
  // One QR sweep for each of chain_length shifts, in their order, over the tridiagonal d[from .. to] with squared
  // couplings e.
  int chain_length;
  void (*sweep_chain)(double* d, double* e, int64_t from, int64_t to, const double* shifts);
};

extern const SpectrumKernels kSpectrumKernelsBaseline;
#if defined(__x86_64__)
extern const SpectrumKernels kSpectrumKernelsAvx2;
extern const SpectrumKernels kSpectrumKernelsAvx512;
#endif

const SpectrumKernels& spectrum_kernels();  // those of this processor

}  // namespace surprisal
