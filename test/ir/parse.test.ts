import { describe, expect, it } from 'vitest';
import { isOp } from '../../src/ir/graph.js';
import { parseGraph } from '../../src/ir/parse.js';
import { formatGraph } from '../../src/ir/text.js';
import { parseEntries, parseStage } from '../../src/passes/parse.js';
import { formatEntry } from '../../src/passes/text.js';
import { renderedError } from '../support/snapshot.js';

const small = `graph small {
  %tokens = input : i32[T]
  @table : f32[10, 4]
  @norm : f32[4]
  %x = embed %tokens, @table : f32[T, 4]
  %rms_norm = rms_norm %x, @norm { eps: 0.00001 } : f32[T, 4] in layers.0
  %h = scale %rms_norm { by: -0 } : f32[T, 4] in layers.0.mlp
  %linear = linear %h, @table : f32[T, 10]
  return logits = %linear
}
`;

describe('parseGraph', () => {
  it('reads what formatGraph prints', () => {
    const graph = parseGraph(small);
    expect(formatGraph(graph)).toBe(small);
    expect(graph.nodes.map(({ op, origin: { name, scope, layer } }) => [op, name, scope, layer])).toEqual([
      ['input', undefined, '', undefined],
      ['weight', undefined, '', undefined],
      ['embed', 'x', '', undefined],
      ['weight', undefined, '', undefined],
      ['rms_norm', undefined, 'layers.0', 0],
      ['scale', 'h', 'layers.0.mlp', 0],
      ['linear', undefined, '', undefined],
    ]);
    const factor = graph.nodes.find((node) => isOp(node, 'scale'));
    expect(factor && isOp(factor, 'scale') && factor.attrs.by).toBe(-0);
  });

  it('takes any layout, and ignores comments', () => {
    const other = small
      .replaceAll('\n', ' // model.graph.ts:3 in other.7\r\n\n\t ')
      .replaceAll(' : ', ':')
      .replaceAll(', ', ' ,\n');
    expect(formatGraph(parseGraph(other))).toBe(small);
  });

  it('reads names with anything in them', () => {
    const odd = `graph "7 b" (T = 2, C = 8) {
  %tokens = input : i32[T]
  %"a b" = input : f32[10, 4]
  %"a b".1 = state { name: "a b" } : f32[10, 4]
  @"say \\"w\\"" : f32[10, 4]
  %tokens.1 = embed %tokens, @"say \\"w\\"" : f32[T, 4] in "my scope" layer 3
  %"silu" = silu %tokens.1 : f32[T, 4] in model.layers.0 layer none
  %"silu".1 = silu %"silu" : f32[T, 4]
  %silu = silu %"silu".1 : f32[T, 4]
  %"größe // 2" = linear %silu, %"a b" : f32[T, 10]
  update %"a b".1 = %"a b"
  return "the logits" = %"größe // 2"
}
`;
    const graph = parseGraph(odd);
    expect(formatGraph(graph)).toBe(odd);
    expect(graph.name).toBe('7 b');
    expect(graph.dims).toEqual({ T: 2, C: 8 });
    const computed = graph.nodes.filter(({ inputs }) => inputs.length > 0).map(({ origin }) => origin);
    expect(computed).toMatchObject([
      { name: 'tokens', scope: 'my scope', layer: 3 },
      { name: 'silu', scope: 'model.layers.0', layer: undefined },
      { name: 'silu', scope: '', layer: undefined },
      { name: undefined },
      { name: 'größe // 2' },
    ]);
  });

  it('numbers values anew, in the order of dependence', () => {
    const shuffled = small.replaceAll('%x', '%x.7').replaceAll('%linear', '%linear.12');
    expect(formatGraph(parseGraph(shuffled))).toBe(small);
  });
});

/** What is said of the small graph with a part replaced. */
function wrong(part: string, replacement: string): string {
  expect(small).toContain(part);
  return renderedError(() => parseGraph(small.replace(part, replacement)), import.meta.dirname);
}

