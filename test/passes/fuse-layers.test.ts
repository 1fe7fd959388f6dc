import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isLeaf, isOp } from '../../src/ir/graph.js';
import { kernelSources, layoutOf } from '../../src/passes/access.js';
import { resultsOf, type Entry, type Kernel } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { narrowLast } from '../../src/passes/narrow-last.js';
import { targets } from '../../src/passes/target.js';
import { kernelName } from '../../src/passes/text.js';
import { verifyEntry } from '../../src/passes/verify.js';
import { entryOf, graphOf } from '../support/graphs.js';

const embedded = (width = 4): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [10, width]));
const project = (x: dsl.Tensor, name: string, n: number, bias?: dsl.Tensor): dsl.Tensor =>
  dsl.linear(x, dsl.weight(name, [n, Number(x.type.shape[1])]), bias);
const norm = (x: dsl.Tensor): dsl.Tensor =>
  dsl.rmsNorm(x, dsl.weight('gain', [Number(x.type.shape[1])]), { eps: 1e-5 });
const turn = (x: dsl.Tensor, dims?: number): dsl.Tensor =>
  dsl.rope(x, dims === undefined ? { theta: 10 } : { theta: 10, dims });
const attended = (q: dsl.Tensor, k: dsl.Tensor, v: dsl.Tensor): dsl.Tensor =>
  dsl.mergeHeads(dsl.attention(q, k, v, { causal: true }));

/** The kernels of a scoring step, which has nothing but the model in it. */
function fused(body: () => dsl.Tensor): Entry {
  return entryOf(graphOf(body), 'score', [fuseLayers]);
}

const names = (entry: Entry): string[] => entry.kernels.map(kernelName);
/** `linear_norm: the host reads %linear`: each kernel and why each of its results is stored. */
const borders = (entry: Entry): string[] =>
  entry.kernels.map(
    (kernel) => `${kernelName(kernel)}: ${kernel.outputs.map(({ border }) => border).join('; ')}`,
  );
/** The ops inside each kernel, in the graph's order. */
const contents = ({ graph, kernels }: Entry): string[][] =>
  kernels.map(({ nodes }) => graph.nodes.filter((node) => nodes.has(node)).map(({ op }) => op));

function kernelAt(entry: Entry, index: number): Kernel {
  const kernel = entry.kernels[index];
  if (!kernel) throw new Error(`no kernel ${index}`);
  return kernel;
}
/** The names of the weights that a kernel's products multiply with, for each of its results. */
const matricesOf = (kernel: Kernel): string[][] =>
  kernel.outputs.map(({ anchors }) =>
    anchors.flatMap((anchor) => {
      const product = isOp(anchor, 'split') ? anchor.inputs[0] : anchor;
      const matrix = product?.inputs[1];
      return matrix && isOp(matrix, 'weight') ? [matrix.attrs.name] : [];
    }),
  );

it('does not fuse when told so', () => {
  const body = (): dsl.Tensor => {
    const x = norm(embedded());
    const [q, k, v] = ['q', 'k', 'v'].map((name) => dsl.splitHeads(project(x, name, 4), 2));
    const y = q && k && v ? attended(turn(q), turn(k), v) : x;
    return dsl.add(x, dsl.mul(dsl.silu(project(y, 'gate', 4)), project(y, 'up', 4)));
  };
  const entry = fuseLayers.run(entryOf(graphOf(body), 'score', []), { target: targets.metal, fuse: false });
  verifyEntry(entry, 'fuse-layers', targets.metal.alignment);
  const views: readonly string[] = ['reshape', 'split'];
  const computed = entry.graph.nodes.filter((node) => !isLeaf(node) && !views.includes(node.op));
  expect(computed.length).toBeGreaterThan(12);
  expect(contents(entry).map(String).toSorted()).toEqual(computed.map(({ op }) => op).toSorted());
  expect(borders(entry)).toContain('silu: nothing is fused');
});

