import path from 'node:path';
import { Project, type SourceFile } from 'ts-morph';
import { describe, expect, it } from 'vitest';

const root = path.join(import.meta.dirname, '..');

/** What each file of src imports, by path from src; packages by name, `node:` ones left out. */
type ImportGraph = ReadonlyMap<string, readonly string[]>;

function importsOf(source: SourceFile, folder: string): string[] {
  const declarations = [...source.getImportDeclarations(), ...source.getExportDeclarations()];
  return declarations.flatMap((declaration) => {
    const specifier = declaration.getModuleSpecifierValue();
    if (specifier === undefined || specifier.startsWith('node:')) return [];
    if (!specifier.startsWith('.'))
      return [
        specifier
          .split('/')
          .slice(0, specifier.startsWith('@') ? 2 : 1)
          .join('/'),
      ];
    const target = path.join(path.dirname(source.getFilePath()), specifier.replace(/\.js$/, '.ts'));
    return [path.relative(folder, target)];
  });
}

function importGraph(project: Project, folder: string): ImportGraph {
  return new Map(
    project
      .getSourceFiles()
      .map((source) => [path.relative(folder, source.getFilePath()), importsOf(source, folder)]),
  );
}

/** Parts of src that may import only the parts listed, besides themselves and what everybody may. */
const allowed: { readonly [part: string]: readonly string[] } = {
  ir: [],
  passes: ['ir'],
  codegen: ['passes', 'ir', 'runtime/plan.ts'],
  weights: ['ir', 'runtime/addon.ts', 'runtime/native.ts'],
  runtime: [],
  'metal-cpu': ['runtime'],
  'architectures.ts': ['weights'],
  'calibrate.ts': ['build-folder.ts', 'ir', 'weights', 'runtime'],
  'build-folder.ts': ['codegen', 'passes', 'ir', 'weights', 'runtime/plan.ts'],
  'compiler.ts': [
    'architectures.ts',
    'build-folder.ts',
    'calibrate.ts',
    'codegen',
    'passes',
    'ir',
    'weights',
    'runtime/plan.ts',
    // Which devices there are.
    'runtime/addon.ts',
  ],
  'index.ts': ['ir', 'compiler.ts', 'runtime'],
  cli: ['compiler.ts', 'codegen', 'passes', 'ir', 'weights', 'runtime', 'metal-cpu'],
};

/** What is not a part: small files that know nothing of compilers. */
const common = ['diagnostic.ts', 'input-file.ts', 'version.ts'];

/** Packages that only the compiler needs. */
const compilerPackages = ['ts-morph', 'typescript', 'handlebars'];

const inside = (file: string, part: string): boolean => file === part || file.startsWith(`${part}/`);

/** `a.ts → b.ts` for every import that goes the wrong way. */
function wrongImports(graph: ImportGraph): string[] {
  const wrong: string[] = [];
  for (const [file, imports] of graph) {
    const part = Object.keys(allowed).find((candidate) => inside(file, candidate));
    const fine = part === undefined ? [] : [part, ...(allowed[part] ?? [])];
    for (const target of imports) {
      if (!graph.has(target) && !target.endsWith('.ts')) continue;
      if (![...fine, ...common].some((one) => inside(target, one))) wrong.push(`${file} → ${target}`);
    }
  }
  return wrong;
}

/** Everything that a file needs to be loaded. */
function reachable(graph: ImportGraph, start: string): ReadonlySet<string> {
  const seen = new Set([start]);
  for (const file of seen) for (const target of graph.get(file) ?? []) seen.add(target);
  return seen;
}

/** What the runtime would load of the compiler. */
function compilerInRuntime(graph: ImportGraph): string[] {
  const parts = ['ir', 'passes', 'codegen', 'weights', 'cli', 'compiler.ts', ...compilerPackages];
  const needed = [...graph.keys()]
    .filter((file) => inside(file, 'runtime'))
    .flatMap((file) => [...reachable(graph, file)]);
  return [...new Set(needed)].filter((file) => parts.some((part) => inside(file, part)));
}

/** The graph of files that exist only here. */
function made(files: Readonly<Record<string, string>>): ImportGraph {
  const project = new Project({ useInMemoryFileSystem: true });
  for (const [name, text] of Object.entries(files)) project.createSourceFile(`/src/${name}`, text);
  return importGraph(project, '/src');
}

describe('imports of src', () => {
  const project = new Project({ skipAddingFilesFromTsConfig: true });
  project.addSourceFilesAtPaths(path.join(root, 'src/**/*.ts'));
  const graph = importGraph(project, path.join(root, 'src'));

  it('are all found', () => {
    expect(graph.size).toBeGreaterThan(30);
    for (const imports of graph.values())
      for (const target of imports) if (target.endsWith('.ts')) expect(graph.has(target), target).toBe(true);
    expect(graph.get('passes/pipeline.ts')).toContain('passes/fuse-layers.ts');
    expect(graph.get('ir/load.ts')).toContain('ts-morph');
  });

  it('belong to a part', () => {
    const known = [...Object.keys(allowed), ...common];
    expect([...graph.keys()].filter((file) => !known.some((part) => inside(file, part)))).toEqual([]);
  });

  it('go one way', () => {
    expect(wrongImports(graph)).toEqual([]);
  });

  it('bring nothing of the compiler into the runtime', () => {
    expect(compilerInRuntime(graph)).toEqual([]);
    expect([...reachable(graph, 'runtime/index.ts')]).toContain('runtime/session.ts');
  });

  it('make no circle', () => {
    const circular = [...graph.keys()].filter((file) =>
      (graph.get(file) ?? []).some((target) => target !== file && reachable(graph, target).has(file)),
    );
    expect(circular).toEqual([]);
  });
});

describe('the check', () => {
  it('finds imports that go the wrong way', () => {
    const graph = made({
      'ir/graph.ts': `import { x } from '../passes/entry.js';`,
      'passes/entry.ts': `export type { T } from '../codegen/emit.js';\nexport const x = 1;`,
      'codegen/emit.ts': `import '../runtime/session.js'; import '../runtime/plan.js';`,
      'runtime/plan.ts': `import 'zod'; import '../diagnostic.js';`,
      'runtime/session.ts': '',
      'diagnostic.ts': `import 'node:path';`,
    });
    expect(wrongImports(graph)).toEqual([
      'codegen/emit.ts → runtime/session.ts',
      'ir/graph.ts → passes/entry.ts',
      'passes/entry.ts → codegen/emit.ts',
    ]);
  });

  it('follows imports into packages', () => {
    const graph = made({
      'runtime/index.ts': `import './session.js';`,
      'runtime/session.ts': `import '../diagnostic.js';`,
      'diagnostic.ts': `import 'ts-morph'; import './ir/text.js';`,
      'ir/text.ts': '',
    });
    expect(compilerInRuntime(graph)).toEqual(['ts-morph', 'ir/text.ts']);
    expect(wrongImports(graph)).toEqual(['diagnostic.ts → ir/text.ts']);
  });
});
