// cryoDRGN's residual MLP in bfloat16, forward and backward, a tile of rows at a time.
//
// The mathematics is that of lightning_modules/residual_mlp.py:
//
//     h_l+1 = f(u_l),  u_l = h_l W_l^T + b_l [+ h_l],  no f after the last
//     dW_l = g_l^T h_l,  db_l = sum of g_l over rows,  dh_l = g_l W_l [+ g_l],  g_l-1 = dh_l * f'(u_l-1)
//
// A tile goes through all layers while it is in a core's cache: what lies between two products (bias, residual,
// activation, rounding) costs no pass over memory. The products are oneDNN's, by torch's cpublas::brgemm. Each thread
// takes a stretch of the rows, and sums of gradients are added up thread after thread: the same number of threads gives
// the same bits.

#include <omp.h>

#include "bfloat16.h"
#include "slices.h"

namespace {

constexpr i64 TILE = 128;  // rows: they, a layer's weights and the gradient of these fit a cache of 1 MB

// The rows of a thread, cut into tiles of an even number of rows each, the last of all perhaps excepted.
struct Tiles {
  i64 first, end, size;
  Tiles(i64 rows, i64 thread, i64 threads) {
    const i64 each = (rows + 2 * threads - 1) / (2 * threads) * 2;
    first = std::min(rows, each * thread), end = std::min(rows, first + each);
    const i64 tiles = std::max<i64>(1, (each + TILE - 1) / TILE);
    size = (each + 2 * tiles - 1) / (2 * tiles) * 2;
  }
};

__m512 times(__m512 values, float slope) {
  return slope ? _mm512_mul_ps(values, _mm512_set1_ps(slope)) : _mm512_setzero_ps();
}

__m512 activate(__m512 u, float slope) {  // NaNs stay NaNs
  return _mm512_mask_mov_ps(u, _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_LE_OQ), times(u, slope));
}

__m512 gate(__m512 gradient, __m512 h, float slope) {
  return _mm512_mask_mov_ps(times(gradient, slope), _mm512_cmp_ps_mask(h, _mm512_setzero_ps(), _CMP_GT_OQ), gradient);
}

void add_to(float* sums, __m512 values) { _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), values)); }

// One row of the last layer, of few units: plain products in float32.
void last_forward(const Layer& last, const u16* h, float* out) {
  for (i64 o = 0; o < last.outputs; o++) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 c = 0; c < last.inputs; c += 16)
      sum = _mm512_fmadd_ps(widen(h + c), _mm512_loadu_ps(last.weight + o * last.stride + c), sum);
    out[o] = last.bias[o] + _mm512_reduce_add_ps(sum);
  }
}

void last_backward(const Layer& last, const u16* h, const float* g, float slope, float* dw, float* db, float* db_below,
                   u16* g_below) {
  for (i64 o = 0; o < last.outputs; o++) db[o] += g[o];
  for (i64 c = 0; c < last.inputs; c += 16) {
    const __m512 hidden = widen(h + c);
    __m512 dh = _mm512_setzero_ps();
    for (i64 o = 0; o < last.outputs; o++) {
      const __m512 each = _mm512_set1_ps(g[o]);
      dh = _mm512_fmadd_ps(each, _mm512_loadu_ps(last.weight + o * last.stride + c), dh);
      float* sums = dw + o * last.inputs + c;
      _mm512_storeu_ps(sums, _mm512_fmadd_ps(each, hidden, _mm512_loadu_ps(sums)));
    }
    dh = gate(dh, hidden, slope);
    add_to(db_below + c, dh);
    narrow(g_below + c, dh);
  }
}

}  // namespace

extern "C" {

// Whether brgemm is there and takes matrices as they are packed here: whole numbers are multiplied and added exactly.
int usable() {
  constexpr i64 M = 18, N = 48, K = 70;
  u16 a[M * K], b[K * N], packed[K * N];
  float found[M * N];
  for (int i = 0; i < M * K; i++) a[i] = narrow(i % 5 - 1);
  for (int i = 0; i < K * N; i++) b[i] = narrow(i % 7 - 2);
  interleave(b, K, N, packed);
  try {
    for (bool add : {false, true}) multiply(M, N, K, add, a, packed, found);
    at::native::cpublas::brgemm_release(true);
  } catch (...) {
    return false;
  }
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++)
      for (int k = 0; k < K; k++) found[m * N + n] -= 2 * ((m * K + k) % 5 - 1) * ((k * N + n) % 7 - 2);
  return std::all_of(found, found + M * N, [](float difference) { return difference == 0; });
}

