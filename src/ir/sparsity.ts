import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import { checkRules, choosesSome, chosenSchema, needsChoice, roles } from './policy.js';

/**
 * Which matrices of a model are pruned, and how much of them is kept. A policy is a list of rules; the first that fits a
 * matrix holds, and one that none fits is kept whole.
 */

/** Rows and columns of what is kept or dropped together; see docs/weights.md for what each costs. */
export const blocks = {
  '1x1': [1, 1],
  '16x1': [16, 1],
  '4x8': [4, 8],
} as const satisfies Record<string, readonly [number, number]>;
export type BlockName = keyof typeof blocks;
const blockNames = Object.keys(blocks) as [BlockName, ...BlockName[]];

const ruleSchema = z.discriminatedUnion('method', [
  chosenSchema
    .extend({
      method: z.literal('magnitude'),
      /** The share of each row that is kept. */
      density: z.number().positive().max(1),
      block: z.enum(blockNames).default('1x1'),
    })
    .refine(choosesSome, needsChoice),
  chosenSchema.extend({ method: z.literal('none') }).refine(choosesSome, needsChoice),
]);
const policySchema = z.array(ruleSchema);

export type SparsityRule = z.output<typeof ruleSchema>;
export type SparsityPolicy = readonly SparsityRule[];

/** A policy, or one in short: see `sparsityOf`. */
export type Sparsify = string | z.input<typeof policySchema>;

/** @throws {UserError} that names the rule; `where` is what holds the policy */
export function checkSparsity(value: unknown, where: string): SparsityPolicy {
  return checkRules(policySchema, value, where, '"method": "magnitude", "density": 0.5');
}

/**
 * Reads `magnitude:0.5`, `magnitude:0.25:4x8`, or several with what they are for, such as
 * `lm_head=none,*.mlp.*=magnitude:0.5`: a name, a pattern of names, or a role.
 * @throws {UserError} that shows the part that is wrong
 */
export function sparsityOf(sparsify: Sparsify): SparsityPolicy {
  if (typeof sparsify !== 'string') return checkSparsity(sparsify, 'the policy');
  return sparsify.split(',').map((part) => {
    const at = part.lastIndexOf('=');
    const pattern = at < 0 ? '*' : part.slice(0, at).trim();
    if (pattern === '') throw wrong(part, 'it names no matrix before the =');
    const role = roles.find((name) => name === pattern);
    const chosen = role ? { role } : { match: pattern };
    const how = part.slice(at + 1).trim();
    if (how === 'none') return { ...chosen, method: 'none' };
    const [method, density = '', blockName = '1x1', ...others] = how.split(':');
    if (method !== 'magnitude') throw wrong(part, `there is no method '${method ?? ''}'`);
    const block = blockNames.find((name) => name === blockName);
    if (!block || others.length > 0)
      throw wrong(part, `blocks are ${blockNames.join(', ')}, not '${[blockName, ...others].join(':')}'`);
    const share = /^\d*\.?\d+$/.test(density) ? Number(density) : NaN;
    if (!(share > 0 && share <= 1))
      throw wrong(
        part,
        `the density is the share of a row that is kept, above 0 and at most 1, not '${density}'`,
      );
    return { ...chosen, method, density: share, block };
  });
}

function wrong(part: string, why: string): UserError {
  return new UserError(`cannot sparsify by '${part.trim()}': ${why}`, {
    notes: [
      'expected magnitude:DENSITY, such as magnitude:0.5 or magnitude:0.25:4x8, or none;',
      "before it may stand which matrices: '*.mlp.*=magnitude:0.5,lm_head=none'; or a file of rules (*.json)",
    ],
  });
}
