import { describe, expect, it } from 'vitest';
import { addon, failure, launchSpec, root, run, temporaryFolder } from './support.js';

const cache = temporaryFolder();
const options = { headers: `${root}native/msl`, cache };
const inspect = (source: string) => addon.inspectKernels(source, 'hostile.metal', options);
const harmless = 'kernel void k(device float* x [[buffer(0)]]) {}';

/** What inspecting the text and compiling it both say. */
async function refusal(source: string): Promise<string> {
  const inspected = await failure(() => inspect(source));
  const spec = launchSpec(cache, {
    source: '',
    kernel: { name: 'k', threads: [1, 1, 1], arguments: [] },
    data: [],
  });
  const compiled = await failure(() =>
    addon.createProgram('cpu', { ...spec, source, sourceName: 'hostile.metal' }),
  );
  expect(compiled).toEqual(inspected);
  expect(inspected.code).toBe('UPGC_COMPILE');
  return inspected.message;
}

const pragmas = 'unroll, nounroll, unused, mark, once, METAL, clang loop, clang fp and clang diagnostic';
const directives =
  'directives of Metal text are #include <metal_...>, #pragma, #define, #undef, #if and its kin, #error and #warning';
const includes = 'Metal text may include <metal_...> headers only; put the rest into the text';
const reserved = (word: string): string =>
  `\`${word}\` is reserved: names that contain __ or begin with _ and a capital belong to the compiler; use Metal's own functions and other names`;
const ours = (word: string): string =>
  `\`${word}\` is reserved: names that begin with upgc belong to the runtime; give it another name`;
const attribute = (name: string): string =>
  `the attribute \`${name}\` is none of a compute kernel's attributes that upgc knows; remove it`;
const gnu = (name: string): string =>
  `the attribute \`${name}\` is refused; __attribute__ may have always_inline, noinline, unused, packed, aligned, const and pure`;
const assembly = '`asm` is not Metal: a kernel cannot contain assembly; write it in Metal';
const declared =
  '`extern` is not Metal: the text is complete in itself; define the function or constant in it';
const beyondAscii = 'a character beyond ASCII outside of literals and comments is not Metal';
const has = (word: string): string =>
  `${word} is refused: what a kernel means must not depend on the machine that compiles it; compare __METAL_VERSION__ instead`;

