// What bench/cpu compares with: the same work in C++ by hand, for one thread. Prints the least nanoseconds of a run.
//
//     yardstick q4 ROWS LENGTH REPEATS | rms_norm LENGTH REPEATS | read BYTES REPEATS
#include <immintrin.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

std::vector<float> ramp(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = static_cast<float>(i % 17) / 17.0f - 0.5f;
  return values;
}

/// Dot product of a row of 4-bit weights with x; bytes and scales as in kernels.metal.
#if defined(__AVX512F__)
float q4_row(const uint8_t* bytes, const uint16_t* scales, const float* x, size_t groups) {
  const __m128i half = _mm_set1_epi8(15);
  const __m512i middle = _mm512_set1_epi32(8);
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (size_t g = 0; g < groups; g++) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + g * 16));
    const __m512i low = _mm512_cvtepu8_epi32(_mm_and_si128(packed, half));
    const __m512i high = _mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(packed, 4), half));
    __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(low, middle)), _mm512_loadu_ps(x + g * 32));
    product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(high, middle)), _mm512_loadu_ps(x + g * 32 + 16),
                              product);
    sums[g % 2] = _mm512_fmadd_ps(_mm512_set1_ps(_cvtsh_ss(scales[g])), product, sums[g % 2]);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
float q4_row(const uint8_t* bytes, const uint16_t* scales, const float* x, size_t groups) {
  const __m128i half = _mm_set1_epi8(15);
  const __m256i middle = _mm256_set1_epi32(8);
  const auto floats = [&](__m128i eight) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(eight), middle));
  };
  __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (size_t g = 0; g < groups; g++) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + g * 16));
    const __m128i low = _mm_and_si128(packed, half);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(packed, 4), half);
    const float* own = x + g * 32;
    __m256 product = _mm256_mul_ps(floats(low), _mm256_loadu_ps(own));
    product = _mm256_fmadd_ps(floats(_mm_unpackhi_epi64(low, low)), _mm256_loadu_ps(own + 8), product);
    product = _mm256_fmadd_ps(floats(high), _mm256_loadu_ps(own + 16), product);
    product = _mm256_fmadd_ps(floats(_mm_unpackhi_epi64(high, high)), _mm256_loadu_ps(own + 24), product);
    sums[g % 2] = _mm256_fmadd_ps(_mm256_set1_ps(_cvtsh_ss(scales[g])), product, sums[g % 2]);
  }
  float lanes[8];
  _mm256_storeu_ps(lanes, _mm256_add_ps(sums[0], sums[1]));
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}
#else
#error "the yardstick is written for AVX-512 and AVX2"
#endif

/// The least nanoseconds of `repeats` runs.
template <class Work>
double least(int repeats, const Work& work) {
  double best = 1e30;
  for (int i = 0; i < repeats; i++) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    if (time.count() < best) best = time.count();
  }
  return best;
}

double q4(size_t rows, size_t length, int repeats) {
  const size_t groups = length / 32;
  std::vector<uint8_t> bytes(rows * groups * 16);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 37);
  const std::vector<uint16_t> scales(rows * groups, 0x2c00);  // 1/16
  const std::vector<float> x = ramp(length);
  std::vector<float> y(rows);
  return least(repeats, [&] {
    for (size_t row = 0; row < rows; row++)
      y[row] = q4_row(&bytes[row * groups * 16], &scales[row * groups], x.data(), groups);
  });
}

double rms_norm(size_t length, int repeats) {
  const std::vector<float> x = ramp(length), gain = ramp(length);
  std::vector<float> y(length);
  return least(repeats, [&] {
    float squares[16] = {};
    for (size_t i = 0; i < length; i += 16)
      for (size_t j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
    float total = 0;
    for (const float square : squares) total += square;
    const float factor = 1.0f / std::sqrt(total / static_cast<float>(length) + 1e-5f);
    for (size_t i = 0; i < length; i++) y[i] = x[i] * factor * gain[i];
  });
}

/// Reads memory as fast as one thread can.
double read(size_t count, int repeats) {
  const std::vector<uint64_t> data(count / 8, 1);
  volatile uint64_t sink = 0;
  return least(repeats, [&] {
    uint64_t sums[32] = {};
    for (size_t i = 0; i + 32 <= data.size(); i += 32)
      for (size_t j = 0; j < 32; j++) sums[j] += data[i + j];
    uint64_t total = 0;
    for (const uint64_t sum : sums) total += sum;
    sink = total;
  });
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int index) { return index < argc ? std::strtoul(argv[index], nullptr, 10) : 0ul; };
  const char* const what = argc > 1 ? argv[1] : "";
  double best = 0;
  if (std::strcmp(what, "q4") == 0) best = q4(number(2), number(3), static_cast<int>(number(4)));
  else if (std::strcmp(what, "rms_norm") == 0) best = rms_norm(number(2), static_cast<int>(number(3)));
  else if (std::strcmp(what, "read") == 0) best = read(number(2), static_cast<int>(number(3)));
  else return 2;
  std::printf("%.0f\n", best);
  return 0;
}
