// cryoDRGN's residual MLP in bfloat16, forward and backward, a tile of rows at a time.
//
// The mathematics is that of lightning_modules/networks/residual_mlp.py:
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

constexpr i64 TILE = 128;  // rows: they, a layer's weights and the gradient of these fit a second-level cache of 1 MB
constexpr i64 MOST_LAYERS = 64, MOST_OUTPUTS = 8;

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

// The network, and what is the same for all of its rows.
struct Network {
  i64 rows, items, top;
  const Layer<u16>* layers;
  const Slices* slices;
  float slope;
  i64 widest, packed_at[MOST_LAYERS + 1], dw_at[MOST_LAYERS + 1], db_at[MOST_LAYERS + 1];

  Network(i64 rows, i64 items, i64 n_layers, const Layer<u16>* layers, const Slices* slices, float slope)
      : rows(rows), items(items), top(n_layers - 1), layers(layers), slices(slices), slope(slope), widest(0),
        packed_at{0}, dw_at{0}, db_at{0} {
    for (i64 l = 0; l <= top; l++) {
      const i64 size = layers[l].inputs * layers[l].outputs;
      packed_at[l + 1] = packed_at[l] + (l < top ? size : 0);
      dw_at[l + 1] = dw_at[l] + size;
      db_at[l + 1] = db_at[l] + (l ? 1 : items) * layers[l].outputs;
      widest = std::max({widest, layers[l].inputs, l < top ? layers[l].outputs : 0});
    }
  }
  i64 item(i64 row) const { return row / (rows / items); }
  i64 n_sums() const { return dw_at[top + 1] + db_at[top + 1]; }
};

// One row of the last layer, of few units: plain products in float32.
void last_forward(const Network& net, i64 row, float* out) {
  const Layer<u16>& last = net.layers[net.top];
  const u16* h = last.hidden + row * last.inputs;
  float parts[MOST_OUTPUTS];
  for (i64 o = 0; o < last.outputs; o++) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 c = 0; c < last.inputs; c += 16)
      sum = _mm512_fmadd_ps(widen(h + c), _mm512_loadu_ps(last.weight + o * last.stride + c), sum);
    parts[o] = last.bias[o] + _mm512_reduce_add_ps(sum);
  }
  if (net.slices) {
    const Pair pair(*net.slices, row);
    out[pair.at] = parts[0] - parts[1] * net.slices->sides[row];
    out[pair.opposite] = parts[0] + parts[1] * net.slices->sides[row];
  } else {
    std::copy(parts, parts + last.outputs, out + row * last.outputs);
  }
}

// A layer but the last, on some rows: what it gives is what the next is given.
void layer_forward(const Network& net, i64 l, i64 row, i64 n_rows, const u16* packed, float* product) {
  const Layer<u16>& layer = net.layers[l];
  const i64 width = layer.outputs;
  const bool adds = layer.residual;
  const u16* h = layer.hidden + row * layer.inputs;
  u16* to = net.layers[l + 1].hidden + row * width;
  multiply(n_rows, width, layer.inputs, false, h, packed + net.packed_at[l], product);
  for (i64 r = 0; r < n_rows; r++) {
    const float* bias = layer.bias + (l ? 0 : net.item(row + r) * width);
    for (i64 c = r * width; c < (r + 1) * width; c += 16) {
      __m512 u = _mm512_add_ps(_mm512_loadu_ps(product + c), _mm512_loadu_ps(bias + c - r * width));
      if (adds) u = _mm512_add_ps(u, widen(h + c));
      narrow(to + c, activate(u, net.slope));
    }
  }
}

// What a thread has summed up: dW of all layers, then their db, that of the first by item.
struct Sums {
  const Network& net;
  float* values;
  float* dw(i64 l) const { return values + net.dw_at[l]; }
  float* db(i64 l, i64 row) const {
    return values + net.dw_at[net.top + 1] + net.db_at[l] + (l ? 0 : net.item(row) * net.layers[0].outputs);
  }
};

