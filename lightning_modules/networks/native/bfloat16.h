// Numbers in bfloat16, and matrices of them as brgemm wants them.
//
// The second matrix B (k, n) of a product comes in pairs of rows: packed[k / 2][n][k % 2].

#pragma once

#include <ATen/native/CPUBlas.h>

#include "layers.h"

namespace {

using u16 = std::uint16_t;  // the bits of a bfloat16
using u32 = std::uint32_t;  // of two

__m512 widen(const u16* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}

void narrow(u16* to, __m512 values) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(values)); }

u16 narrow(float value) { return (u16)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value)), 0); }

// c (m, n) = a (m, k) b (k, n), or c += it; b is packed.
void multiply(i64 m, i64 n, i64 k, bool add, const u16* a, const u16* b, float* c) {
  using at::BFloat16;
  at::native::cpublas::brgemm(m, n, k, k, n, n, add, (const BFloat16*)a, (const BFloat16*)b, c, true);
}

// Write 16 rows of 16 pairs as columns.
void transpose(__m512i (&r)[16], u32* to, i64 stride) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i : {0, 1, 2, 3, 8, 9, 10, 11}) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    _mm512_storeu_si512(to + i * stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 8) * stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
  }
}

// packed[r / 2][c][r % 2] = from[r][c]; a last row by itself is joined by zeros.
void interleave(const u16* from, i64 rows, i64 columns, u16* packed) {
  alignas(64) static constexpr struct Index {
    u16 low[32]{}, high[32]{};
    constexpr Index() {
      for (u16 i = 0; i < 32; i++) low[i] = i / 2 + i % 2 * 32, high[i] = 16 + low[i];
    }
  } index;
  const __m512i low = _mm512_loadu_si512(index.low), high = _mm512_loadu_si512(index.high);
  for (i64 r = 0; r < rows; r += 2) {
    const u16 *a = from + r * columns, *b = a + columns;
    u16* to = packed + r * columns;
    const bool paired = r + 1 < rows;
    i64 c = 0;
    for (; c + 32 <= columns; c += 32) {
      const __m512i x = _mm512_loadu_si512(a + c), y = paired ? _mm512_loadu_si512(b + c) : _mm512_setzero_si512();
      _mm512_storeu_si512(to + 2 * c, _mm512_permutex2var_epi16(x, low, y));
      _mm512_storeu_si512(to + 2 * c + 32, _mm512_permutex2var_epi16(x, high, y));
    }
    for (; c < columns; c++) to[2 * c] = a[c], to[2 * c + 1] = paired ? b[c] : 0;
  }
}

// to[c][r] = from[r][c]; a last row by itself is joined by zeros.
void transpose(const u16* from, i64 rows, i64 columns, u16* to) {
  const i64 pairs = (rows + 1) / 2, whole = rows / 32 * 16, wide = columns / 16 * 16;
  const auto load = [&](i64 row, i64 c) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(from + row * columns + c)));
  };
  for (i64 c = 0; c < wide; c += 16)
    for (i64 r = 0; r < whole; r += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; i++)
        block[i] = _mm512_or_si512(load(2 * (r + i), c), _mm512_slli_epi32(load(2 * (r + i) + 1, c), 16));
      transpose(block, (u32*)to + c * pairs + r, pairs);
    }
  for (i64 r = 0; r < rows; r++)
    for (i64 c = r < 2 * whole ? wide : 0; c < columns; c++) to[c * 2 * pairs + r] = from[r * columns + c];
  for (i64 c = 0; rows % 2 && c < columns; c++) to[c * 2 * pairs + rows] = 0;
}

// Pack 16 rows of a weight as columns of W^T (inputs, outputs): packed[k / 2][n][k % 2] = W[n][k].
void pack_transposed(const Layer<u16>& layer, i64 n0, u16* packed) {
  u32* to = (u32*)packed;
  i64 k = 0;
  if (n0 + 16 <= layer.outputs)
    for (; k + 32 <= layer.inputs; k += 32) {
      __m512i block[16];
      for (int i = 0; i < 16; i++) {
        const float* row = layer.weight + (n0 + i) * layer.stride + k;
        block[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + 16), _mm512_loadu_ps(row));
      }
      transpose(block, to + k / 2 * layer.outputs + n0, layer.outputs);
    }
  for (; k < layer.inputs; k++)
    for (i64 n = n0; n < std::min(n0 + 16, layer.outputs); n++)
      packed[k / 2 * 2 * layer.outputs + 2 * n + k % 2] = narrow(layer.weight[n * layer.stride + k]);
}

// Pack a pair of rows of a weight: packed[o / 2][i][o % 2] = W[o][i].
void pack_pair(const Layer<u16>& layer, i64 o, u16* packed, u16* rounded) {
  for (i64 row = 0; row < 2; row++)
    for (i64 i = 0; i < layer.inputs; i++)
      rounded[row * layer.inputs + i] = narrow(layer.weight[(o + row) * layer.stride + i]);
  interleave(rounded, 2, layer.inputs, packed + o * layer.inputs);
}

}  // namespace
