// cryoDRGN's residual MLP in float32 on a minibatch of few rows, forward and backward: the encoder's.
//
// Of so few rows, reading the weights takes longer than using them. Each pass goes over them once, in order: forward,
// and backward, which gives dW and dh together. The mathematics is that of residual_mlp.cpp.

#include <omp.h>

#include "layers.h"

namespace {

constexpr i64 ROWS = 8, PAIR = 2, STRIP = 8;  // of a minibatch; outputs at a time, forward and backward: the registers

__mmask16 there(i64 n) { return n < 16 ? (1 << n) - 1 : 0xffff; }

float activate(float u, float slope) { return !(u <= 0) ? u : slope ? slope * u : 0; }  // NaNs stay NaNs

struct Stretch {  // a thread's part of n, in whole groups
  i64 first, end;
  Stretch(i64 n, i64 group) {
    const i64 threads = omp_get_num_threads(), groups = (n + group - 1) / group;
    const i64 each = (groups + threads - 1) / threads;
    first = std::min(n, each * group * omp_get_thread_num()), end = std::min(n, first + each * group);
  }
};

// u = h W^T + b [+ h] for a pair of outputs, or f(u).
void pair_forward(const Layer<float>& layer, i64 o, i64 row, i64 rows, bool last, float slope, float* to) {
  const i64 n_rows = std::min(ROWS, rows - row), n_outputs = std::min(PAIR, layer.outputs - o);
  const float *w[PAIR], *h[ROWS];
  for (i64 p = 0; p < PAIR; p++) w[p] = layer.weight + (o + std::min(p, n_outputs - 1)) * layer.stride;
  for (i64 r = 0; r < ROWS; r++) h[r] = layer.hidden + (row + std::min(r, n_rows - 1)) * layer.inputs;
  __m512 sums[PAIR][ROWS];
  for (auto& each : sums)
    for (auto& sum : each) sum = _mm512_setzero_ps();
  for (i64 k = 0; k < layer.inputs; k += 16) {
    const __mmask16 mask = there(layer.inputs - k);
    for (const float* each : w) _mm_prefetch((const char*)(each + PAIR * layer.stride + k), _MM_HINT_T0);
    const __m512 first = _mm512_maskz_loadu_ps(mask, w[0] + k), second = _mm512_maskz_loadu_ps(mask, w[1] + k);
    for (i64 r = 0; r < ROWS; r++) {
      const __m512 x = _mm512_maskz_loadu_ps(mask, h[r] + k);
      sums[0][r] = _mm512_fmadd_ps(first, x, sums[0][r]);
      sums[1][r] = _mm512_fmadd_ps(second, x, sums[1][r]);
    }
  }
  for (i64 p = 0; p < n_outputs; p++)
    for (i64 r = 0; r < n_rows; r++) {
      float u = _mm512_reduce_add_ps(sums[p][r]) + layer.bias[o + p];
      if (layer.residual) u += h[r][o + p];
      to[(row + r) * layer.outputs + o + p] = last ? u : activate(u, slope);
    }
}

// dW of some outputs, and what they add to dh = g W, in sums (rows, inputs).
template <bool wants_dh>
void strip_backward(const Layer<float>& layer, i64 o, i64 row, i64 rows, const float* g, float* dw, float* sums) {
  const i64 n_rows = std::min(ROWS, rows - row), n_outputs = std::min(STRIP, layer.outputs - o), inputs = layer.inputs;
  alignas(64) float of[STRIP][ROWS]{};
  for (i64 s = 0; s < n_outputs; s++)
    for (i64 r = 0; r < n_rows; r++) of[s][r] = g[(row + r) * layer.outputs + o + s];
  for (i64 k = 0; k < inputs; k += 16) {
    const __mmask16 mask = there(inputs - k);
    __m512 h[ROWS], dh[ROWS];
    for (i64 r = 0; r < ROWS; r++) {
      const __mmask16 valid = r < n_rows ? mask : 0;
      h[r] = _mm512_maskz_loadu_ps(valid, layer.hidden + (row + r) * inputs + k);
      if (wants_dh) dh[r] = _mm512_maskz_loadu_ps(valid, sums + (row + r) * inputs + k);
    }
    for (i64 s = 0; s < n_outputs; s++) {
      float* to = dw + (o + s) * inputs + k;
      const __m512 w = _mm512_maskz_loadu_ps(mask, layer.weight + (o + s) * layer.stride + k);
      __m512 sum = row ? _mm512_maskz_loadu_ps(mask, to) : _mm512_setzero_ps();
      for (i64 r = 0; r < ROWS; r++) {
        const __m512 each = _mm512_set1_ps(of[s][r]);
        sum = _mm512_fmadd_ps(each, h[r], sum);
        if (wants_dh) dh[r] = _mm512_fmadd_ps(each, w, dh[r]);
      }
      _mm512_mask_storeu_ps(to, mask, sum);
    }
    for (i64 r = 0; wants_dh && r < n_rows; r++) _mm512_mask_storeu_ps(sums + (row + r) * inputs + k, mask, dh[r]);
  }
}

}  // namespace

