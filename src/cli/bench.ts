import { Command } from 'commander';
import { ladderCommand } from './bench-ladder.js';

/** What there is to measure, each a command of its own. */
export function benchCommand(): Command {
  return new Command('bench').description('Measure on this machine').addCommand(ladderCommand());
}
