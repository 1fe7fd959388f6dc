import { readdirSync, readFileSync } from 'node:fs';
import Handlebars from 'handlebars';
import { packedNames, type PackedName } from '../ir/packed.js';
import { packageVersion } from '../version.js';
import { layoutOf } from '../passes/access.js';
import type { Entry, Kernel } from '../passes/entry.js';
import { laneOrders } from '../passes/split.js';
import type { Target } from '../passes/target.js';
import { floatLiteral } from './expression.js';
import type { Argument, Operand } from './arguments.js';
import { writeKernel } from './kernels.js';
import { writeFormat } from './packed.js';

/** kernels.metal and how each kernel of each entry is launched. */
export interface Emitted {
  readonly text: string;
  readonly kernels: readonly EmittedKernel[];
  readonly launches: ReadonlyMap<Kernel, Launch>;
}

export interface EmittedKernel {
  readonly name: string;
  readonly threads: number;
  readonly arguments: readonly Argument[];
}

export interface Launch {
  /** Index into `Emitted.kernels`. */
  readonly kernel: number;
  readonly grid: readonly [number, number, number];
  /** What its buffers are bound to, in order. */
  readonly operands: readonly Operand[];
}

const folder = new URL('../../src/codegen/templates/', import.meta.url);
const source = (name: string): string => readFileSync(new URL(name, folder), 'utf8');

type Template = (context: Readonly<Record<string, unknown>>) => string;

const templates = new Map<string, Template>();

function template(name: string): Template {
  if (templates.size === 0) {
    const handlebars = Handlebars.create();
    for (const file of readdirSync(folder)) {
      if (!file.endsWith('.metal.hbs')) handlebars.registerPartial(file.replace('.hbs', ''), source(file));
    }
    for (const file of readdirSync(folder)) {
      if (!file.endsWith('.metal.hbs')) continue;
      const compiled = handlebars.compile(source(file), { strict: true, noEscape: true });
      templates.set(file.replace('.metal.hbs', ''), (context) => compiled(context));
    }
  }
  const found = templates.get(name);
  if (!found) throw new Error(`template ${name} is missing from ${folder.pathname}`);
  return found;
}

/** Writes the kernels of all entries into one text. Kernels that come out alike are written once. */
export function emit(model: string, entries: readonly Entry[], target: Target): Emitted {
  const texts: string[] = [];
  const kernels: EmittedKernel[] = [];
  const indexOf = new Map<string, number>();
  const launches = new Map<Kernel, Launch>();
  const formats = new Set<PackedName>();
  const matmul: Readonly<Record<string, unknown>>[] = [];
  let sparse = false;
  for (const entry of entries) {
    const site = { entry, layout: layoutOf(entry), laneOrders: laneOrders(entry, target), target };
    for (const kernel of entry.kernels) {
      const written = writeKernel(kernel, site);
      const render = (name: string): string =>
        template(written.template)({ ...written.context, name }).trimEnd();
      // Two kernels of one name differ in how they find their operands: number them.
      let name = written.name;
      let text = render(name);
      for (let i = 2; indexOf.has(name) && texts[indexOf.get(name) ?? 0] !== text; i++) {
        name = `${written.name}_${i}`;
        text = render(name);
      }
      const index = indexOf.get(name) ?? kernels.length;
      if (index === kernels.length) {
        indexOf.set(name, index);
        texts.push(text);
        if (written.template === 'matmul' && matmul.length === 0) matmul.push(written.context);
        kernels.push({ name, threads: written.threads, arguments: written.list.arguments });
      }
      for (const format of written.list.formats) formats.add(format);
      sparse ||= written.list.sparse;
      launches.set(kernel, { kernel: index, grid: written.grid, operands: written.list.operands });
    }
  }
  const text = template('kernels')({
    model,
    target: target.name,
    version: packageVersion,
    kernels: texts,
    dependents: target.split ? [{}] : [],
    matmul,
    packed:
      formats.size > 0
        ? [
            {
              formats: packedNames
                .filter((name) => formats.has(name))
                .map((name) => writeFormat(name, target, matmul.length > 0)),
            },
          ]
        : [],
    sparse: sparse ? [{ wide: target.simdWidth > 1 ? [{}] : [], packed: formats.size > 0 ? [{}] : [] }] : [],
    ulp: floatLiteral(2 ** -23),
    lanes: target.simdWidth > 1 ? [{}] : [],
    loopHints:
      target.simdWidth === 1
        ? [
            '    // Vectorised across rows, this would transpose the sums.',
            '    #pragma clang loop vectorize(disable)',
          ]
        : [],
  });
  return { text, kernels, launches };
}
