#include <metal_stdlib>
using namespace metal;

/// Structures by reference in every address space, methods, constructors, enumerations, unions, bit fields.
enum class Mode : uint { copy, scale, bias = 4 };
struct Shape {
    uint rows, columns;
    float4 scale;
    packed_float3 offset;
    uint size() const constant { return rows * columns; }
    uint size() const thread { return rows * columns; }
};
union Bits {
    float number;
    uint bits;
};
struct Flags {
    uint low : 4;
    uint high : 28;
};
struct Complex {
    float real, imaginary;
    Complex(float r, float i) : real(r), imaginary(i) {}
    Complex(device const Complex& other) : real(other.real), imaginary(other.imaginary) {}
    Complex(thread const Complex& other) : real(other.real), imaginary(other.imaginary) {}
};
inline Complex operator*(Complex a, Complex b) {
    return Complex(a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real);
}

inline float area(constant Shape& s) { return float(s.size()) * s.scale.x; }
inline float area(thread const Shape& s) { return float(s.size()) * s.scale.y; }
inline void move(device Shape& s, float3 by) { s.offset = float3(s.offset) + by; }

kernel void shapes(constant Shape& shape [[buffer(0)]], device Shape* all [[buffer(1)]],
                   device float* out [[buffer(2)]], constant Mode& mode [[buffer(3)]],
                   device const Complex* numbers [[buffer(4)]], constant Flags& flags [[buffer(5)]],
                   constant const int strides[3] [[buffer(6)]], uint i [[thread_position_in_grid]]) {
    Shape copy = shape;
    copy.rows += uint(strides[0]);
    move(all[i], shape.scale.xyz);
    Bits bits;
    bits.number = area(shape) + area(copy);
    const Complex product = Complex(numbers[i]) * Complex(1.0f, 2.0f);
    switch (mode) {
        case Mode::copy: out[i] = as_type<float>(bits.bits); break;
        case Mode::scale: out[i] = product.real * shape.offset.x; break;
        default: out[i] = float(flags.low); break;
    }
}