// One row of the last layer: from the gradient of what it gives to that of the layer below, g (inputs,).
void last_backward(const Network& net, i64 row, const float* gradient, const Sums& sums, u16* g) {
  const Layer<u16>& last = net.layers[net.top];
  const u16* h = last.hidden + row * last.inputs;
  float *db = sums.db(net.top, row), *db_below = sums.db(net.top - 1, row), pair_of[2];
  const float* parts = gradient + row * last.outputs;
  if (net.slices) {
    const Pair pair(*net.slices, row);
    pair_of[0] = gradient[pair.at] + gradient[pair.opposite];
    pair_of[1] = (gradient[pair.opposite] - gradient[pair.at]) * net.slices->sides[row];
    parts = pair_of;
  }
  for (i64 o = 0; o < last.outputs; o++) db[o] += parts[o];
  for (i64 c = 0; c < last.inputs; c += 16) {
    const __m512 hidden = widen(h + c);
    __m512 dh = _mm512_setzero_ps();
    for (i64 o = 0; o < last.outputs; o++) {
      const __m512 each = _mm512_set1_ps(parts[o]);
      dh = _mm512_fmadd_ps(each, _mm512_loadu_ps(last.weight + o * last.stride + c), dh);
      add_to(sums.dw(net.top) + o * last.inputs + c, _mm512_mul_ps(each, hidden));
    }
    dh = gate(dh, hidden, net.slope);
    add_to(db_below + c, dh);
    narrow(g + c, dh);
  }
}

// dW of a layer, from its gradient g (n_rows, outputs) and what it was given.
void weight_gradient(const Network& net, i64 l, i64 row, i64 n_rows, const u16* g, const Sums& sums, u16* scratch) {
  const Layer<u16>& layer = net.layers[l];
  u16 *transposed = scratch, *pairs = scratch + TILE * net.widest;
  transpose(g, n_rows, layer.outputs, transposed);
  interleave(layer.hidden + row * layer.inputs, n_rows, layer.inputs, pairs);
  multiply(layer.outputs, layer.inputs, (n_rows + 1) / 2 * 2, true, transposed, pairs, sums.dw(l));
}

// From the gradient g (n_rows, outputs) of a layer to that of the layer below, (n_rows, inputs), or to dx.
void layer_backward(const Network& net, i64 l, i64 row, i64 n_rows, const u16* packed, const u16* g, const Sums& sums,
                    float* product, u16* below) {
  const Layer<u16>& layer = net.layers[l];
  const i64 width = layer.inputs;
  const bool adds = layer.residual;
  const u16* h = layer.hidden + row * width;
  multiply(n_rows, width, layer.outputs, false, g, packed + net.packed_at[l], product);
  for (i64 r = 0; r < n_rows; r++) {
    float* db_below = l ? sums.db(l - 1, row + r) : nullptr;
    for (i64 c = r * width; c < (r + 1) * width; c += 16) {
      __m512 dh = _mm512_loadu_ps(product + c);
      if (adds) dh = _mm512_add_ps(dh, widen(g + c));
      if (l) {
        dh = gate(dh, widen(h + c), net.slope);
        add_to(db_below + c - r * width, dh);
      }
      narrow(below + c, dh);
    }
  }
}

