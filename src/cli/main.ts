#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { renderError } from '../diagnostic.js';
import { packageVersion } from '../version.js';
/** The commands, each loaded when it is asked for: most need little of what the others do. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  compile: async () => (await import('./compile.js')).compileCommand(),
  dump: async () => (await import('./dump.js')).dumpCommand(),
  run: async () => (await import('./run.js')).runCommand(),
  eval: async () => (await import('./eval.js')).evalCommand(),
  bench: async () => (await import('./bench.js')).benchCommand(),
  kernel: async () => (await import('./kernel.js')).kernelCommand(),
  check: async () => (await import('./check.js')).checkCommand(),
};

/** The command that the command line begins with; all of them for help, or to say what there is. */
function asked(): Promise<Command[]> {
  const entries = Object.entries(commands);
  const named = entries.filter(([name]) => name === process.argv[2]);
  return Promise.all((named.length > 0 ? named : entries).map(([, load]) => load()));
}

const program = new Command('upgc')
  .description(
    'Compiles models written as TypeScript graphs into Metal kernels and a static plan, and runs them.',
  )
  .version(packageVersion)
  .showHelpAfterError('(see --help)');

// A reader that goes away, as `head` does, ends the program and is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  for (const command of await asked()) program.addCommand(command);
  await program.exitOverride().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    process.stderr.write(`${renderError(error)}\n`);
    process.exitCode = 1;
  }
}