describe('epilogues', () => {
  it('take a residual into the product', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.add(x, project(x, 'w', 4));
    };
    const entry = fused(body);
    expect(contents(entry)).toEqual([['embed'], ['linear', 'add']]);
    expect(borders(entry)).toEqual([
      'embed: every row of a product needs all of %embed',
      'linear_add: the host reads %add',
    ]);
  });

  it('take a chain, its bias and its number', () => {
    const body = (): dsl.Tensor =>
      dsl.scale(dsl.gelu(dsl.add(project(embedded(), 'w', 4), dsl.weight('b', [4]))), { by: 3 });
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear_add_gelu_scale']);
    const [{ anchors, epilogue, result }] = kernelAt(entry, 1).outputs;
    expect([anchors, epilogue, [result]].map((nodes) => nodes.map(({ op }) => op))).toEqual([
      ['linear'],
      ['add', 'gelu', 'scale'],
      ['scale'],
    ]);
  });

  it('follow every producer of rows', () => {
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
      ['linear_rope_silu'],
      ['attention_silu'],
      ['softmax_silu'],
    ]);
  });

  it('do not follow what draws an id', () => {
    const entry = entryOf(
      graphOf(() => embedded()),
      'decode',
      [fuseLayers],
    );
    expect(names(entry)).toEqual(['embed', 'sample']);
    expect(kernelAt(entry, 1).outputs[0].epilogue).toEqual([]);
  });

  it('join the latest of two products, the other is stored', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.add(project(x, 'a', 4), project(dsl.silu(x), 'b', 4));
    };
    const entry = fused(body);
    expect(contents(entry)).toEqual([['embed'], ['linear'], ['silu'], ['linear', 'add']]);
    expect(borders(entry)).toEqual([
      'embed: 2 kernels read %embed',
      'linear: its reader is computed with another operand than %linear',
      'silu: every row of a product needs all of %silu',
      'linear_add: the host reads %add',
    ]);
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
    // The logits feed sample and are an output: both need them in memory.
    const entry = entryOf(
      graphOf(() => dsl.silu(embedded())),
      'decode',
      [fuseLayers],
    );
    expect(names(entry)).toEqual(['embed_silu', 'sample']);
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
    const entry = fused(body);
    expect(contents(entry)).toEqual([['embed'], ['linear', 'split', 'silu', 'split', 'mul']]);
    expect(matricesOf(kernelAt(entry, 1))).toEqual([['gate_up', 'gate_up']]);
  });

  it('of two matrices are one kernel', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.mul(dsl.silu(project(x, 'gate', 6)), project(x, 'up', 6));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear_silu_mul']);
    expect(matricesOf(kernelAt(entry, 1))).toEqual([['gate', 'up']]);
  });

  it('of matrices that read different vectors are two', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.mul(dsl.silu(project(dsl.gelu(x), 'gate', 6)), project(x, 'up', 6));
    };
    const products = fused(body).kernels.filter(({ kind }) => kind === 'linear');
    expect(products.map(matricesOf)).toEqual([[['gate']], [['up']]]);
  });

  it('with a third part that somebody else reads are stored whole', () => {
    const body = (): dsl.Tensor => {
      const [gate, up, rest] = dsl.split(project(embedded(), 'w', 18), [6, 6, 6]);
      return dsl.add(dsl.mul(dsl.silu(gate), up), project(rest, 'v', 6));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear', 'linear_silu_mul_add']);
    expect(matricesOf(kernelAt(entry, 2))).toEqual([['v']]);
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
  it('follow the product through reshapes, turned or not', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const heads = (name: string): dsl.Tensor => dsl.splitHeads(project(x, name, 8), 2);
      return attended(dsl.splitHeads(dsl.silu(x), 2), turn(heads('k')), heads('v'));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'silu', 'linear_rope_cache', 'attention', 'copy']);
    expect(contents(entry)[2]).toEqual([
      'linear',
      'reshape',
      'rope',
      'cache_append',
      'linear',
      'reshape',
      'cache_append',
    ]);
  });

  it('follow an epilogue', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const k = dsl.splitHeads(dsl.add(project(x, 'k', 8), dsl.weight('b', [8])), 2);
      const q = dsl.splitHeads(x, 2);
      return attended(q, k, dsl.splitHeads(project(x, 'v', 8), 2));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'linear_add_cache', 'attention', 'copy']);
    expect(kernelAt(entry, 1).outputs.map(({ epilogue, append }) => [epilogue.length, append?.op])).toEqual([
      [1, 'cache_append'],
      [0, 'cache_append'],
    ]);
  });

  it('follow an operand that is no product', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const heads = dsl.splitHeads(x, 2);
      return attended(heads, turn(heads), dsl.splitHeads(dsl.silu(x), 2));
    };
    expect(names(fused(body))).toEqual(['embed', 'rope_cache', 'silu_cache', 'attention', 'copy']);
  });

  it('copy a value that is read elsewhere', () => {
    const body = (): dsl.Tensor => {
      const x = dsl.splitHeads(embedded(4), 1);
      return attended(x, x, x);
    };
    const entry = fused(body);
    expect(names(entry)).toEqual(['embed', 'copy_cache', 'copy_cache', 'attention', 'copy']);
    expect(borders(entry)[0]).toBe('embed: 3 kernels read %embed');
  });
});

