import { describe, it } from 'vitest';
import { bfloat, expectValues, half, type Case } from './support.js';

const v4 = 'float4 v = float4(1, 2, 3, 4) * float(one);';
const i4 = 'int4 i = int4(7, -8, 9, 10) * one;';
const u4 = 'uint4 u = uint4(1, 2, 4, 0x80000000u) * uint(one);';
const b2 = 'bfloat2 b = bfloat2(1.5f, 3.0f); bfloat s = bfloat(2.0f * one);';
const p3 = 'packed_float3 p = packed_float3(1, 2, 3);';

const constructors: Case[] = [
  ['float4(1, 2.5f, 3.0h, 4u)', 'float4', [1, 2.5, 3, 4]],
  ['float4(float2(1, 2), 3, 4)', 'float4', [1, 2, 3, 4]],
  ['float4(1, float2(2, 3), 4)', 'float4', [1, 2, 3, 4]],
  ['float4(1, 2, float2(3, 4))', 'float4', [1, 2, 3, 4]],
  ['float4(float2(1, 2), float2(3, 4))', 'float4', [1, 2, 3, 4]],
  ['float4(1, float3(2, 3, 4))', 'float4', [1, 2, 3, 4]],
  ['float4(float3(1, 2, 3), 4)', 'float4', [1, 2, 3, 4]],
  ['float3(1, float2(2, 3))', 'float3', [1, 2, 3]],
  ['float3(7)', 'float3', [7, 7, 7]],
  ['half4(h, 2.5f)', 'half4', [1, 2, 3, 2.5], 'half3 h = half3(1, 2, 3);'],
  ['ulong2(1, ~0ul)', 'ulong2', [1n, -1n]],
  ['long3(-1, 2, 1l << 40)', 'long3', [-1n, 2n, 1n << 40n]],
  ['vec<uchar, 4>(255, 256, 3, 4)', 'uchar4', [255n, 0n, 3n, 4n]],
  ['bool3(true, false, one)', 'bool3', [1n, 0n, 1n]],
  ['v', 'float2', [1, 2], 'float2 v = {1, 2};'],
  ['v', 'int3', [5n, 5n, 5n], 'int3 v = 5;'],
  ['int4(v)', 'int4', [1n, 2n, -3n, 4n], 'float4 v = float4(1.9f, 2.1f, -3.9f, 4);'],
  ['half2(int2(3, -4))', 'half2', [3, -4]],
  ['bool4(i)', 'bool4', [1n, 0n, 1n, 1n], 'int4 i = int4(256, 0, -1, one);'],
  ['float2(bool2(true, false))', 'float2', [1, 0]],
  ['uint3(char3(-1, 2, 3))', 'uint3', [0xffffffffn, 2n, 3n]],
];

const operators: Case[] = [
  ['v + 1', 'float4', [2, 3, 4, 5], v4],
  ['2 * v - v / 2.0f', 'float4', [1.5, 3, 4.5, 6], v4],
  ['h * 2.0f', 'half2', [2, 3], 'half2 h = half2(1, 1.5f);'],
  ['-v', 'float4', [-1, -2, -3, -4], v4],
  ['+v', 'float4', [1, 2, 3, 4], v4],
  ['i % 4', 'int4', [3n, 0n, 1n, 2n], i4],
  ['i / 2', 'int4', [3n, -4n, 4n, 5n], i4],
  ['~i', 'int4', [-8n, 7n, -10n, -11n], i4],
  ['i >> 1', 'int4', [3n, -4n, 4n, 5n], i4],
  ['u << uint4(1, 2, 3, 0)', 'uint4', [2n, 8n, 32n, 0x80000000n], u4],
  ['(u | 1u) ^ (u & 6u)', 'uint4', [1n, 1n, 1n, 0x80000001n], u4],
  ['i', 'int4', [14n, -16n, 18n, 20n], `${i4} i <<= 1;`],
  ['i', 'int4', [3n, 0n, 1n, 2n], `${i4} i &= 3;`],
  ['v', 'float4', [3, 5, 7, 9], `${v4} v *= 2; v += 1.0f;`],
  ['v', 'float4', [0, 0.5, 1, 1.5], `${v4} v -= float4(1); v /= 2;`],
  ['w + i++ - ++i', 'int4', [-2n, -2n, -2n, -2n], `${i4} int4 w = int4(0);`],
  ['i-- + --i', 'int4', [12n, -18n, 16n, 18n], i4],
  ['v < 3.0f', 'bool4', [1n, 1n, 0n, 0n], v4],
  ['v == float4(1, 0, 3, 0)', 'bool4', [1n, 0n, 1n, 0n], v4],
  ['v != v', 'bool2', [0n, 1n], 'float2 v = float2(1, NAN);'],
  ['(v >= 2.0f) && (v <= 3.0f)', 'bool4', [0n, 1n, 1n, 0n], v4],
  ['!(v > 2.0f) || (v == 4.0f)', 'bool4', [1n, 1n, 0n, 1n], v4],
  ['not(v > 2.0f)', 'bool4', [1n, 1n, 0n, 0n], v4],
  ['(v > 1.0f) & (v < 4.0f)', 'bool4', [0n, 1n, 1n, 0n], v4],
  ['!i', 'bool4', [0n, 0n, 0n, 1n], 'int4 i = int4(1, -1, 2, 0);'],
  ['v[one] + v[3]', 'float', 6, v4],
  ['v', 'float4', [1, 9, 3, 4], `${v4} v[one] = 9;`],
  ['u + ulong2(1, 2)', 'ulong2', [0n, 1n], 'ulong2 u = ulong2(~0ul);'],
  ['c + c', 'char2', [-56n, 2n], 'char2 c = char2(100, one);'],
];