/** Text, and where and how it is refused. */
const hostile: readonly (readonly [string, string, string])[] = [
  ['assembly', 'kernel void k() { asm("int3"); }', `1:19: ${assembly}`],
  ['assembly at namespace level', '\n  asm(".globl x");', `2:3: ${assembly}`],
  ['the other spelling of asm', 'void f() { __asm__("nop"); }', `1:12: ${reserved('__asm__')}`],
  ['assembly out of a macro', '#define A(x, y) x##y\nvoid f() { A(as, m)("nop"); }', `2:12: ${assembly}`],
  ['assembly over a line splice', 'void f() { as\\\nm("nop"); }', `1:12: ${assembly}`],
  ['a builtin', 'void f() { __builtin_trap(); }', `1:12: ${reserved('__builtin_trap')}`],
  [
    'a pasted builtin',
    '#define B(x) __builtin_##x\nvoid f() { B(trap)(); }',
    `2:12: ${reserved('__builtin_trap')}`,
  ],
  ["the compiler's names", 'using T = _Float16;', `1:11: ${reserved('_Float16')}`],
  ["the runtime's names", 'using namespace upgc;', `1:17: ${ours('upgc')}`],
  ["the runtime's hooks", 'void f() { ::upgc::hooks = {}; }', `1:14: ${ours('upgc')}`],
  ["the runtime's macros", 'UPGC_MODULE(x)', `1:1: ${ours('UPGC_MODULE')}`],
  ['a file', '#include "/etc/passwd"', `1:1: '/etc/passwd' file not found: ${includes}`],
  ['a system header', '  #include <cstdio>', `1:3: 'cstdio' file not found: ${includes}`],
  ['a path that begins well', '#include <metal_/../x>', `1:1: 'metal_/../x' file not found: ${includes}`],
  ['a file in a macro', '#define H "/etc/passwd"\n#include H', `2:1: #include H: ${includes}`],
  [
    'an include with a splice in it',
    '#inc\\\nlude "/etc/passwd"',
    `1:1: '/etc/passwd' file not found: ${includes}`,
  ],
  ['an include behind a comment', '/* */ # /* */ include "x"', `1:7: 'x' file not found: ${includes}`],
  [
    'an include that a raw string hides',
    'constant char a[] = R"x(" /* )x";\n#include "/etc/passwd"\n// */',
    `1:21: raw strings are not Metal`,
  ],
  [
    'a raw string that a macro makes',
    '#define J(x, y) x##y\nconstant char a[] = J(R, "(x)");',
    `2:21: raw strings are not Metal`,
  ],
  ['include_next', '#include_next <metal_stdlib>', `1:1: #include_next is refused; ${directives}`],
  ['embed', '#embed "/etc/passwd"', `1:1: #embed is refused; ${directives}`],
  ['import', '#import <metal_stdlib>', `1:1: #import is refused; ${directives}`],
  ['line', '#line 7 "other.metal"', `1:1: #line is refused; ${directives}`],
  ['a line marker', '# 7 "other.metal" 3', `1:1: #7 is refused; ${directives}`],
  [
    'a directive that a macro makes',
    '#define HASH #\nHASH include "/etc/passwd"',
    '2:2: # include "/etc/passwd" is refused: only the user\'s own text may have directives',
  ],
  ['__has_include', '#if __has_include("/etc/passwd")\n#endif', `1:5: ${has('__has_include')}`],
  [
    'a pragma for the linker',
    '#pragma comment(lib, "x")',
    `1:1: #pragma comment(lib, "x") is refused; pragmas of Metal text are ${pragmas}`,
  ],
  [
    'a pragma of visibility',
    '#pragma GCC visibility push(default)',
    `1:1: #pragma GCC visibility push(default) is refused; pragmas of Metal text are ${pragmas}`,
  ],
  [
    'attributes by pragma',
    '#pragma clang attribute push(x)',
    `1:1: #pragma clang attribute push(x) is refused; pragmas of Metal text are ${pragmas}`,
  ],
  [
    'a pragma operator',
    'void f();\n_Pragma("weak f") void f() {}',
    `2:1: #pragma weak f is refused; pragmas of Metal text are ${pragmas}`,
  ],
  ['an extern function', 'extern int system(const char*);', `1:1: ${declared}`],
  ['a linkage specification', 'extern "C" { int puts(const char*); }', `1:1: ${declared}`],
  ['a constructor function', '[[gnu::constructor]] void f() {}', `1:3: ${attribute('gnu::constructor')}`],
  [
    'attributes with a space between the brackets',
    '[ [gnu::constructor]] void f() {}',
    `1:4: ${attribute('gnu::constructor')}`,
  ],
  ['an alias', 'void f() __attribute__((alias("system")));', `1:25: ${gnu('alias')}`],
  ['a second attribute', '__attribute__((noinline, section("x"))) void f() {}', `1:26: ${gnu('section')}`],
  [
    'exceptions',
    'void f() { throw 1; }',
    '1:12: `throw` is not Metal: there are no exceptions; write the failure into a buffer',
  ],
  [
    'the heap',
    'void f() { new int; }',
    '1:12: `new` is not Metal: there is no heap; use a buffer or an array',
  ],
  [
    'run-time types',
    'void f() { typeid(int); }',
    '1:12: `typeid` is not Metal: there are no types at run time; remove it',
  ],
  ['digraphs', 'void f() <% %>', '1:10: the digraph <% is not Metal; write the character that it stands for'],
  [
    'a digraph directive',
    '%:include "/etc/passwd"',
    '1:1: the digraph %: is not Metal; write the character that it stands for',
  ],
  [
    'trigraphs',
    'int x = 1 ??! 2;',
    '1:11: the trigraph ??! is not Metal; write the character that it stands for',
  ],
  [
    'universal character names',
    'void \\u0061sm();',
    '1:6: a backslash outside of a literal; write names with letters, digits and _',
  ],
  ['a space that is none', 'void f() { int x;\u00a0asm("nop"); }', `1:18: ${beyondAscii}`],
  ['a line end that is none', '// comment\rasm("nop");', '1:11: the control character 13 is not Metal'],
  ['NUL', 'kernel void k() {}\0', '1:19: the control character 0 is not Metal'],
  ['a comment without end', '  /* never', '1:3: comment without closing */'],
  ['a string without end', 'constant char a[] = "never', '1:21: string without closing quote'],
  ['a character without end', "int x = 'a\n;", '1:9: character without closing quote'],
  ['a hash within a line', 'int x = # 3;', '1:9: # within a line; a directive starts its line'],
];