// Evaluate the network on rows of layers[0].hidden; the hidden rows of the others are written, and out (rows, outputs).
// With slices, layers[0].hidden is written, too, and out is (items, 2 n_points). All layers but the last have outputs
// that are a multiple of 16; inputs of the first are even.
void residual_mlp_forward(i64 rows, i64 items, i64 n_layers, const Layer* layers, const Slices* slices, float slope,
                          float* out, i64 threads) {
  const Layer& last = layers[n_layers - 1];
  i64 offset[64] = {0}, widest = 0;
  for (i64 l = 0; l + 1 < n_layers; l++) {
    offset[l + 1] = offset[l] + layers[l].inputs * layers[l].outputs;
    widest = std::max(widest, layers[l].outputs);
  }
  const Buffer<u16> packed(offset[n_layers - 1]);
#pragma omp parallel num_threads(threads)
  {
    for (i64 l = 0; l + 1 < n_layers; l++) {
#pragma omp for schedule(static) nowait
      for (i64 n = 0; n < layers[l].outputs; n += 16) pack_transposed(layers[l], n, packed + offset[l]);
    }
#pragma omp barrier
    const Tiles tiles(rows, omp_get_thread_num(), omp_get_num_threads());
    const Buffer<float> product(tiles.size * widest);
    for (i64 r0 = tiles.first; r0 < tiles.end; r0 += tiles.size) {
      const i64 n_rows = std::min(tiles.size, tiles.end - r0);
      for (i64 r = r0; slices && r < r0 + n_rows; r++) encode(*slices, r, layers[0].hidden + r * layers[0].inputs);
      for (i64 l = 0; l + 1 < n_layers; l++) {
        const Layer& layer = layers[l];
        const i64 width = layer.outputs;
        multiply(n_rows, width, layer.inputs, false, layer.hidden + r0 * layer.inputs, packed + offset[l], product);
        for (i64 r = 0; r < n_rows; r++) {
          const float* bias = layer.bias + (l ? 0 : (r0 + r) / (rows / items) * width);
          const u16* h = layer.hidden + (r0 + r) * layer.inputs;
          u16* to = layers[l + 1].hidden + (r0 + r) * width;
          for (i64 c = 0; c < width; c += 16) {
            __m512 u = _mm512_add_ps(_mm512_loadu_ps(product + r * width + c), _mm512_loadu_ps(bias + c));
            if (layer.residual) u = _mm512_add_ps(u, widen(h + c));
            narrow(to + c, activate(u, slope));
          }
          if (l + 2 < n_layers) continue;
          if (!slices) {
            last_forward(last, to, out + (r0 + r) * last.outputs);
          } else {
            float parts[2];
            last_forward(last, to, parts);
            const Pair pair(*slices, r0 + r);
            out[pair.at] = parts[0] - parts[1] * slices->sides[r0 + r];
            out[pair.opposite] = parts[0] + parts[1] * slices->sides[r0 + r];
          }
        }
      }
    }
    at::native::cpublas::brgemm_release(true);
  }
}

