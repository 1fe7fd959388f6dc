import type { Access } from '../passes/access.js';
import { rowStart, sum } from './expression.js';
import { anchorOf, ceilDiv, nameOf, operand, type Site, type Written } from './site.js';
import { reductionsOf } from './write-rows.js';

const pointerOf =
  ({ list, iteration }: Site) =>
  (name: string, access: Access, dtype: 'f32' | 'i32'): string =>
    sum(list.read(name, access.source, dtype), rowStart(access, iteration));

/** The texts of what `threads` threads find out about their own `best` and `index`: the greatest, and the lowest id that has it. */
function winnerOf(site: Site, threads: number, width: number) {
  const { sum: total, max } = reductionsOf(site, threads);
  return {
    greatest: max('most'),
    count: total('own'),
    best: max('best'),
    winner: max(`best == highest ? -float(index) : -${width}.0f`),
  };
}

/** The winners of the parts of a vocabulary among all ids. */
export function writeSampleParts(site: Site): Written {
  const { kernel, layout, target, list } = site;
  const node = anchorOf(kernel, 'sample_parts');
  const logits = operand(node, 0);
  const width = Number(logits.type.shape[1]);
  const { parts } = node.attrs;
  const threads = target.rowThreads;
  const pointer = pointerOf(site);
  const x = pointer('x', layout.of(logits), 'f32');
  const sampling = pointer('sampling', layout.of(operand(node, 3)), 'f32');
  const seed = pointer('seed', layout.of(operand(node, 4)), 'i32');
  const y = list.write('y', kernel.outputs[0].result, 'f32');
  list.step();
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('sample_parts', parts, width),
    doc: `The winner of each of ${parts} parts of ${width} ids when all may be drawn: its score and the id`,
    context: {
      x,
      sampling,
      seed,
      y,
      width,
      threads,
      part: ceilDiv(width, parts),
      ...winnerOf(site, threads, width),
    },
    threads,
    tiles: parts,
  };
}

/** The kernel of the next id also ends the step: it stores the id where the next step reads it, and moves the position on. */
export function writeSample(site: Site): Written {
  const { kernel, layout, target, list } = site;
  const node = anchorOf(kernel, 'sample');
  const logits = operand(node, 0);
  const width = Number(logits.type.shape[1]);
  const threads = Math.min(target.scanThreads, Math.ceil(width / target.simdWidth) * target.simdWidth);
  const pointer = pointerOf(site);
  const x = pointer('x', layout.of(logits), 'f32');
  const sampling = pointer('sampling', layout.of(operand(node, 3)), 'f32');
  const seed = pointer('seed', layout.of(operand(node, 4)), 'i32');
  const [, , , , , winners] = node.inputs;
  const parts = winners
    ? [{ winners: pointer('winners', layout.of(winners), 'f32'), parts: Number(winners.type.shape[1]) }]
    : [];
  const ids = list.write('ids', kernel.outputs[0].result, 'i32');
  list.endOfStep();
  list.position('thread_index_in_threadgroup');
  return {
    name: nameOf('sample', winners ? `of_${Number(winners.type.shape[1])}` : '', width),
    doc: `Draws the next of ${width} ids, stores it after the tokens so far and ends the step`,
    context: {
      x,
      sampling,
      seed,
      ids,
      width,
      threads,
      batch: threads > 1 ? 8 : 1,
      parts,
      ...winnerOf(site, threads, width),
    },
    threads,
    tiles: 1,
  };
}
