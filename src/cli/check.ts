import { Command } from 'commander';
import { renderFinding } from '../diagnostic.js';
import { readText } from '../input-file.js';
import { checkMetal, type Finding } from '../metal-cpu/index.js';

export function checkCommand(): Command {
  return new Command('check')
    .description("Say what Apple's Metal compiler would refuse in Metal kernels. Needs no Mac")
    .argument('<file.metal...>', 'the kernels')
    .option('--json', 'print the findings as JSON')
    .action(run);
}

async function run(files: readonly string[], { json = false }: { readonly json?: boolean }): Promise<void> {
  const all: (Finding & { readonly file: string })[] = [];
  for (const file of files) {
    const text = readText(file);
    const lines = text.split(/\r?\n/);
    for (const finding of await checkMetal(text, file)) {
      all.push({ file, ...finding });
      if (json) continue;
      const { line, column, length } = finding;
      const span = { file, line, column, length };
      process.stdout.write(`${renderFinding(finding, span, lines[line - 1])}\n\n`);
    }
  }
  if (json) process.stdout.write(`${JSON.stringify(all, null, 2)}\n`);
  if (all.some(({ severity }) => severity === 'error')) process.exitCode = 1;
}