// Gradients of weights and biases, given that of out: dw[l] is (outputs, inputs) without gaps, db[l] (outputs,), db[0]
// (items, outputs), dx (rows, inputs). What is null is not asked for.
void residual_mlp_backward(i64 rows, i64 items, i64 n_layers, const Layer* layers, const Slices* slices, float slope,
                           const float* gradient, float* const* dw, float* const* db, u16* dx, i64 threads) {
  const i64 top = n_layers - 1, lowest = dx ? 0 : 1;
  i64 packed_at[65] = {0}, dw_at[65] = {0}, db_at[65] = {0}, widest = 0;
  for (i64 l = 0; l < n_layers; l++) {
    packed_at[l + 1] = packed_at[l] + (l < top ? layers[l].inputs * layers[l].outputs : 0);
    dw_at[l + 1] = dw_at[l] + layers[l].inputs * layers[l].outputs;
    db_at[l + 1] = db_at[l] + (l ? 1 : items) * layers[l].outputs;
    widest = std::max(widest, layers[l].inputs);
    if (l < top) widest = std::max(widest, layers[l].outputs);
  }
  const i64 n_dw = dw_at[n_layers], n_sums = n_dw + db_at[n_layers];
  const Buffer<u16> packed(packed_at[n_layers]);
  const Buffer<float> sums(threads * n_sums);  // of each thread: all dw, then all db
#pragma omp parallel num_threads(threads)
  {
    const i64 thread = omp_get_thread_num(), n_threads = omp_get_num_threads();
    const Tiles tiles(rows, thread, n_threads);
    float* own = sums + thread * n_sums;
    std::fill(own, own + n_sums, 0.f);
    const Buffer<u16> g0(tiles.size * widest), g1(tiles.size * widest), pairs(tiles.size * widest);
    const Buffer<u16> transposed(tiles.size * widest), rounded(2 * widest);
    const Buffer<float> product(tiles.size * widest);
    for (i64 l = lowest; l < top; l++) {
#pragma omp for schedule(static) nowait
      for (i64 o = 0; o < layers[l].outputs; o += 2) pack_pair(layers[l], o, packed + packed_at[l], rounded);
    }
#pragma omp barrier
    for (i64 r0 = tiles.first; r0 < tiles.end; r0 += tiles.size) {
      const i64 n_rows = std::min(tiles.size, tiles.end - r0), even = (n_rows + 1) / 2 * 2;
      u16 *g = g0, *below = g1;
      const auto db_of = [&](i64 l, i64 r) {
        return own + n_dw + db_at[l] + (l ? 0 : (r0 + r) / (rows / items) * layers[0].outputs);
      };
      for (i64 r = 0; r < n_rows; r++) {
        const Layer& last = layers[top];
        const float* of_row = gradient + (r0 + r) * last.outputs;
        float parts[2];
        if (slices) {
          const Pair pair(*slices, r0 + r);
          parts[0] = gradient[pair.at] + gradient[pair.opposite];
          parts[1] = (gradient[pair.opposite] - gradient[pair.at]) * slices->sides[r0 + r];
          of_row = parts;
        }
        last_backward(last, last.hidden + (r0 + r) * last.inputs, of_row, slope, own + dw_at[top],
                      own + n_dw + db_at[top], db_of(top - 1, r), g + r * last.inputs);
      }
      for (i64 l = top - 1; l >= 0; l--) {
        const Layer& layer = layers[l];
        const i64 width = layer.inputs;
        const u16* h = layer.hidden + r0 * width;
        if (dw[l]) {
          interleave(g, n_rows, layer.outputs, pairs);
          transpose((const u32*)pairs.values, even / 2, layer.outputs, (u32*)transposed.values);
          interleave(h, n_rows, width, pairs);
          multiply(layer.outputs, width, even, true, transposed, pairs, own + dw_at[l]);
        }
        if (l < lowest) continue;
        multiply(n_rows, width, layer.outputs, false, g, packed + packed_at[l], product);
        for (i64 r = 0; r < n_rows; r++) {
          u16* to = l ? below + r * width : dx + (r0 + r) * width;
          float* db_below = l ? db_of(l - 1, r) : nullptr;
          for (i64 c = 0; c < width; c += 16) {
            __m512 dh = _mm512_loadu_ps(product + r * width + c);
            if (layer.residual) dh = _mm512_add_ps(dh, widen(g + r * width + c));
            if (l) {
              dh = gate(dh, widen(h + r * width + c), slope);
              add_to(db_below + c, dh);
            }
            narrow(to + c, dh);
          }
        }
        std::swap(g, below);
      }
    }
    at::native::cpublas::brgemm_release(true);
#pragma omp barrier
    for (i64 l = 0; l < n_layers; l++)
      for (int is_bias = 0; is_bias < 2; is_bias++) {
        const i64 at = is_bias ? n_dw + db_at[l] : dw_at[l];
        const i64 n = is_bias ? db_at[l + 1] - db_at[l] : dw_at[l + 1] - dw_at[l];
        float* to = is_bias ? db[l] : dw[l];
        if (!to) continue;
#pragma omp for schedule(static) nowait
        for (i64 i = 0; i < n; i++) {
          float sum = sums[at + i];
          for (i64 t = 1; t < n_threads; t++) sum += sums[t * n_sums + at + i];
          to[i] = sum;
        }
      }
  }
}
}
