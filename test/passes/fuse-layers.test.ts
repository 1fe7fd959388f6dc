import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isLeaf } from '../../src/ir/graph.js';
import type { Entry } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { narrowLast } from '../../src/passes/narrow-last.js';
import { formatEntry, kernelName } from '../../src/passes/text.js';
import { entryOf, graphOf } from '../support/graphs.js';

const embedded = (width = 4): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [10, width]));
const project = (x: dsl.Tensor, name: string, n: number, bias?: dsl.Tensor): dsl.Tensor =>
  dsl.linear(x, dsl.weight(name, [n, Number(x.type.shape[1])]), bias);

/** The kernels of a scoring step, which has nothing but the model in it. */
function fused(body: () => dsl.Tensor): Entry {
  return entryOf(graphOf(body), 'score', [fuseLayers]);
}

const names = (entry: Entry): string[] => entry.kernels.map(kernelName);

describe('epilogues', () => {
  it('take a residual into the product', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.add(x, project(x, 'w', 4));
    };
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 4]
        }
        kernel k1 linear_add {
          %linear = linear %embed, @w : f32[T, 4]
          %add = add %embed, %linear : f32[T, 4]
        }
      }
      "
    `);
  });

  it('take a chain, its bias and its number', () => {
    const body = (): dsl.Tensor =>
      dsl.scale(dsl.gelu(dsl.add(project(embedded(), 'w', 4), dsl.weight('b', [4]))), { by: 3 });
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 4]
        }
        kernel k1 linear_add_gelu_scale {
          %linear = linear %embed, @w : f32[T, 4]
          %add = add %linear, @b : f32[T, 4]
          %gelu = gelu %add : f32[T, 4]
          %scale = scale %gelu { by: 3 } : f32[T, 4]
        }
      }
      "
    `);
  });

  it('follow every producer but argmax', () => {
    const x = (): dsl.Tensor => embedded();
    const heads = (): dsl.Tensor => dsl.splitHeads(project(x(), 'w', 4), 2);
    const bodies: readonly (() => dsl.Tensor)[] = [
      () => dsl.silu(x()),
      () => dsl.silu(dsl.rmsNorm(x(), dsl.weight('n', [4]), { eps: 1 })),
      () => dsl.mergeHeads(dsl.silu(dsl.rope(heads(), { theta: 10 }))),
      () => dsl.mergeHeads(dsl.silu(dsl.attention(heads(), heads(), heads(), { causal: true }))),
      () => dsl.silu(dsl.softmax(x())),
    ];
    expect(bodies.map((body) => names(fused(body)).filter((name) => name.endsWith('silu')))).toEqual([
      ['embed_silu'],
      ['rms_norm_silu'],
      ['rope_silu'],
      ['attention_silu'],
      ['softmax_silu'],
    ]);
  });

  it('do not follow argmax', () => {
    const entry = entryOf(
      graphOf(() => embedded()),
      'decode',
      [fuseLayers],
    );
    expect(names(entry)).toEqual(['embed', 'argmax']);
    const [, argmax] = entry.kernels;
    expect(argmax?.epilogue).toEqual([]);
  });

  it('join the latest of two products, the other is stored', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.add(project(x, 'a', 4), project(dsl.silu(x), 'b', 4));
    };
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 4]
        }
        kernel k1 linear {
          %linear = linear %embed, @a : f32[T, 4]
        }
        kernel k2 silu {
          %silu = silu %embed : f32[T, 4]
        }
        kernel k3 linear_add {
          %linear.1 = linear %silu, @b : f32[T, 4]
          %add = add %linear, %linear.1 : f32[T, 4]
        }
      }
      "
    `);
  });

  it('do not swallow a value that is used twice', () => {
    const body = (): dsl.Tensor => {
      const y = project(embedded(), 'w', 4);
      return dsl.add(dsl.silu(y), project(y, 'v', 4));
    };
    expect(names(fused(body))).toEqual(['embed', 'linear', 'linear_silu_add']);
  });

  it('do swallow a value whose uses are all inside', () => {
    const body = (): dsl.Tensor => {
      const y = project(embedded(), 'w', 4);
      return dsl.mul(dsl.silu(y), dsl.gelu(y));
    };
    expect(names(fused(body))).toEqual(['embed', 'linear_silu_gelu_mul']);
  });

  it('do not swallow an elementwise value that another kernel reads', () => {
    const body = (): dsl.Tensor => {
      const y = dsl.silu(embedded());
      return dsl.add(y, project(y, 'w', 4));
    };
    expect(names(fused(body))).toEqual(['embed_silu', 'linear_add']);
  });

  it('do not swallow an output', () => {
    // The logits feed argmax and are an output: both need them in memory.
    const entry = entryOf(
      graphOf(() => dsl.silu(embedded())),
      'decode',
      [fuseLayers],
    );
    expect(names(entry)).toEqual(['embed_silu', 'argmax']);
  });

  it('do not cross from one shape to another', () => {
    const body = (): dsl.Tensor => {
      const bias = dsl.silu(dsl.weight('b', [4]));
      return dsl.add(embedded(), bias);
    };
    expect(names(fused(body))).toEqual(['silu', 'embed_add']);
  });
});

describe('gated MLPs', () => {
  it('of one matrix that is split are one kernel', () => {
    const body = (): dsl.Tensor => {
      const [gate, up] = dsl.split(project(embedded(), 'gate_up', 12), [6, 6]);
      return dsl.mul(dsl.silu(gate), up);
    };
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 4]
        }
        kernel k1 linear_silu_mul {
          %linear = linear %embed, @gate_up : f32[T, 12]
          %split = split %linear { sizes: [6,6], part: 0 } : f32[T, 6]
          %silu = silu %split : f32[T, 6]
          %split.1 = split %linear { sizes: [6,6], part: 1 } : f32[T, 6]
          %mul = mul %silu, %split.1 : f32[T, 6]
        }
      }
      "
    `);
  });

  it('of two matrices are one kernel', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.mul(dsl.silu(project(x, 'gate', 6)), project(x, 'up', 6));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear_silu_mul']);
    expect(entry.kernels[1]?.anchors.map((anchor) => anchor.inputs[1]?.op)).toEqual(['weight', 'weight']);
  });

  it('of matrices that read different vectors are two', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.mul(dsl.silu(project(dsl.gelu(x), 'gate', 6)), project(x, 'up', 6));
    };
    expect(
      fused(body)
        .kernels.filter((kernel) => kernel.kind === 'linear')
        .map((k) => k.anchors.length),
    ).toEqual([1, 1]);
  });

  it('with a third part that somebody else reads are stored whole', () => {
    const body = (): dsl.Tensor => {
      const [gate, up, rest] = dsl.split(project(embedded(), 'w', 18), [6, 6, 6]);
      return dsl.add(dsl.mul(dsl.silu(gate), up), project(rest, 'v', 6));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear', 'linear_silu_mul_add']);
    expect(entry.kernels[2]?.anchors).toHaveLength(1);
  });

  it('of parts of different sizes are stored whole', () => {
    const body = (): dsl.Tensor => {
      const [a, b] = dsl.split(project(embedded(), 'w', 9), [6, 3]);
      return dsl.add(dsl.silu(a), project(dsl.silu(b), 'v', 6));
    };
    expect(names(fused(body))).toEqual(['embed', 'linear', 'silu', 'linear_silu_add']);
  });
});

