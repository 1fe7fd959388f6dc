import { elementTypeOf } from '../ir/type.js';
import { writeEpilogue } from './epilogue.js';
import { cacheRow, sum, times } from './expression.js';
import { readsStep, type Site } from './site.js';

/** Arguments and text of the store; comes after the template's own inputs. Adds `step` when the kernel needs it. */
export function writeStore(site: Site, needsStep = false): Record<string, unknown> {
  const { kernel, iteration, list, output } = site;
  const { append, result } = output;
  const epilogue = writeEpilogue(site);
  const number = kernel.outputs.length > 1 ? String(kernel.outputs.indexOf(output)) : '';
  const dtype = elementTypeOf(result.type);
  const name = list.write(`${append ? 'cache' : 'y'}${number}`, result, dtype);
  // Metal would convert by itself; no other language has to.
  const stored = dtype === 'f16' ? { result: `half(${epilogue.result})` } : {};
  const token = iteration.rows > 1 ? 't' : '';
  const row = append ? cacheRow(sum('step.position', token), append.type.shape[0]) : token;
  if (needsStep || append || iteration.rows > 1 || readsStep(site)) list.step();
  const lanes = site.laneOrders.get(result);
  const place = lanes === undefined ? 'n' : `lane_order<${lanes}>(n)`;
  return { ...epilogue, ...stored, output: `${name}[${sum(times(row, iteration.width), place)}]` };
}
