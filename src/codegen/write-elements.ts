import { kernelName, kernelSteps } from '../passes/text.js';
import { rowStart } from './expression.js';
import {
  ceilDiv,
  operand,
  anchorOf,
  matrixRows,
  requireTokenRows,
  nameOf,
  type Site,
  type Written,
} from './site.js';
import { writeStore } from './store.js';

/** How a kernel that treats every element alike is cut: blocks of a row. */
function blockShape({ target, iteration }: Site) {
  const wanted = Math.min(target.rowThreads, ceilDiv(iteration.width, target.simdWidth) * target.simdWidth);
  return {
    width: iteration.width,
    block: target.block,
    threads: Math.max(1, wanted),
    tiles: ceilDiv(iteration.width, target.block),
  };
}

export function writeEmbed(site: Site): Written {
  const { kernel, layout, list, iteration } = site;
  const node = anchorOf(kernel, 'embed');
  requireTokenRows(node);
  const ids = layout.of(operand(node, 0));
  const table = operand(node, 1);
  const idName = list.read('ids', ids.source, 'i32');
  const { dtype, declared, row, element } = matrixRows(site, 'table', table);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  const shape = blockShape(site);
  return {
    name: nameOf('embed', dtype, kernelSteps(kernel), iteration.width),
    doc: `Row ids[t] of a table with ${iteration.width} columns`,
    context: {
      ...store,
      ...shape,
      declared,
      row: row(`uint(${idName}[${rowStart(ids, iteration)}])`),
      element: element('row', 'n'),
    },
    threads: shape.threads,
    tiles: shape.tiles,
  };
}

export function writeElementwise(site: Site): Written {
  const { output, kernel, list, iteration } = site;
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  const shape = blockShape(site);
  return {
    name: nameOf(kernelName(kernel), iteration.width),
    doc: `${output.epilogue.length > 0 ? 'Elementwise over' : 'Copies'} rows of ${iteration.width}`,
    context: {
      ...store,
      ...shape,
    },
    threads: shape.threads,
    tiles: shape.tiles,
  };
}