const swizzles: Case[] = [
  ['v.xyz', 'float3', [1, 2, 3], v4],
  ['v.wzyx', 'float4', [4, 3, 2, 1], v4],
  ['v.rgb', 'float3', [1, 2, 3], v4],
  ['v.bgra', 'float4', [3, 2, 1, 4], v4],
  ['v.ga', 'float2', [2, 4], v4],
  ['v.r + v.g * v.b - v.a', 'float', 3, v4],
  ['v.xx', 'float2', [1, 1], v4],
  ['v.yzw.yx', 'float2', [3, 2], v4],
  ['v.xyz * v.yzw', 'float3', [2, 6, 12], v4],
  ['v', 'float4', [2, 1, 3, 4], `${v4} v.xy = v.yx;`],
  ['v', 'float4', [3, 2, 1, 4], `${v4} v.zyx = v.xyz;`],
  ['v', 'float4', [11, 12, 13, 4], `${v4} v.xyz += 10;`],
  ['v', 'float4', [1, 2, 9, 8], `${v4} float4* p = &v; p->zw = float2(9, 8);`],
  ['v', 'float4', [0, 2, 0, 4], `${v4} v.xz = 0;`],
  ['v.zw + 1', 'float2', [4, 5], `const ${v4}`],
  ['m.xz', 'bool2', [1n, 1n], 'bool3 m = bool3(true, false, true);'],
  ['f(v)', 'float', 3, v4],
  ['float4(v.xyz, 1)', 'float4', [1, 2, 3, 1], v4],
  ['p.xyz.zyx', 'float3', [3, 2, 1], p3],
  ['p', 'packed_float3', [2, 1, 3], `${p3} p.xy = p.yx;`],
  ['b.yx', 'bfloat2', [3, 1.5], b2],
];