describe('refuses', () => {
  it.each(hostile)('%s', async (_, source, message) => {
    expect(await refusal(source)).toBe(`hostile.metal:${message}`);
  });

  it('a function that the text declares and does not define, also one that this process has', async () => {
    const spec = launchSpec(cache, {
      source: `namespace std { void terminate(); }
        kernel void k(device float* x [[buffer(0)]]) { if (x[0] > 1.0f) std::terminate(); }`,
      kernel: { name: 'k', threads: [1, 1, 1], arguments: [{ kind: 'buffer', index: 0, bytes: 0 }] },
      data: [new Float32Array(1)],
    });
    const { code, message } = await failure(() => addon.createProgram('cpu', spec));
    expect(code).toBe('UPGC_COMPILE');
    expect(message).toBe('kernels.metal declares std::terminate() and does not define it');
  });

  it('objects whose constructors would run when the module is loaded', async () => {
    const spec = launchSpec(cache, {
      source: `int evil() { volatile int x = 0; return x; } int global = evil();\n${harmless}`,
      kernel: { name: 'k', threads: [1, 1, 1], arguments: [{ kind: 'buffer', index: 0, bytes: 0 }] },
      data: [new Float32Array(1)],
    });
    const { code, message } = await failure(() => addon.createProgram('cpu', spec));
    expect(code).toBe('UPGC_COMPILE');
    expect(message).toContain('kernels.metal:3:50: error: declaration requires a global constructor');
  });

  it('text that would take the compiler more memory or disk than there is', async () => {
    const spec = launchSpec(cache, {
      source: `constant uint big[1u << 29] = {1};\n${harmless.replace('{}', '{ x[0] = big[uint(x[0])]; }')}`,
      kernel: { name: 'k', threads: [1, 1, 1], arguments: [{ kind: 'buffer', index: 0, bytes: 0 }] },
      data: [new Float32Array(1)],
    });
    expect(await failure(() => addon.createProgram('cpu', spec))).toMatchObject({ code: 'UPGC_COMPILE' });
  });
});

describe('does not mind', () => {
  it.each([
    [
      'words in comments and strings',
      '// asm extern __builtin\n/* #include "x" */ constant char a[] = "asm \\" // ";',
    ],
    [
      'names that look alike',
      'void f() { int asm_count = 0, news = 1, externs = 2, u_p = 3, _low = asm_count; }',
    ],
    ['subscripts of subscripts', 'void f() { int a[1] = {0}, b = a[a[0]]; }'],
    [
      'qualified template arguments',
      'namespace n { struct t {}; } template <class T> struct s {}; s<::n::t> x();',
    ],
    ['remainders and conditions', 'int f(int a, int b) { return a % b ? a<b : a>b; }'],
    [
      'allowed pragmas',
      '#pragma METAL internals : enable\n#pragma clang diagnostic push\n#pragma clang loop unroll(full)\n#pragma mark - x',
    ],
    [
      'conditions',
      '#if __METAL_VERSION__ >= 300 && defined(__METAL__)\n#else\n#error "no" // really\n#endif',
    ],
    ['known attributes of GNU', '__attribute__((always_inline)) inline void f() {}'],
    ['Metal and harmless C++ attributes', '[[nodiscard]] int f() { return 0; }'],
    ['apostrophes where no condition holds', "#if 0\nit's don't\n#endif"],
    ['characters beyond ASCII in comments', '// déjà vu — naïve'],
    ['carriage returns before line ends', '// windows\r\nconstant int x = 1;\r\n'],
    ['digit separators', "constant int x = 1'000'000;"],
    [
      'pragma operators',
      '#define UNROLL _Pragma("unroll")\nvoid f() { UNROLL for (int i = 0; i < 3; i++); }',
    ],
  ])('%s', async (_, source) => {
    const { kernels } = await inspect(`${source}\n${harmless}`);
    expect(kernels.map(({ name }) => name)).toEqual(['k']);
  });
});