describe('norms', () => {
  it('are computed by the product that reads them', () => {
    const entry = fused(() => project(norm(embedded()), 'w', 6));
    expect(borders(entry)).toEqual([
      'embed: every row of a product needs all of %embed',
      'linear_norm: the host reads %linear',
    ]);
    const { prologue, outputs } = kernelAt(entry, 1);
    expect(prologue?.op).toBe('rms_norm');
    expect(outputs).toHaveLength(1);
  });

  it('are computed once for all products that read them', () => {
    const body = (): dsl.Tensor => {
      const x = norm(embedded(8));
      const heads = (name: string): dsl.Tensor => dsl.splitHeads(project(x, name, 8), 2);
      return attended(turn(heads('q')), turn(heads('k')), heads('v'));
    };
    const entry = fused(body);
    expect(borders(entry)).toEqual([
      'embed: every row of a product needs all of %embed',
      'linear_norm_rope_cache: attention needs whole heads of %rope; the cache outlives the step; the cache outlives the step',
      'attention: a copy moves %attention',
      'copy: the host reads %reshape.3',
    ]);
    expect(matricesOf(kernelAt(entry, 1))).toEqual([['q'], ['k'], ['v']]);
  });

  it('are computed once for a parallel attention block and gated MLP', () => {
    const body = (): dsl.Tensor => {
      const x = embedded(8);
      const y = norm(x);
      const heads = (name: string): dsl.Tensor => dsl.splitHeads(project(y, name, 8), 2);
      const mixed = project(attended(turn(heads('q')), turn(heads('k')), heads('v')), 'o', 8);
      const hidden = dsl.mul(dsl.silu(project(y, 'gate', 12)), project(y, 'up', 12));
      return dsl.add(dsl.add(x, mixed), project(hidden, 'down', 8));
    };
    const entry = fused(body);
    expect(names(entry)).toEqual([
      'embed',
      'linear_norm_rope_cache_silu_mul',
      'attention',
      'linear',
      'linear_add_add',
    ]);
    expect(matricesOf(kernelAt(entry, 1))).toEqual([['q'], ['k'], ['v'], ['gate', 'up']]);
  });

  it('of the last token only, where nothing else is needed', () => {
    const entry = entryOf(
      graphOf(() => project(norm(embedded()), 'w', 4)),
      'prefill',
      [narrowLast, fuseLayers],
    );
    expect(contents(entry)[1]).toEqual(['rms_norm', 'linear']);
    expect(names(entry)).toEqual(['embed', 'linear_norm', 'sample']);
  });

  /** The border of the norm that stays a kernel of its own. */
  const kept = (entry: Entry): string[] => borders(entry).filter((border) => border.startsWith('rms_norm'));

  it('stay when the product adds them to its result', () => {
    const body = (): dsl.Tensor => {
      const x = norm(embedded());
      return dsl.add(x, project(x, 'w', 4));
    };
    expect(kept(fused(body))).toEqual(['rms_norm: not only the products of one kernel read %rms_norm']);
  });

  it('stay when another kernel reads them', () => {
    const body = (): dsl.Tensor => {
      const x = norm(embedded());
      return dsl.add(project(dsl.silu(x), 'v', 4), project(x, 'w', 4));
    };
    expect(kept(fused(body))).toEqual(['rms_norm: 2 kernels read %rms_norm']);
  });

  it('stay when products of two levels read them', () => {
    const body = (): dsl.Tensor => {
      const x = norm(embedded());
      return dsl.mul(dsl.softmax(project(x, 'a', 4)), project(x, 'b', 4));
    };
    // The epilogue of b waits for a.
    expect(kept(fused(body))).toEqual(['rms_norm: 2 kernels read %rms_norm']);
  });

  it('stay when they are an output', () => {
    const entry = entryOf(
      graphOf(() => project(norm(embedded()), 'w', 6)),
      'score',
      [],
    );
    const [hidden] = entry.graph.nodes.filter((node) => isOp(node, 'rms_norm'));
    if (!hidden) throw new Error('no norm');
    const outputs = new Map([...entry.graph.outputs, ['hidden', hidden]]);
    const observed = { ...entry, graph: { ...entry.graph, outputs } };
    const result = fuseLayers.run(observed, { target: targets.cpu });
    verifyEntry(result, 'fuse-layers', 64);
    expect(kept(result)).toEqual(['rms_norm: the host reads %rms_norm']);
  });

  it('stay when something is computed on their elements first', () => {
    const entry = fused(() => project(dsl.silu(norm(embedded())), 'w', 6));
    expect(borders(entry)[1]).toBe('rms_norm_silu: every row of a product needs all of %silu');
  });

  it('stay when their rows are heads', () => {
    const body = (): dsl.Tensor => {
      const heads = dsl.splitHeads(embedded(8), 2);
      const normed = dsl.rmsNorm(heads, dsl.weight('gain', [4]), { eps: 1 });
      return project(dsl.mergeHeads(normed), 'w', 6);
    };
    expect(kept(fused(body))).toEqual(['rms_norm: every row of a product needs all of %rms_norm']);
  });

  it.each(Object.values(targets))(
    'stay when threadgroup memory on $name is too small for a row',
    (target) => {
      const of = (width: number): string[] =>
        kept(
          entryOf(
            graphOf(() => project(norm(embedded(width)), 'w', 4)),
            'score',
            [fuseLayers],
            { context: 64, chunk: 4, target },
          ),
        );
      const most = (target.threadgroupBytes - 32 * 4) / 4;
      expect(of(most)).toEqual([]);
      expect(of(most + 1)).toEqual(['rms_norm: threadgroup memory is too small for a row of %rms_norm']);
    },
  );

  describe.each([
    [
      'every threadgroup repeating them costs more than a dispatch',
      5128,
      'each of 240 threadgroups making its own costs more than a dispatch for',
    ],
    ['products are made in tiles', 5120, 'many tiles of a chunk read'],
  ])('stay when %s', (_, width, reason) => {
    const step = (name: 'decode' | 'score'): string[] =>
      kept(
        entryOf(
          graphOf(() => project(norm(embedded(width)), 'qkv', 7680)),
          name,
          [fuseLayers],
          { context: 64, chunk: 64, target: targets.metal },
        ),
      );
    it('in a chunk', () => expect(step('score')).toEqual([`rms_norm: ${reason} %rms_norm`]));
    it('but not in a single token', () => expect(step('decode')).toEqual([]));
  });
});