describe('a wrong text is refused', () => {
  it('when an op, a value, a type or an attribute is not known', () => {
    expect([
      wrong('= embed', '= embd'),
      wrong('embed %tokens', 'embed %token'),
      wrong('linear %h', 'linear %y'),
      wrong('i32[T]', 'int32[T]'),
      wrong('i32[T]', 'i32[N]'),
      wrong('{ eps', '{ epsilon'),
      wrong('embed %tokens, @table', 'embed %tokens, @table { axis: 0 }'),
    ]).toMatchInlineSnapshot(`
      [
        "error: there is no op 'embd'; did you mean 'embed'?
        ┌─ <text>:5:8",
        "error: there is no %token above; did you mean '%tokens'?
        ┌─ <text>:5:14",
        "error: there is no %y above; did you mean '%x'?
        ┌─ <text>:8:20",
        "error: there is no element type 'int32'; did you mean 'i32'?
        ┌─ <text>:2:21",
        "error: expected a length, T or C, found 'N'
        ┌─ <text>:2:25",
        "error: rms_norm has no attribute 'epsilon'
        ┌─ <text>:6:36
        note: it has eps, offset",
        "error: embed has no attribute 'axis'
        ┌─ <text>:5:32
        note: it has none",
      ]
    `);
  });

  it('when an op does not take what it is given', () => {
    expect([
      wrong('{ eps: 0.00001 }', '{ eps: "small" }'),
      wrong(' { eps: 0.00001 }', ''),
      wrong('linear %h, @table', 'linear %h'),
      wrong('linear %h, @table', 'linear %h, @table, @norm, @norm'),
      wrong('linear %h, @table', 'linear %h, @norm'),
      wrong('= input', '= input { name: "x", dtype: "f32", shape: [] }'),
    ]).toMatchInlineSnapshot(`
      [
        "error: rms_norm: eps: Invalid input: expected number, received string
        ┌─ <text>:6:15",
        "error: rms_norm: eps: Invalid input: expected number, received undefined
        ┌─ <text>:6:15",
        "error: linear takes x, weight, bias?; here is 1
        ┌─ <text>:8:13",
        "error: linear takes x, weight, bias?; here are 4
        ┌─ <text>:8:13",
        "error: linear: weight must be [N, K], not f32[4]
        ┌─ <text>:8:13",
        "error: input has no attribute 'dtype'
        ┌─ <text>:2:32
        note: it has name",
      ]
    `);
  });

  it('when a type is not the one that follows', () => {
    expect([wrong(': f32[T, 10]', ': f32[T, 11]'), wrong(': f32[T, 10]', '')]).toMatchInlineSnapshot(`
      [
        "error: %linear is f32[T, 10], not f32[T, 11]
        ┌─ <text>:8:33",
        "error: expected ':' and a type, found 'return'
        ┌─ <text>:9:3",
      ]
    `);
  });

  it('when something is there twice, or for nothing', () => {
    expect([
      wrong('%h = scale', '%x = scale'),
      wrong('  @norm', '  @table : f32[4]\n  @norm'),
      wrong('  %x', '  %other = input { name: "tokens" } : i32[T]\n  %x'),
      wrong('  return', '  %y = silu %x : f32[T, 4]\n  return'),
      wrong('= %linear', '= %linear, logits = %x'),
      wrong('  return logits = %linear\n', ''),
    ]).toMatchInlineSnapshot(`
      [
        "error: %x is defined twice
        ┌─ <text>:7:3",
        "error: @table is defined twice
        ┌─ <text>:4:3",
        "error: two leaves are called input tokens
        ┌─ <text>:5:3",
        "error: nothing needs %y
        ┌─ <text>:9:3",
        "error: there are two outputs 'logits'
        ┌─ <text>:9:28",
        "error: small returns nothing: expected 'return'
        ┌─ <text>:9:1",
      ]
    `);
  });

  it('when an update is none', () => {
    const updated = (update: string): string =>
      wrong('  return', `  %s = state : f32[C, 4]\n  update ${update}\n  return`);
    expect([updated('%x = %h'), updated('%s = %h'), updated('%s = %s update %s = %s')])
      .toMatchInlineSnapshot(`
      [
        "error: %x is no state
         ┌─ <text>:10:10",
        "error: %h is f32[T, 4], not f32[C, 4] as %s
         ┌─ <text>:10:15",
        "error: %s is updated twice
         ┌─ <text>:10:25",
      ]
    `);
  });

  it('when it is not written as it should be', () => {
    expect([
      wrong('graph small', 'grph small'),
      wrong('graph small', 'graph 7'),
      wrong('graph small', 'graph small (N = 3)'),
      wrong('graph small', 'graph small (T = -3)'),
      wrong('%x = embed', '%x embed'),
      wrong('%x = embed', '%x = ?'),
      wrong('= %linear\n}\n', '= %linear\n'),
      wrong('}\n', '}\ngraph'),
      wrong('{ by: -0 }', '{ by: }'),
      wrong('{ by: -0 }', '{ by: 007 }'),
      wrong('in layers.0.mlp', 'in "layers.0'),
      wrong('in layers.0.mlp', 'layer 0'),
    ]).toMatchInlineSnapshot(`
      [
        "error: expected 'graph', found 'grph'
        ┌─ <text>:1:1",
        "error: expected the name of the graph, found '7'
        ┌─ <text>:1:7",
        "error: expected T or C, found 'N'
        ┌─ <text>:1:14",
        "error: expected the length of T, found '-3'
        ┌─ <text>:1:18",
        "error: expected '=', found 'embed'
        ┌─ <text>:5:6",
        "error: '?' begins nothing
        ┌─ <text>:5:8",
        "error: expected a value, 'update', 'return' or '}', found the end of the text
         ┌─ <text>:10:1",
        "error: expected the end of the text, found 'graph'
         ┌─ <text>:11:1",
        "error: expected a JSON value, found '}'
        ┌─ <text>:7:30",
        "error: expected '}', found '0'
        ┌─ <text>:7:31",
        "error: expected a JSON string on one line
        ┌─ <text>:7:50",
        "error: expected a value, 'update', 'return' or '}', found 'layer'
        ┌─ <text>:7:47",
      ]
    `);
  });
});

