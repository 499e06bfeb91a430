// Central slices at a pose: what the network is asked at each of their points, and where its answer belongs.
//
// The rows of a slice are the points of one half of the lattice, each turned, and brought to z <= 0. The network sees
// sines and cosines of its coordinates, and gives the transform's real and imaginary part: H(k) = real - imaginary, and
// H(-k) = real + imaginary; the other way round for a point that was brought there.

#pragma once

#include "bfloat16.h"

namespace {

struct Slices {
  i64 n_points, n_frequencies;
  const float *coords, *rotations, *frequencies;  // (n_points, 3), (items, 3, 3), (n_frequencies,)
  float* sides;                                   // (rows,): -1 where the conjugate was asked for, else 1
};

// Sine and cosine, to 1e-6 for |x| < 10,000: x = k pi / 2 + r, and polynomials in r.
void sine_and_cosine(__m512 x, __m512& sine, __m512& cosine) {
  const auto set = [](float value) { return _mm512_set1_ps(value); };
  const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(x, set(0.636619772f)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(k, set(1.57079637f), x);
  r = _mm512_fnmadd_ps(k, set(-4.37113883e-8f), r);
  const __m512 square = _mm512_mul_ps(r, r);
  __m512 s = _mm512_fmadd_ps(square, set(-1.9515296e-4f), set(8.3321609e-3f));
  s = _mm512_fmadd_ps(s, square, set(-1.6666655e-1f));
  s = _mm512_fmadd_ps(_mm512_mul_ps(s, square), r, r);
  __m512 c = _mm512_fmadd_ps(square, set(2.4433157e-5f), set(-1.3887316e-3f));
  c = _mm512_fmadd_ps(c, square, set(4.1666646e-2f));
  c = _mm512_fmadd_ps(_mm512_mul_ps(c, square), square, _mm512_fnmadd_ps(square, set(0.5f), set(1.f)));
  const __m512i quarter = _mm512_cvtps_epi32(k);
  const __mmask16 odd = _mm512_test_epi32_mask(quarter, _mm512_set1_epi32(1));
  const __m512i sign_s = _mm512_slli_epi32(_mm512_and_si512(quarter, _mm512_set1_epi32(2)), 30);
  const __m512i next = _mm512_add_epi32(quarter, _mm512_set1_epi32(1));
  const __m512i sign_c = _mm512_slli_epi32(_mm512_and_si512(next, _mm512_set1_epi32(2)), 30);
  sine = _mm512_xor_ps(_mm512_mask_blend_ps(odd, s, c), _mm512_castsi512_ps(sign_s));
  cosine = _mm512_xor_ps(_mm512_mask_blend_ps(odd, c, s), _mm512_castsi512_ps(sign_c));
}

// The positional encoding of a row, (3, 2, n_frequencies).
void encode(const Slices& slices, i64 row, u16* to) {
  const float* at = slices.coords + row % slices.n_points * 3;
  const float* rotation = slices.rotations + row / slices.n_points * 9;
  float turned[3];
  for (int axis = 0; axis < 3; axis++)
    turned[axis] = at[0] * rotation[axis] + at[1] * rotation[3 + axis] + at[2] * rotation[6 + axis];
  const float side = turned[2] > 0 ? -1.f : 1.f;
  slices.sides[row] = side;
  const i64 n = slices.n_frequencies;
  for (int axis = 0; axis < 3; axis++, to += 2 * n)
    for (i64 f = 0; f < n; f += 16) {
      const __mmask16 there = n - f < 16 ? (1 << (n - f)) - 1 : 0xffff;
      __m512 sine, cosine;
      const __m512 frequencies = _mm512_maskz_loadu_ps(there, slices.frequencies + f);
      sine_and_cosine(_mm512_mul_ps(_mm512_set1_ps(turned[axis] * side), frequencies), sine, cosine);
      _mm256_mask_storeu_epi16(to + f, there, (__m256i)_mm512_cvtneps_pbh(sine));
      _mm256_mask_storeu_epi16(to + n + f, there, (__m256i)_mm512_cvtneps_pbh(cosine));
    }
}

// Where H(k) and H(-k) of a row are.
struct Pair {
  i64 at, opposite;
  Pair(const Slices& slices, i64 row) {
    const i64 first = row / slices.n_points * 2 * slices.n_points, point = row % slices.n_points;
    at = first + point, opposite = first + 2 * slices.n_points - 1 - point;
  }
};

}  // namespace