describe('rotations', () => {
  const heads = (x: dsl.Tensor, count = 2): dsl.Tensor => dsl.splitHeads(x, count);
  const rotated = (body: (x: dsl.Tensor) => dsl.Tensor, width = 8): Entry =>
    fused(() => dsl.mergeHeads(body(embedded(width))));

  it('join the product whose whole result they turn', () => {
    const entry = rotated((x) => turn(heads(project(x, 'w', 8))));
    expect(names(entry)).toEqual(['embed', 'linear_rope', 'copy']);
    const [{ anchors, epilogue }] = kernelAt(entry, 1).outputs;
    expect([anchors, epilogue].map(([node]) => node?.op)).toEqual(['linear', 'rope']);
  });

  it('join with a bias before them and elements computed after them', () => {
    const entry = rotated((x) => dsl.silu(turn(heads(project(x, 'w', 8, dsl.weight('b', [8]))))));
    expect(names(entry)).toEqual(['embed', 'linear_rope_silu', 'copy']);
  });

  it('join when they turn some elements of a head only', () => {
    const entry = rotated((x) => turn(heads(project(x, 'w', 12)), 4), 8);
    expect(names(entry)).toEqual(['embed', 'linear_rope', 'copy']);
  });

  it('stay when an odd number of elements of a head is left over', () => {
    const entry = rotated((x) => turn(heads(project(x, 'w', 6)), 2));
    expect(borders(entry).slice(1, 3)).toEqual([
      'linear: a rotation reads pairs of %linear',
      'rope: a copy moves %rope',
    ]);
  });

  it('stay when something is computed between', () => {
    const entry = rotated((x) => turn(heads(dsl.silu(project(x, 'w', 8)))));
    expect(borders(entry)[1]).toBe('linear_silu: a rotation reads pairs of %silu');
  });

  it('stay when the product has another reader', () => {
    const entry = rotated((x) => {
      const y = heads(project(x, 'w', 8));
      return dsl.add(turn(y), y);
    });
    expect(borders(entry).slice(1, 3)).toEqual([
      'linear: a rotation reads pairs of %linear',
      'rope_add: a copy moves %add',
    ]);
  });

  it('stay when their epilogue waits for something as late as the product', () => {
    const entry = rotated((x) => {
      const other = heads(project(x, 'b', 8));
      return dsl.add(turn(heads(project(x, 'a', 8))), other);
    });
    expect(names(entry)).toEqual(['embed', 'linear', 'rope_add', 'copy']);
    expect(kernelAt(entry, 1).outputs).toHaveLength(2);
  });

  it('join with an epilogue that reads what is earlier than the product', () => {
    const entry = rotated((x) => dsl.add(turn(heads(project(dsl.silu(x), 'a', 8))), heads(x)));
    expect(names(entry)).toEqual(['embed', 'silu', 'linear_rope_add', 'copy']);
  });
});