const kernels = `entry score of small (T = 4, C = 8) {
  %tokens = input : i32[T]
  %position = input : i32[]
  %cache = state : f32[C, 2, 2]
  @table : f32[10, 4]
  epoch 0
  kernel k0 embed {   // embed_silu
    %embed = embed %tokens, @table : f32[T, 4]
    %silu = silu %embed : f32[T, 4]
    store %silu (anchors %embed; epilogue %silu) to pool [0, 64) in epochs 0 to 1
  }
  barrier epoch 1
  %reshape = reshape %silu { shape: ["T",2,2] } : f32[T, 2, 2]
  kernel k1 elementwise {   // copy_cache
    %cache_append = cache_append %cache, %reshape, %position : f32[C, 2, 2]
    store %cache_append to %cache
  }
  kernel k2 linear {
    %linear = linear %silu, @table : f32[T, 10]
    store %linear
  }
  update %cache = %cache_append
  return logits = %linear
  pool 64 bytes, lower bound 64
}
`;

describe('parseEntries', () => {
  it('reads what formatEntry prints, entry after entry', () => {
    const [first, second, ...others] = parseEntries(`${kernels}\n${kernels.replace('score', 'other')}`);
    expect(others).toEqual([]);
    expect(first && formatEntry(first)).toBe(kernels);
    expect(second?.name).toBe('other');
    const [embed, append, linear] = first?.kernels ?? [];
    expect(embed?.outputs[0].anchors.map(({ op }) => op)).toEqual(['embed']);
    expect(embed?.outputs[0].epilogue.map(({ op }) => op)).toEqual(['silu']);
    expect(append?.outputs[0]).toMatchObject({ anchors: [], append: { op: 'cache_append' } });
    expect(linear?.outputs[0]).toMatchObject({ anchors: [{ op: 'linear' }], append: undefined });
    expect([...(first?.epochs.values() ?? [])]).toEqual([0, 1, 1]);
    expect(first?.pool).toMatchObject({ bytes: 64, lowerBound: 64 });
    expect(first?.pool?.buffers).toMatchObject([{ offset: 0, bytes: 64, firstEpoch: 0, lastEpoch: 1 }]);
  });

  it('tells an entry from a graph', () => {
    expect(parseStage(small)).toMatchObject({ name: 'small' });
    expect(parseStage(`// a comment\n${kernels}`)).toMatchObject([{ name: 'score' }]);
  });

  it('refuses what is wrong', () => {
    const refused = (part: string, replacement: string): string => {
      expect(kernels).toContain(part);
      return renderedError(() => parseEntries(kernels.replace(part, replacement)), import.meta.dirname);
    };
    expect([
      refused('entry score', 'score'),
      refused('k2 linear', 'k2 liner'),
      refused('anchors %embed', 'anchor %embed'),
      refused('to %cache', 'to %tokens'),
      refused('store %linear', 'store %silu to %cache'),
      refused('    store %linear\n', ''),
      refused('pool [0, 64)', 'pool [64, 0)'),
      refused('  pool 64 bytes, lower bound 64\n', ''),
      refused('barrier epoch', 'barier epoch'),
    ]).toMatchInlineSnapshot(`
      [
        "error: expected 'entry', found 'score'
        ┌─ <text>:1:1",
        "error: there is no kind of kernel 'liner'; did you mean 'linear'?
         ┌─ <text>:18:13",
        "error: expected 'anchors' or 'epilogue', found 'anchor'
         ┌─ <text>:10:18",
        "error: %cache_append is no append to that state
         ┌─ <text>:16:11",
        "error: %silu is no append to that state
         ┌─ <text>:20:11",
        "error: expected 'store', found '}'
         ┌─ <text>:20:3",
        "error: the buffer ends before byte 64
         ┌─ <text>:10:63",
        "error: the pool has buffers and no size: expected 'pool'
         ┌─ <text>:24:1",
        "error: expected a value, 'kernel', 'barrier', 'epoch', 'update', 'return', 'pool' or '}', found 'barier'
         ┌─ <text>:12:3",
      ]
    `);
  });
});