const bfloats: Case[] = [
  ['b + b', 'bfloat2', [3, 6], b2],
  ['b * s', 'bfloat2', [3, 6], b2],
  ['b * 2.0f', 'bfloat2', [3, 6], b2],
  ['b - 1', 'bfloat2', [0.5, 2], b2],
  ['-b', 'bfloat2', [-1.5, -3], b2],
  ['b < 2.0f', 'bool2', [1n, 0n], b2],
  ['float2(b) + 0.25f', 'float2', [1.75, 3.25], b2],
  ['bfloat2(float2(0.1f, 3.14159265f))', 'bfloat2', [bfloat(0.1), bfloat(3.14159265)]],
  ['bfloat2(half2(0.1h, 2))', 'bfloat2', [bfloat(half(0.1)), 2]],
  ['int2(b)', 'int2', [1n, 3n], b2],
  ['b[1]', 'bfloat', 9, `${b2} b[1] = 9;`],
  ['b', 'bfloat2', [4.5, 9], `${b2} b *= 3;`],
  ['s + 1', 'bfloat', 3, b2],
  ['s + 1.0f', 'float', 3, b2],
  ['1.0f / s', 'float', 0.5, b2],
  ['1 / s', 'bfloat', 0.5, b2],
  ['s * s - s', 'bfloat', 2, b2],
  ['s++ + ++s', 'bfloat', 6, b2],
  ['s', 'bfloat', 5, `${b2} s += 3.0f;`],
  ['s > 1 && s == 2.0f && s <= s && !(s != 2)', 'bool', 1n, b2],
  // Ties go to even, NaN stays NaN, too large numbers become infinite.
  ['bfloat(x)', 'bfloat', 1, 'float x = 1.00390625f;'],
  ['bfloat(x)', 'bfloat', 1.015625, 'float x = 1.01171875f;'],
  ['bfloat(x)', 'bfloat', 1.0078125, 'float x = 1.00390637f;'],
  ['bfloat(x)', 'bfloat', NaN, 'float x = as_type<float>(0x7f800001u);'],
  ['bfloat(x)', 'bfloat', Infinity, 'float x = 3.4e38f;'],
  ['as_type<ushort>(bfloat(-2.0f))', 'ushort', 0xc000n],
  ['as_type<bfloat>(ushort(0x3f80))', 'bfloat', 1],
  ['half(bfloat(1.5f))', 'half', 1.5],
  ['sqrt(s + s)', 'float', 2, b2],
  ['exp2(s - 1.5f)', 'float', Math.fround(2 ** 0.5), b2],
  ['max(s, s + 1)', 'bfloat', 3, b2],
  ['max(s, 2.125f) + min(1.0f, s)', 'float', 3.125, b2],
  ['f', 'float', 6, `${b2} float f = 3; f *= s;`],
  ['one == 2 ? s : 1', 'bfloat', 1, b2],
  ['half(s) + half(int(s))', 'half', 4, b2],
  ['max(b, s)', 'bfloat2', [2, 3], b2],
  ['dot(b, b)', 'bfloat', 11.25, b2],
  ['exp2(b)', 'bfloat2', [bfloat(2 ** 1.5), 8], b2],
  ['numeric_limits<bfloat>::max()', 'bfloat', 2 ** 127 * (2 - 2 ** -7)],
  ['numeric_limits<bfloat>::epsilon()', 'bfloat', 2 ** -7],
];

const scalars: Case[] = [
  ['one * 1.5h', 'half', 1.5],
  ['1.5h * 2.0f', 'float', 3],
  ['1.0h / 3', 'half', half(1 / 3)],
  ['half(2049.0f * float(one))', 'half', 2048],
  ['half(65520.0f * float(one))', 'half', Infinity],
  ['as_type<half2>(0x3c00c000u)', 'half2', [-2, 1]],
  ['as_type<uint>(half2(-2, 1))', 'uint', 0x3c00c000n],
  ['as_type<uchar4>(0x01020304u)', 'uchar4', [4n, 3n, 2n, 1n]],
  ['as_type<int3>(float3(1))', 'int3', [0x3f800000n, 0x3f800000n, 0x3f800000n]],
  ['as_type<ulong>(float2(0, 1))', 'ulong', 0x3f80000000000000n],
  ['numeric_limits<half>::max()', 'half', 65504],
  ['numeric_limits<half>::min()', 'half', 2 ** -14],
  ['numeric_limits<half>::epsilon()', 'half', 2 ** -10],
  ['numeric_limits<float>::max()', 'float', 2 ** 127 * (2 - 2 ** -23)],
  ['numeric_limits<float>::min()', 'float', 2 ** -126],
  ['numeric_limits<float>::infinity()', 'float', Infinity],
  ['numeric_limits<float>::quiet_NaN()', 'float', NaN],
  ['numeric_limits<char>::lowest()', 'char', -128n],
  ['numeric_limits<long>::min()', 'long', -(1n << 63n)],
  ['numeric_limits<ushort>::digits', 'int', 16n],
  ['LONG_MAX + SHRT_MIN + UCHAR_MAX', 'long', (1n << 63n) - 1n - 32768n + 255n],
  ['M_PI_H', 'half', half(Math.PI)],
  ['array<int, 3>{1, 2, 3}[one] + int(array<int, 3>().size())', 'int', 5n],
  ['sum', 'int', 6n, 'array<int, 3> a = {1, 2, 3}; int sum = 0; for (int x : a) sum += x;'],
  ['uniform<uint>(3u)', 'uint', 3n],
];