describe('parts of a product', () => {
  const parts = (entry: Entry): (readonly (string | undefined)[])[] =>
    kernelAt(entry, 1).outputs.map(({ anchors, epilogue, append }) =>
      [...anchors, ...epilogue, append].map((node) => node?.op),
    );

  it('are results of its kernel, turned, stored in a cache, or both', () => {
    const entry = fused(() => {
      const [q, k, v] = dsl.split(project(norm(embedded(8)), 'qkv', 16), [8, 4, 4]);
      return attended(turn(dsl.splitHeads(q, 2)), turn(dsl.splitHeads(k, 1), 2), dsl.splitHeads(v, 1));
    });
    expect(names(entry)).toEqual(['embed', 'linear_norm_rope_cache', 'attention', 'copy']);
    expect(parts(entry)).toEqual([
      ['split', 'rope', undefined],
      ['split', 'rope', 'cache_append'],
      ['split', 'cache_append'],
    ]);
    expect(matricesOf(kernelAt(entry, 1))).toEqual([['qkv'], ['qkv'], ['qkv']]);
  });

  it('are stored plain when only others are more than that, and every reader finds them', () => {
    const entry = fused(() => {
      const [q, k, v] = dsl.split(project(embedded(8), 'qkv', 16), [8, 4, 4]);
      const mixed = attended(dsl.splitHeads(q, 2), dsl.splitHeads(k, 1), dsl.splitHeads(v, 1));
      const [left, right] = dsl.split(q, [4, 4]);
      return dsl.add(project(dsl.mul(left, right), 'o', 8), mixed);
    });
    expect(parts(entry)).toEqual([
      ['split', undefined],
      ['split', 'cache_append'],
      ['split', 'cache_append'],
    ]);
    const [stored] = resultsOf(kernelAt(entry, 1));
    const layout = layoutOf(entry);
    const readers = entry.kernels.filter((kernel) => stored && kernelSources(kernel, layout).has(stored));
    expect(readers.map(kernelName)).toEqual(['mul', 'attention']);
    expect(borders(entry)[1]).toMatch(/^linear_cache: 2 kernels read %split;/);
    expect(stored && layout.of(stored)).toMatchObject({ source: stored, offset: 0, strides: [8, 1] });
  });

  it('that nobody reads are not computed', () => {
    const entry = fused(() => {
      const [, k, v] = dsl.split(project(embedded(8), 'qkv', 16), [8, 4, 4]);
      return attended(dsl.splitHeads(embedded(8), 2), dsl.splitHeads(k, 1), dsl.splitHeads(v, 1));
    });
    const product = entry.kernels.find(({ kind }) => kind === 'linear');
    expect(product?.outputs.map(({ append }) => append?.op)).toEqual(['cache_append', 'cache_append']);
  });

  it('stay parts of one result when none is more than that', () => {
    const entry = fused(() => {
      const [a, b] = dsl.split(project(embedded(8), 'w', 12), [8, 4]);
      return dsl.add(dsl.softmax(a), project(b, 'v', 8));
    });
    expect(borders(entry)[1]).toBe('linear: 2 kernels read %linear');
  });

  it('stay together when results and what they read would be more than 31 buffers', () => {
    let weights = 0;
    const entry = fused(() => {
      const [q, k, v] = dsl.split(project(embedded(8), 'qkv', 24), [8, 8, 8]);
      const biased = (part: dsl.Tensor): dsl.Tensor => {
        let x = turn(dsl.splitHeads(part, 2));
        for (let i = 0; i < 11; i++) x = dsl.add(x, dsl.weight(`b${weights++}`, [4]));
        return x;
      };
      return attended(biased(q), biased(k), biased(v));
    });
    expect(entry.kernels.map(({ kind }) => kind)).toEqual([
      'embed',
      'linear',
      'rope',
      'rope',
      'rope',
      'attention',
      'elementwise',
    ]);
    expect(borders(entry)[1]).toBe('linear: 3 kernels read %linear');
  });
});

