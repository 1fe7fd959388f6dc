#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { renderError } from '../diagnostic.js';
import { packageVersion } from '../version.js';
import { checkCommand } from './check.js';
import { compileCommand } from './compile.js';
import { dumpCommand } from './dump.js';
import { evalCommand } from './eval.js';
import { kernelCommand } from './kernel.js';
import { runCommand } from './run.js';

const program = new Command('upgc')
  .description(
    'Compiles models written as TypeScript graphs into Metal kernels and a static plan, and runs them.',
  )
  .version(packageVersion)
  .showHelpAfterError('(see --help)')
  .addCommand(compileCommand())
  .addCommand(dumpCommand())
  .addCommand(runCommand())
  .addCommand(evalCommand())
  .addCommand(kernelCommand())
  .addCommand(checkCommand());

// A reader that goes away, as `head` does, ends the program and is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await program.exitOverride().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    process.stderr.write(`${renderError(error)}\n`);
    process.exitCode = 1;
  }
}
