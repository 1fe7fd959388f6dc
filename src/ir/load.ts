import { readFileSync } from 'node:fs';
import { createRequire, SourceMap, type SourceMapPayload } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { Node as AstNode, Project, ts, type CallExpression, type SourceFile } from 'ts-morph';
import * as diagnostic from '../diagnostic.js';
import { relativeTo, UserError, type Span } from '../diagnostic.js';
import { at, type Model, type Site } from './dsl.js';
import * as dsl from './dsl.js';
import * as ropeConfig from './rope-parameters.js';

/**
 * Loads a model file: type-checks it, then runs it with every call of a DSL function wrapped so that the op it adds
 * knows its line and the variable its result is given to. The file's `upgc` is this very module, not another copy.
 */
export function loadModel(file: string): Model {
  const absolute = path.resolve(file);
  readSource(absolute);
  const project = new Project({ compilerOptions: compilerOptions(), skipAddingFilesFromTsConfig: true });
  project.createSourceFile(path.join(path.dirname(absolute), 'upgc-globals.d.ts'), globals);
  const source = project.addSourceFileAtPath(absolute);
  project.resolveSourceFileDependencies();
  checkTypes(project);
  const loaded = new Map<string, Record<string, unknown>>();
  const exported = run(source, project, loaded)['default'];
  if (!isModel(exported)) {
    throw new UserError(`${file} does not export a model`, {
      notes: [
        "write: export default model({ name: '…', config: z.object({ … }), context: … }, (c) => { … })",
      ],
    });
  }
  return exported;
}

/** What a model file may use besides the language and its imports. */
const globals = `declare const console: { ${['log', 'error', 'warn'].map((name) => `${name}(...values: unknown[]): void`).join('; ')} };`;

function readSource(file: string): void {
  if (!file.endsWith('.ts')) {
    throw new UserError(`model file ${file} is not TypeScript`, {
      notes: ['give the path of a .graph.ts file'],
    });
  }
  try {
    readFileSync(file);
  } catch {
    throw new UserError(`model file ${file} cannot be read`, {
      notes: ['give the path of a .graph.ts file'],
    });
  }
}

function isModel(value: unknown): value is Model {
  return typeof value === 'object' && value !== null && 'build' in value && typeof value.build === 'function';
}

/** `upgc` means the declarations of the package that is running, wherever the model file lies. */
function compilerOptions(): ts.CompilerOptions {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const declarations = import.meta.url.endsWith('.ts') ? '../index.ts' : '../index.d.ts';
  return {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ['lib.es2023.d.ts'],
    types: [],
    strict: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    allowImportingTsExtensions: true,
    noEmit: true,
    paths: { upgc: [path.resolve(here, declarations)] },
  };
}

function checkTypes(project: Project): void {
  const own = project.getSourceFiles().filter((source) => isUserFile(source));
  for (const source of own) {
    const [first] = [
      ...project.getProgram().getSyntacticDiagnostics(source),
      ...source.getPreEmitDiagnostics(),
    ];
    if (!first) continue;
    const message = ts.flattenDiagnosticMessageText(first.compilerObject.messageText, '\n  ');
    const start = first.getStart();
    throw new UserError(message, {
      span: start === undefined ? undefined : spanAt(source, start, Math.max(1, first.getLength() ?? 1)),
      notes: [`TypeScript error TS${first.getCode()}`],
    });
  }
}

function isUserFile(source: SourceFile): boolean {
  return (
    !source.isDeclarationFile() &&
    !source.isInNodeModules() &&
    !source.getFilePath().startsWith(packageSources())
  );
}

/** When upgc runs from its sources, they are among the project's files. */
function packageSources(): string {
  return `${path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')}${path.sep}`;
}

function spanAt(source: SourceFile, start: number, length: number): Span {
  const { line, column } = source.getLineAndColumnAtPos(start);
  const rest = source.getFullText().slice(start).split(/\r?\n/, 1)[0] ?? '';
  return { file: source.getFilePath(), line, column, length: Math.min(length, rest.length) };
}