describe('products of one operand', () => {
  const products = (entry: Entry): string[][][] =>
    entry.kernels.filter(({ kind }) => kind === 'linear').map(matricesOf);

  it('become one kernel', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return project(dsl.add(dsl.softmax(project(x, 'a', 5)), dsl.softmax(project(x, 'b', 5))), 'c', 4);
    };
    expect(products(fused(body))).toEqual([[['a'], ['b']], [['c']]]);
  });

  it('stay apart when one depends on the other', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      // b reads x through a residual that a is part of; c reads x itself.
      const y = project(dsl.add(x, project(x, 'a', 4)), 'b', 4);
      return dsl.mul(y, project(x, 'c', 4));
    };
    const entry = fused(body);
    expect(products(entry)).toEqual([[['a']], [['b']], [['c']]]);
    expect(names(entry)).toEqual(['embed', 'linear_add', 'linear', 'linear_mul']);
  });

  it('stay apart when they are ready at different times', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      // The epilogue of b waits for a.
      return dsl.mul(dsl.softmax(project(x, 'a', 4)), project(x, 'b', 4));
    };
    expect(products(fused(body))).toEqual([[['a']], [['b']]]);
  });

  it('stay apart when their operands differ, but not when the types of their matrices do', () => {
    const sum = (x: dsl.Tensor, y: dsl.Tensor): dsl.Tensor =>
      dsl.add(dsl.softmax(project(x, 'a', 4)), dsl.softmax(project(y, 'b', 4)));
    const operands = (): dsl.Tensor => {
      const x = embedded();
      return sum(dsl.silu(x), dsl.gelu(x));
    };
    expect(products(fused(operands))).toEqual([[['a']], [['b']]]);
    const graph = dsl.buildGraph(
      'types',
      { dtype: 'f32', dtypeOf: (name) => (name === 'b' ? 'bf16' : 'f32') },
      () => {
        const x = embedded();
        return sum(x, x);
      },
    );
    expect(products(entryOf(graph, 'score', [fuseLayers]))).toEqual([[['a'], ['b']]]);
  });

  it('are no parts of one kernel when the types of their matrices differ', () => {
    const gated = (dtype: 'f32' | 'bf16'): Entry =>
      entryOf(
        dsl.buildGraph('types', { dtype: 'f32', dtypeOf: (name) => (name === 'up' ? dtype : 'f32') }, () => {
          const x = embedded();
          return dsl.mul(dsl.silu(project(x, 'gate', 4)), project(x, 'up', 4));
        }),
        'score',
        [fuseLayers],
      );
    expect(contents(gated('f32'))).toEqual([['embed'], ['linear', 'silu', 'linear', 'mul']]);
    expect(contents(gated('bf16'))).toEqual([['embed'], ['linear'], ['silu', 'linear', 'mul']]);
  });

  it('become as many kernels as 31 buffers allow', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      const terms = Array.from({ length: 16 }, (_, i) => dsl.softmax(project(x, `w${i}`, 4)));
      return terms.reduce((a, b) => dsl.add(a, b));
    };
    // x, a matrix and a result for each of 14, the step: 30.
    expect(products(fused(body)).map((kernel) => kernel.length)).toEqual([14, 2]);
  });
});

describe('views', () => {
  it('are not computed when strides express them', () => {
    const body = (): dsl.Tensor => {
      const [a, b] = dsl.split(embedded(8), [4, 4]);
      return dsl.add(dsl.silu(a), b);
    };
    const entry = fused(body);
    expect(borders(entry)).toEqual([
      'embed: an elementwise kernel of its own reads %embed',
      'silu_add: the host reads %add',
    ]);
  });

  it('are copied when they cannot be expressed', () => {
    const body = (): dsl.Tensor => {
      const [left] = dsl.split(dsl.splitHeads(embedded(8), 2), [3, 1]);
      return project(dsl.mergeHeads(left), 'w', 4);
    };
    const entry = fused(body);
    expect(borders(entry)).toEqual([
      'embed: a copy moves %embed',
      'copy: every row of a product needs all of %reshape.1',
      'linear: the host reads %linear',
    ]);
    expect(contents(entry)[1]).toEqual(['reshape']);
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
    expect(names(entry)).toEqual(['embed', 'linear', 'sample']);
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