describe('comes to an end', () => {
  const size = 200_000;
  it.each([
    ['brackets that open', '('.repeat(size)],
    ['brackets that close', '}])'.repeat(size)],
    ['attributes that open', '[['.repeat(size)],
    ['attributes in attributes', `${'[[buffer(['.repeat(size)}${'])]]'.repeat(size)}`],
    ['a row of <', `kernel void k(${'a<'.repeat(size)}) {}`],
    ['templates in templates', 'template <class T '.repeat(size)],
    ['namespaces in namespaces', 'namespace n {'.repeat(size)],
    ['comments that open', '/*'.repeat(size)],
    ['quotes', `"'`.repeat(size)],
    ['a long line', `constant int x = ${'1+'.repeat(5_000_000)}1;`],
    ['a deep index', `kernel void k(device int* x [[buffer(${'('.repeat(size)}0${')'.repeat(size)})]]) {}`],
    [
      'an index that doubles with every name',
      Array.from({ length: 60 }, (_, i) => `constant int a${i + 1} = a${i} + a${i};`).join('\n') +
        'kernel void k(device int* x [[buffer(a60)]]) {}',
    ],
    [
      'a macro that doubles with every name',
      '#define a0 1\n' +
        Array.from({ length: 40 }, (_, i) => `#define a${i + 1} a${i} a${i}`).join('\n') +
        '\nconstant int x = a40;',
    ],
    ['splices', `a${'\\\n'.repeat(size)}b`],
  ])(
    '%s',
    async (_, source) => {
      const start = performance.now();
      await inspect(source).catch((error: unknown) => expect(error).toMatchObject({ code: 'UPGC_COMPILE' }));
      expect(performance.now() - start).toBeLessThan(25_000);
    },
    60_000,
  );

  it('text of more than 8 MiB', async () => {
    expect((await failure(() => inspect(' '.repeat(9 << 20)))).message).toBe(
      'hostile.metal: 9437184 bytes of Metal text; at most 8388608 are read',
    );
  });

  it('any text that is nearly Metal', async () => {
    const valid = `#include <metal_stdlib>
      using namespace metal;
      constant bool fast [[function_constant(0)]];
      enum Slot { in, out };
      template <typename T, int N = 4> struct Tile { T x[N]; T get(int i) const device { return x[i]; } };
      float load(device const float* p) { return p[0] * 0.5; }
      float load(threadgroup const float* p) { return p[0] * 0.5; }
      template <typename T> [[kernel, max_total_threads_per_threadgroup(64)]] void k(
          device const T* x [[buffer(in)]], device T* y [[buffer(out)]], uint i [[thread_position_in_grid]]) {
        threadgroup alignas(16) T a[4], b;
        y[i] = is_function_constant_defined(fast) && fast ? x[i] : T(1.0);
      }
      template [[host_name("k_float")]] [[kernel]] void k<float>(
          device const float* x [[buffer(0)]], device float* y [[buffer(1)]], uint i [[thread_position_in_grid]]);`;
    expect((await inspect(valid)).kernels).toHaveLength(1);
    const tokens = valid.match(/\w+|\s+|[^\w\s]/g) ?? [];
    let state = 1;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const outcomes = { fine: 0, refused: 0 };
    for (let round = 0; round < 3000; round++) {
      const mutated = [...tokens];
      for (let n = 1 + random(3); n > 0; n--) {
        const at = random(mutated.length);
        const other = tokens[random(tokens.length)] ?? '';
        if (random(3) === 0) mutated.splice(at, 1);
        else if (random(2) === 0) mutated.splice(at, 0, other);
        else mutated.splice(at, 1, other);
      }
      await inspect(mutated.join('')).then(
        () => outcomes.fine++,
        (error: unknown) => {
          expect(error).toMatchObject({ code: 'UPGC_COMPILE' });
          outcomes.refused++;
        },
      );
    }
    expect(outcomes.fine).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  }, 120_000);
});

it('still runs text with all that is allowed in it', async () => {
  const out = new Float32Array(1);
  await run(cache, {
    source: `#define PASTE(a, b) a##b
      #if defined(__METAL__) && defined(M_PI_F) && !defined(__linux__)
      kernel void PASTE(al, lowed)(device float* out [[buffer(0)]]) {
        float total = 0; // M_PI_F comes through the preprocessor
        _Pragma("unroll(full)") for (int i = 0; i < 4; i++) total += M_PI_F;
        out[0] = total;
      }
      #endif`,
    kernel: { name: 'allowed', threads: [1, 1, 1], arguments: [{ kind: 'buffer', index: 0, bytes: 0 }] },
    data: [out],
  });
  expect(out[0]).toBeCloseTo(4 * Math.PI, 5);
});