const packed: Case[] = [
  ['p', 'packed_float3', [1, 2, 3], p3],
  ['p + p', 'float3', [2, 4, 6], p3],
  ['2 * p - float3(1)', 'float3', [1, 3, 5], p3],
  ['-p', 'float3', [-1, -2, -3], p3],
  ['float4(p, 4)', 'float4', [1, 2, 3, 4], p3],
  ['int3(p)', 'int3', [1n, 2n, 3n], p3],
  ['half3(p)', 'half3', [1, 2, 3], p3],
  ['p == float3(1, 0, 3)', 'bool3', [1n, 0n, 1n], p3],
  ['p.y + p[2]', 'float', 5, p3],
  ['v', 'float3', [1, 2, 3], `${p3} float3 v = p;`],
  ['p', 'packed_float3', [2, 3, 4], `${p3} p += 1;`],
  ['p', 'packed_float3', [2, 4, 6], `${p3} p = p * 2;`],
  ['p', 'packed_float3', [7, 2, 9], `${p3} p.x = 7; p[2] = 9;`],
  ['dot(p, p)', 'float', 14, p3],
  ['max(p, 2.0f)', 'float3', [2, 2, 3], p3],
  ['dot(float3(1), p)', 'float', 6, p3],
  ['c', 'packed_uchar4', [1n, 2n, 3n, 255n], 'packed_uchar4 c = packed_uchar4(1, 2, 3, 255);'],
  ['h', 'packed_half2', [1, 2], 'packed_half2 h = {1, 2};'],
  ['rows[1].xyz', 'float3', [4, 5, 6], 'packed_float3 rows[2] = {{1, 2, 3}, {4, 5, 6}};'],
];

const m23 = 'float2x3 m = float2x3(float3(1, 2, 3), float3(4, 5, 6));';
const m22 = 'float2x2 m = float2x2(1, 2, 3, 4);';
const matrices: Case[] = [
  ['m', 'float2x3', [1, 2, 3, 4, 5, 6], m23],
  ['m[1]', 'float3', [4, 5, 6], m23],
  ['m', 'float2x2', [1, 2, 3, 9], `${m22} m[1][1] = 9;`],
  ['float3x3(2)', 'float3x3', [2, 0, 0, 0, 2, 0, 0, 0, 2]],
  ['m * float2(1, 10)', 'float3', [41, 52, 63], m23],
  ['float3(1, 10, 100) * m', 'float2', [321, 654], m23],
  ['m * m', 'float2x2', [7, 10, 15, 22], m22],
  ['m * transpose(m)', 'float3x3', [17, 22, 27, 22, 29, 36, 27, 36, 45], m23],
  ['transpose(m)', 'float3x2', [1, 4, 2, 5, 3, 6], m23],
  ['m + m - 0.5f * m', 'float2x2', [1.5, 3, 4.5, 6], m22],
  ['-m', 'float2x2', [-1, -2, -3, -4], m22],
  ['m', 'float2x2', [7, 10, 15, 22], `${m22} m *= m;`],
  ['m', 'float2x2', [2, 4, 6, 8], `${m22} m *= 2; `],
  ['determinant(m)', 'float', -2, m22],
  ['determinant(float3x3(2, 0, 1, 1, 3, 0, 0, 1, 4))', 'float', 2 * (12 - 0) - 1 * (0 - 1)],
  ['determinant(float4x4(1, 0, 2, -1, 3, 0, 0, 5, 2, 1, 4, -3, 1, 0, 5, 0))', 'float', 30],
  ['half2x2(m)', 'half2x2', [1, 2, 3, 4], m22],
  ['float4x4(half4x4(3))[2]', 'float4', [0, 0, 3, 0]],
  ['all(m[0] == float2(1, 2)) && m == m', 'bool', 1n, m22],
];

const pack: Case[] = [
  ['pack_float_to_unorm4x8(float4(0, 1, 0.5f, 2))', 'uint', 0xff80ff00n],
  ['pack_float_to_snorm4x8(float4(-1, 1, 0.5f, -9))', 'uint', 0x81407f81n],
  ['pack_float_to_unorm2x16(float2(1, 0.25f))', 'uint', 0x4000ffffn],
  ['pack_float_to_snorm2x16(float2(1, -1))', 'uint', 0x80017fffn],
  ['pack_float_to_unorm10a2(float4(1, 0, 1, 1))', 'uint', 0xfff003ffn],
  ['pack_float_to_unorm565(float3(1, 0, 1))', 'ushort', 0xf81fn],
  ['pack_half_to_unorm4x8(half4(0, 1, 0.5h, 2))', 'uint', 0xff80ff00n],
  ['unpack_unorm4x8_to_float(0xff003300u)', 'float4', [0, Math.fround(0.2), 0, 1]],
  ['unpack_snorm4x8_to_float(0x80007f81u)', 'float4', [-1, 1, 0, -1]],
  ['unpack_unorm2x16_to_float(0x3333ffffu)', 'float2', [1, Math.fround(0.2)]],
  ['unpack_snorm2x16_to_float(0x80017fffu)', 'float2', [1, -1]],
  ['unpack_unorm10a2_to_float(0x400003ffu)', 'float4', [1, 0, 0, Math.fround(1 / 3)]],
  ['unpack_unorm565_to_float(ushort(0xf800))', 'float3', [0, 0, 1]],
  ['unpack_unorm4x8_to_half(0xff000000u)', 'half4', [0, 0, 0, 1]],
  ['pack_float_to_srgb_unorm4x8(float4(0, 1, 0.5f, 0.5f))', 'uint', 0x80bcff00n],
  ['pack_float_to_srgb_unorm4x8(unpack_unorm4x8_srgb_to_float(0x12f63b01u * one))', 'uint', 0x12f63b01n],
];