/** Runs a file and what it imports as CommonJS; returns its exports. */
function run(
  source: SourceFile,
  project: Project,
  loaded: Map<string, Record<string, unknown>>,
): Record<string, unknown> {
  const file = source.getFilePath();
  const known = loaded.get(file);
  if (known) return known;
  const exported: Record<string, unknown> = {};
  loaded.set(file, exported);
  const { text, sites } = instrument(source);
  const { outputText, sourceMapText = '{}' } = ts.transpileModule(text, {
    fileName: file,
    compilerOptions: {
      sourceMap: true,
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.CommonJS,
      esModuleInterop: true,
    },
  });
  const nodeRequire = createRequire(file);
  const importModule = (specifier: string): unknown => {
    if (specifier === 'upgc') return { ...diagnostic, ...dsl, ...ropeConfig };
    const target = importTarget(source, specifier);
    return target && isUserFile(target) ? run(target, project, loaded) : nodeRequire(specifier);
  };
  const body = vm.compileFunction(outputText, ['exports', 'require', 'module', '__at'], {
    filename: file,
  }) as (...args: unknown[]) => void;
  const locate = (site: number, f: (...args: never[]) => unknown): unknown => {
    const known = sites[site];
    return known ? at(known, f) : f;
  };
  sourceMaps.set(file, new SourceMap(JSON.parse(sourceMapText) as SourceMapPayload));
  try {
    body(exported, importModule, { exports: exported }, locate);
  } catch (error) {
    throw inModelFile(error);
  }
  return exported;
}

function importTarget(source: SourceFile, specifier: string): SourceFile | undefined {
  return [...source.getImportDeclarations(), ...source.getExportDeclarations()]
    .find((declaration) => declaration.getModuleSpecifierValue() === specifier)
    ?.getModuleSpecifierSourceFile();
}

/** The file's text with each DSL call `f(…)` written `__at(i, f)(…)`, and what is known of call i. */
function instrument(source: SourceFile): { text: string; sites: Site[] } {
  const names = new Set<string>();
  for (const declaration of source.getImportDeclarations()) {
    if (declaration.getModuleSpecifierValue() !== 'upgc') continue;
    for (const named of declaration.getNamedImports())
      names.add(named.getAliasNode()?.getText() ?? named.getName());
  }
  const sites: Site[] = [];
  const edits: { start: number; end: number; text: string }[] = [];
  source.forEachDescendant((node) => {
    if (!AstNode.isCallExpression(node)) return;
    const callee = node.getExpression();
    if (!AstNode.isIdentifier(callee) || !names.has(callee.getText())) return;
    const span = spanAt(source, callee.getStart(), callee.getText().length);
    edits.push({
      start: callee.getStart(),
      end: callee.getEnd(),
      text: `__at(${sites.length}, ${callee.getText()})`,
    });
    sites.push({ span, name: variableOf(node) });
  });
  let text = source.getFullText();
  for (const edit of edits.sort((a, b) => b.start - a.start))
    text = text.slice(0, edit.start) + edit.text + text.slice(edit.end);
  return { text, sites };
}

/** `h` of `const h = add(…)`. */
function variableOf(call: CallExpression): string | undefined {
  const parent = call.getParent();
  return AstNode.isVariableDeclaration(parent) &&
    parent.getInitializer() === call &&
    parent.getNameNode().isKind(ts.SyntaxKind.Identifier)
    ? parent.getName()
    : undefined;
}

/** Where the lines of the code that runs come from, by model file. */
const sourceMaps = new Map<string, SourceMap>();

/** What a model file threw, as an error at its line; our own errors pass through. */
export function inModelFile(error: unknown): unknown {
  if (!(error instanceof Error) || 'detail' in error) return error;
  for (const [, file = '', line, column] of (error.stack ?? '').matchAll(
    /(?:\(|at )([^()\n]+?):(\d+):(\d+)\)?$/gm,
  )) {
    const map = sourceMaps.get(file);
    const entry = map?.findEntry(Number(line) - 1, Number(column) - 1);
    if (!entry || !('originalLine' in entry)) continue;
    const text = readFileSync(file, 'utf8').split(/\r?\n/)[entry.originalLine] ?? '';
    const start = text.length - text.trimStart().length;
    const span = { file, line: entry.originalLine + 1, column: start + 1, length: text.trim().length };
    return new UserError(error.name === 'Error' ? error.message : `${error.name}: ${error.message}`, {
      span,
    });
  }
  const [file] = sourceMaps.keys();
  return file === undefined ? error : new UserError(`${relativeTo(process.cwd(), file)}: ${error.message}`);
}