extern "C" {

// Evaluate the network on rows of layers[0].hidden; the hidden rows of the others are written, and out (rows, outputs).
void few_rows_forward(i64 rows, i64 n_layers, const Layer<float>* layers, float slope, float* out, i64 threads) {
#pragma omp parallel num_threads(threads)
  for (i64 l = 0; l < n_layers; l++) {
    const Stretch own(layers[l].outputs, PAIR);
    const bool last = l + 1 == n_layers;
    for (i64 o = own.first; o < own.end; o += PAIR)
      for (i64 row = 0; row < rows; row += ROWS)
        pair_forward(layers[l], o, row, rows, last, slope, last ? out : layers[l + 1].hidden);
#pragma omp barrier
  }
}

// Gradients of weights and biases, given that of out: dw[l] is (outputs, inputs) without gaps, db[l] (outputs,).
void few_rows_backward(i64 rows, i64 n_layers, const Layer<float>* layers, float slope, const float* gradient,
                       float* const* dw, float* const* db, i64 threads) {
  i64 widest = 0;
  for (i64 l = 1; l < n_layers; l++) widest = std::max(widest, layers[l].inputs);
  const Buffer<float> sums(threads * rows * widest), below(2 * rows * widest);
#pragma omp parallel num_threads(threads)
  {
    const i64 n_threads = omp_get_num_threads();
    const float* g = gradient;
    for (i64 l = n_layers - 1; l >= 0; l--) {
      const Layer<float>& layer = layers[l];
      const Stretch own(layer.outputs, STRIP);
      float* of_thread = sums + omp_get_thread_num() * rows * widest;
      if (l) std::fill(of_thread, of_thread + rows * layer.inputs, 0.f);
      for (i64 o = own.first; o < own.end; o += STRIP)
        for (i64 row = 0; row < rows; row += ROWS)
          (l ? strip_backward<true> : strip_backward<false>)(layer, o, row, rows, g, dw[l], of_thread);
      for (i64 o = own.first; o < own.end; o++) {
        db[l][o] = 0;
        for (i64 r = 0; r < rows; r++) db[l][o] += g[r * layer.outputs + o];
      }
#pragma omp barrier
      if (!l) break;
      float* to = below + l % 2 * rows * widest;
#pragma omp for schedule(static)
      for (i64 i = 0; i < rows * layer.inputs; i++) {
        float dh = layer.residual ? g[i] : 0;
        for (i64 t = 0; t < n_threads; t++) dh += sums[t * rows * widest + i];
        to[i] = layer.hidden[i] > 0 ? dh : slope ? slope * dh : 0;
      }
      g = to;
    }
  }
}
}