describe.each([1, 32] as const)('at width %i', (simdWidth) => {
  it('makes vectors and computes with them', () => expectValues([...constructors, ...operators], simdWidth));
  it('reads and writes swizzles', () =>
    expectValues(swizzles, simdWidth, 'template <typename V> float f(V v) { return v.xyz.x + v.xy.y; }'));
  it('computes with bfloat, half and packed vectors', () =>
    expectValues([...bfloats, ...scalars, ...packed], simdWidth));
  it('computes with matrices and packs numbers', () => expectValues([...matrices, ...pack], simdWidth));
});

it('lays types out as Metal does', async () => {
  const scalarBytes = {
    bool: 1,
    char: 1,
    uchar: 1,
    short: 2,
    ushort: 2,
    half: 2,
    bfloat: 2,
    int: 4,
    uint: 4,
    float: 4,
    long: 8,
    ulong: 8,
  };
  const size = (type: string, bytes: number, align: number): string =>
    `static_assert(sizeof(${type}) == ${bytes} && alignof(${type}) == ${align}, "${type}");`;
  const asserts = Object.entries(scalarBytes).flatMap(([type, bytes]) => [
    size(type, bytes, bytes),
    ...[2, 3, 4].flatMap((n) => [
      size(`${type}${n}`, bytes * (n === 3 ? 4 : n), bytes * (n === 3 ? 4 : n)),
      size(`metal::vec<${type}, ${n}>`, bytes * (n === 3 ? 4 : n), bytes * (n === 3 ? 4 : n)),
      size(`packed_${type}${n}`, bytes * n, bytes),
    ]),
  ]);
  const matrixAsserts = [2, 3, 4].flatMap((columns) =>
    [2, 3, 4].flatMap((rows) => {
      const column = 4 * (rows === 3 ? 4 : rows);
      return [
        size(`float${columns}x${rows}`, columns * column, column),
        size(`half${columns}x${rows}`, (columns * column) / 2, column / 2),
      ];
    }),
  );
  const traits = [
    'is_same_v<float3, metal::float3> && is_same<half2, vec<half, 2>>::value',
    'is_integral_v<uint> && !is_integral<float>::value && is_floating_point_v<bfloat> && is_floating_point_v<half>',
    'is_signed_v<char> && is_unsigned_v<uchar> && !is_signed_v<uint> && is_arithmetic_v<const half>',
    'is_same_v<remove_reference_t<const int&>, const int> && is_same_v<remove_cv_t<const volatile int>, int>',
    'is_same_v<remove_pointer_t<float*>, float> && is_pointer_v<int*> && is_same_v<decay_t<const int&>, int>',
    'is_same_v<make_unsigned_t<int>, uint> && is_same_v<make_signed_t<ulong>, long>',
    'is_same_v<conditional_t<true, int, float>, int> && is_same_v<enable_if_t<true, int>, int>',
    'is_convertible_v<int, float> && !is_convertible_v<float4, int4> && is_enum_v<mem_flags>',
    'true_type::value && !false_type() && integral_constant<int, 3>::value == 3 && bool_constant<true>{}',
    'is_same_v<decltype(declval<float>() + 1), float> && is_same_v<uint64_t, ulong> && sizeof(size_t) == 8',
    '__METAL_VERSION__ >= 310 && __HAVE_BFLOAT__',
  ].map((condition, i) => `static_assert(${condition}, "trait ${i}");`);
  await expectValues(
    [['one', 'int', 1n, 'static_assert(sizeof(float3) == 16, "");']],
    1,
    [...asserts, ...matrixAsserts, ...traits].join('\n'),
  );
});
