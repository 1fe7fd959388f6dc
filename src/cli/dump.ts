import { Command } from 'commander';
import { FILE_HEADERS_ONLY, formatPatch, structuredPatch } from 'diff';
import { checkName, CompilerBug, UserError } from '../diagnostic.js';
import { readText, shown } from '../input-file.js';
import { formatGraph } from '../ir/text.js';
import { parseStage } from '../passes/parse.js';
import { checkStage, stageNames } from '../passes/pipeline.js';
import { formatEntry } from '../passes/text.js';
import { targets } from '../passes/target.js';
import { verifyEntry } from '../passes/verify.js';
import { entryNames } from '../runtime/plan.js';
import { withModelOptions, type ModelFlags } from './arguments.js';

interface DumpFlags extends ModelFlags {
  readonly stage?: string;
  readonly entry?: string;
  readonly diff?: boolean;
}

export function dumpCommand(): Command {
  const command = new Command('dump')
    .description('Print a model as it is after a pass, or what each pass changes. Nothing is written')
    .argument(
      '[model.graph.ts]',
      'the model (default: as of compile); or a text this command printed, FILE.ir, to check and print',
    )
    .option('--stage <pass>', `after which pass (default: the last): ${stageNames.join(', ')}`)
    .option('--entry <name>', `one entry point (default: all): ${entryNames.join(', ')}`)
    .option('--diff', 'print what each pass changed; with --stage, what that one did');
  return withModelOptions(command).action(run);
}

async function run(
  file: string | undefined,
  { stage, entry, diff = false, ...model }: DumpFlags,
): Promise<void> {
  if (entry !== undefined) checkName('entry', 'entries', entry, entryNames);
  if (stage !== undefined) checkStage(stage);
  if (file?.endsWith('.ir')) {
    if (stage !== undefined || entry !== undefined || diff)
      throw new UserError(`${shown(file)} is printed whole`, {
        notes: ['leave --stage, --entry and --diff out'],
      });
    process.stdout.write(checkedText(file));
    return;
  }
  if (diff && stage === stageNames[0])
    throw new UserError(`no pass comes before ${stage}, so it changed nothing`, {
      notes: ['leave --diff out'],
    });
  const last = stage ?? stageNames.at(-1);
  const entries = entry === undefined ? entryNames : [entry];
  let before: { readonly stage: string; readonly texts: readonly string[] } | undefined;
  // It loads TypeScript, which --help and FILE.ir do not need.
  const { compile } = await import('../compiler.js');
  await compile({
    model: file,
    ...model,
    out: null,
    ...(last === undefined ? {} : { stopAfter: last }),
    onStage: (name, text) => {
      if (!diff) {
        if (name === last) process.stdout.write(text(entry));
        return;
      }
      const after = { stage: name, texts: entries.map(text) };
      if (before && (stage === undefined || stage === name)) {
        for (const [i, each] of entries.entries())
          process.stdout.write(
            changes(each, before.stage, before.texts[i] ?? '', name, after.texts[i] ?? ''),
          );
      }
      before = after;
    },
  });
}

/** What a pass did to an entry, as a unified diff. How far lines are indented makes no difference. */
function changes(entry: string, oldStage: string, oldText: string, stage: string, text: string): string {
  const heading = `${entry} after ${stage}`;
  const patch = structuredPatch(`${entry} after ${oldStage}`, heading, oldText, text, '', '', {
    context: 1,
    ignoreWhitespace: true,
  });
  return patch.hunks.length === 0 ? `${heading} (unchanged)\n` : formatPatch(patch, FILE_HEADERS_ONLY);
}

/** The text of a file, parsed, verified, and printed anew; where values come from is lost. */
function checkedText(file: string): string {
  const stage = parseStage(readText(file), file);
  if (!Array.isArray(stage)) return formatGraph(stage);
  // The text does not say for which target it is.
  const alignment = Math.min(...Object.values(targets).map((target) => target.alignment));
  try {
    for (const entry of stage) verifyEntry(entry, `reading ${shown(file)}`, alignment);
  } catch (error) {
    if (error instanceof CompilerBug) throw new UserError(error.message, error.detail);
    throw error;
  }
  return stage.map(formatEntry).join('\n');
}