// A tile through all layers, from the last to the first.
void tile_backward(const Network& net, i64 row, i64 n_rows, const u16* packed, const float* gradient, const Sums& sums,
                   float* const* dw, u16* dx, float* product, u16* scratch) {
  const i64 size = TILE * net.widest;
  u16 *g = scratch, *below = scratch + size;
  for (i64 r = 0; r < n_rows; r++) last_backward(net, row + r, gradient, sums, g + r * net.layers[net.top].inputs);
  for (i64 l = net.top - 1; l >= 0; l--) {
    if (dw[l]) weight_gradient(net, l, row, n_rows, g, sums, scratch + 2 * size);
    if (!l && !dx) return;
    u16* to = l ? below : dx + row * net.layers[0].inputs;
    layer_backward(net, l, row, n_rows, packed, g, sums, product, to);
    std::swap(g, below);
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
void residual_mlp_forward(i64 rows, i64 items, i64 n_layers, const Layer<u16>* layers, const Slices* slices,
                          float slope, float* out, i64 threads) {
  const Network net(rows, items, n_layers, layers, slices, slope);
  const Buffer<u16> packed(net.packed_at[net.top]);
#pragma omp parallel num_threads(threads)
  {
    for (i64 l = 0; l < net.top; l++) {
#pragma omp for schedule(static) nowait
      for (i64 n = 0; n < layers[l].outputs; n += 16) pack_transposed(layers[l], n, packed + net.packed_at[l]);
    }
#pragma omp barrier
    const Buffer<float> product(TILE * net.widest);
    const Tiles tiles(rows, omp_get_thread_num(), omp_get_num_threads());
    for (i64 row = tiles.first; row < tiles.end; row += tiles.size) {
      const i64 end = std::min(row + tiles.size, tiles.end);
      for (i64 r = row; slices && r < end; r++) encode(*slices, r, layers[0].hidden + r * layers[0].inputs);
      for (i64 l = 0; l < net.top; l++) layer_forward(net, l, row, end - row, packed, product);
      for (i64 r = row; r < end; r++) last_forward(net, r, out);
    }
    at::native::cpublas::brgemm_release(true);
  }
}

// Gradients of weights and biases, given that of out: dw[l] is (outputs, inputs) without gaps, db[l] (outputs,), db[0]
// (items, outputs), dx (rows, inputs). What is null is not asked for.
void residual_mlp_backward(i64 rows, i64 items, i64 n_layers, const Layer<u16>* layers, const Slices* slices,
                           float slope, const float* gradient, float* const* dw, float* const* db, u16* dx,
                           i64 threads) {
  const Network net(rows, items, n_layers, layers, slices, slope);
  const i64 n_sums = net.n_sums(), n_dw = net.dw_at[n_layers];
  const Buffer<u16> packed(net.packed_at[net.top]);
  const Buffer<float> all_sums(threads * n_sums);
#pragma omp parallel num_threads(threads)
  {
    const i64 thread = omp_get_thread_num(), n_threads = omp_get_num_threads();
    const Sums own{net, all_sums + thread * n_sums};
    std::fill(own.values, own.values + n_sums, 0.f);
    const Buffer<float> product(TILE * net.widest);
    const Buffer<u16> scratch(4 * TILE * net.widest);
    for (i64 l = dx ? 0 : 1; l < net.top; l++) {
#pragma omp for schedule(static) nowait
      for (i64 o = 0; o < layers[l].outputs; o += 2) pack_pair(layers[l], o, packed + net.packed_at[l], scratch);
    }
#pragma omp barrier
    const Tiles tiles(rows, thread, n_threads);
    for (i64 row = tiles.first; row < tiles.end; row += tiles.size)
      tile_backward(net, row, std::min(tiles.size, tiles.end - row), packed, gradient, own, dw, dx, product, scratch);
    at::native::cpublas::brgemm_release(true);
#pragma omp barrier
    for (i64 l = 0; l < n_layers; l++)
      for (bool is_bias : {false, true}) {
        const i64 *at = is_bias ? net.db_at : net.dw_at, first = (is_bias ? n_dw : 0) + at[l], n = at[l + 1] - at[l];
        float* to = is_bias ? db[l] : dw[l];
        if (!to) continue;
#pragma omp for schedule(static) nowait
        for (i64 i = 0; i < n; i++) {
          float sum = all_sums[first + i];
          for (i64 t = 1; t < n_threads; t++) sum += all_sums[t * n_sums + first + i];
          to[i] = sum;
        }
      }
  }
}
}