describe('cache appends', () => {
  const attended = (q: dsl.Tensor, k: dsl.Tensor, v: dsl.Tensor): dsl.Tensor =>
    dsl.mergeHeads(dsl.attention(q, k, v, { causal: true }));

  it('follow the product through reshapes, and rope directly', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const heads = (name: string): dsl.Tensor => dsl.splitHeads(project(x, name, 8), 2);
      return attended(heads('q'), dsl.rope(heads('k'), { theta: 10 }), heads('v'));
    };
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 8]
        }
        kernel k1 linear {
          %linear = linear %embed, @q : f32[T, 8]
        }
        kernel k2 linear {
          %linear.1 = linear %embed, @k : f32[T, 8]
        }
        kernel k3 rope_cache {
          %rope = rope %reshape.1, %rope_table, %position : f32[T, 2, 4]
          %cache_append = cache_append %k_cache.0, %rope, %position : f32[C, 2, 4]
        }
        kernel k4 linear_cache {
          %linear.2 = linear %embed, @v : f32[T, 8]
          %reshape.2 = reshape %linear.2 { shape: ["T",2,4] } : f32[T, 2, 4]
          %cache_append.1 = cache_append %v_cache.0, %reshape.2, %position : f32[C, 2, 4]
        }
        kernel k5 attention {
          %attention = attention %reshape, %cache_append, %cache_append.1, %position { causal: true } : f32[T, 2, 4]
        }
        kernel k6 copy {
          %reshape.3 = reshape %attention { shape: ["T",8] } : f32[T, 8]
        }
      }
      "
    `);
  });

  it('follow an epilogue', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const k = dsl.splitHeads(dsl.add(project(x, 'k', 8), dsl.weight('b', [8])), 2);
      const q = dsl.splitHeads(x, 2);
      return attended(q, k, dsl.splitHeads(project(x, 'v', 8), 2));
    };
    expect(names(fused(body))).toEqual(['embed', 'linear_add_cache', 'linear_cache', 'attention', 'copy']);
  });

  it('copy what a split leaves in a shared buffer', () => {
    const body = (): dsl.Tensor => {
      const [q, k, v] = dsl.split(project(embedded(8), 'qkv', 16), [8, 4, 4]);
      return attended(dsl.splitHeads(q, 2), dsl.splitHeads(k, 1), dsl.splitHeads(v, 1));
    };
    expect(names(fused(body))).toEqual(['embed', 'linear', 'copy_cache', 'copy_cache', 'attention', 'copy']);
  });

  it('copy a value that is read elsewhere', () => {
    const body = (): dsl.Tensor => {
      const x = dsl.splitHeads(embedded(4), 1);
      return attended(x, x, x);
    };
    expect(names(fused(body))).toEqual(['embed', 'copy_cache', 'copy_cache', 'attention', 'copy']);
  });
});

describe('views', () => {
  it('are not computed when strides express them', () => {
    const body = (): dsl.Tensor => {
      const [a, b] = dsl.split(embedded(8), [4, 4]);
      return dsl.add(dsl.silu(a), b);
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'silu_add']);
  });

  it('are copied when they cannot be expressed', () => {
    const body = (): dsl.Tensor => {
      const [left] = dsl.split(dsl.splitHeads(embedded(8), 2), [3, 1]);
      return project(dsl.mergeHeads(left), 'w', 4);
    };
    expect(formatEntry(fused(body))).toMatchInlineSnapshot(`
      "entry score {
        kernel k0 embed {
          %embed = embed %tokens, @table : f32[T, 8]
        }
        kernel k1 copy {
          %reshape.1 = reshape %split { shape: ["T",6] } : f32[T, 6]
        }
        kernel k2 linear {
          %linear = linear %reshape.1, @w : f32[T, 4]
        }
      }
      "
    `);
  });

  it('are copied when they are an output', () => {
    const entry = fused(() => dsl.mergeHeads(dsl.splitHeads(embedded(), 2)));
    expect(names(entry)).toEqual(['embed', 'copy']);
  });

  it('of the last token need no copy', () => {
    const entry = entryOf(
      graphOf(() => project(embedded(), 'w', 4)),
      'prefill',
      [narrowLast, fuseLayers],
    );
    expect(names(entry)).toEqual(['embed', 'linear', 'argmax']);
  });
});

it('borders enclose every computed node once', () => {
  const entry = fused(() => {
    const x = embedded(8);
    const h = dsl.add(x, project(dsl.rmsNorm(x, dsl.weight('n', [8]), { eps: 1 }), 'w', 8));
    return dsl.mul(dsl.silu(project(h, 'gate', 6)), project(h, 'up', 6));
  });
  const inside = entry.kernels.flatMap((kernel) => [...kernel.nodes]);
  expect(new Set(inside)).toEqual(new Set(entry.graph.nodes.filter((node) => !isLeaf(node))));
  expect(inside).toHaveLength(new Set(inside).size);
});
