import { CompilerBug } from '../diagnostic.js';
import { isOp } from '../ir/graph.js';
import { rowPointer, inParentheses, sum, times } from './expression.js';
import {
  ceilDiv,
  operand,
  parameter,
  requireTokenRows,
  fusedSteps,
  nameOf,
  writeStore,
  strip,
  type Site,
  type Written,
} from './site.js';

export function writeLinear(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const products = kernel.anchors.map((part) => (isOp(part, 'split') ? operand(part, 0) : part));
  const [product] = products;
  if (!product) throw new CompilerBug('a linear kernel has no product');
  for (const each of products) requireTokenRows(each);
  const x = layout.of(operand(product, 0));
  const [k = 0] = product.inputs[1]?.type.shape.slice(1) ?? [];
  const n = iteration.width;
  const { rows, simdgroups } = target.matvec;
  const xName = list.read('x', x.source, 'f32');
  const perGroup = rows * simdgroups;
  // Rows past the end read the last row, and are not stored.
  const whole = n % perGroup === 0;
  const parts = kernel.anchors.map((part, i) => {
    const linear = products[i] ?? product;
    const weight = parameter(site, `weight${i === 0 ? '' : i}`, operand(linear, 1));
    const offset = isOp(part, 'split')
      ? part.attrs.sizes.slice(0, part.attrs.part).reduce((a, b) => a + b, 0)
      : 0;
    const row = inParentheses(sum('m', String(offset)));
    const [, , biasNode] = linear.inputs;
    const bias = biasNode && parameter(site, `bias${i === 0 ? '' : i}`, biasNode);
    const read = bias && `${bias.open}${bias.buffer}[${sum(bias.start, 'n', String(offset))}]${bias.close}`;
    return {
      sums: `sums${i}`,
      block: `block${i}`,
      value: `v${i}`,
      type: weight.type,
      weight: weight.buffer,
      start: sum(weight.start, times(row, weight.stride)),
      open: weight.open,
      close: weight.close,
      bias: read === undefined ? '' : whole ? ` + ${read}` : ` + (n < ${n} ? ${read} : 0.0f)`,
    };
  });
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  if (simdgroups > 1) list.position('simdgroup_index_in_threadgroup');
  const length = Number(k);
  const biased = product.inputs.length > 2 ? 'bias' : '';
  return {
    name: nameOf(
      iteration.rows > 1 ? 'matmul' : 'matvec',
      operand(product, 1).type.dtype,
      biased,
      fusedSteps(kernel),
      `${n}x${length}`,
    ),
    doc: `${iteration.rows > 1 ? 'Each vector of x' : 'The vector x'} times the rows of ${parts.length > 1 ? `${parts.length} matrices` : 'a matrix'}, ${n} x ${length}`,
    context: {
      ...store,
      ...strip(length, target.simdWidth, target.vector),
      x: rowPointer(xName, x, iteration),
      k: length,
      rows,
      vector: target.vector,
      simdWidth: target.simdWidth,
      parts,
      loopHints:
        target.simdWidth === 1
          ? [
              '    // Vectorised across rows, this would transpose the sums.',
              '    #pragma clang loop vectorize(disable)',
            ]
          : [],
      firstRow: times(
        inParentheses(sum(times('group.y', simdgroups), simdgroups > 1 ? 'simdgroup' : '')),
        rows,
      ),
      clampedRow: whole ? 'first + r' : `metal::min(first + r, ${n - 1}u)`,
      storeGuard: whole ? 'lane == 0' : `lane == 0 && n < ${n}`,
    },
    threads: simdgroups * target.simdWidth,
    tiles: ceilDiv(n, perGroup),
  };
}
