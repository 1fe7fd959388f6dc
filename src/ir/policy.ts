import { z } from 'zod';
import { nearest, UserError } from '../diagnostic.js';
import { packedNames, type PackedName } from './packed.js';

/**
 * Which format the matrices of a model are stored in. A policy is a list of rules; the first that fits a matrix holds,
 * and a matrix that none fits stays as it is. Only what `linear` and `embed` read is a matrix here.
 */

const formats = ['f32', 'f16', 'bf16', ...packedNames] as const;
/** `stored`: as the checkpoint has it. */
const chosenFormats = ['stored', ...formats] as const;
export const roles = ['embedding', 'lm_head', 'qkv'] as const;
const methods = ['search', 'nearest'] as const;

/**
 * What a matrix does: `embedding` is looked up, the product with `lm_head` is the logits, those with `qkv` are the
 * queries, keys and values of attention. One may have several.
 */
export type Role = (typeof roles)[number];
/** How integers are chosen: by scales of least squared error, or by rounding to the nearest of the full range. */
export type Method = (typeof methods)[number];

/** Which matrices a rule is for. */
export const chosenSchema = z.strictObject({
  /** Of the tensor's name, `*` being any text; every name without. */
  match: z.string().min(1).optional(),
  role: z.enum(roles).optional(),
});
export type Chosen = z.output<typeof chosenSchema>;
export const choosesSome = ({ match, role }: Chosen): boolean => match !== undefined || role !== undefined;
export const needsChoice = 'needs match or role';

const ruleSchema = chosenSchema
  .extend({ format: z.enum(chosenFormats), method: z.enum(methods).optional() })
  .refine(choosesSome, needsChoice);
export const policySchema = z.array(ruleSchema);

export type Rule = z.output<typeof ruleSchema>;
export type Policy = readonly Rule[];

/** A policy, or the name of one: a recipe (`q4`) or a format for all matrices (`q4g32`, `bf16`). */
export type Quantize = string | Policy;

const all = (format: Rule['format']): Policy => [{ match: '*', format }];

/**
 * The policies that have short names. In q4, what costs most divergence for its bytes has a bit more: see "Quality" in
 * docs/weights.md. They are few of a large model's weights: Phi-4 takes 4.68 bits each.
 */
const recipes: ReadonlyMap<string, Policy> = new Map([
  [
    'q4',
    [
      { role: 'lm_head', format: 'q5g32' },
      { role: 'embedding', format: 'q5g32' },
      { role: 'qkv', format: 'q5g32' },
      ...all('q4g32'),
    ],
  ],
  ['q5', all('q5g32')],
  ['q6', all('q6g32')],
  ['q8', all('q8g32')],
]);

export const policyNames: readonly string[] = [...recipes.keys(), ...chosenFormats];

/** @throws {UserError} when there is no policy of that name, or a rule is wrong */
export function policyOf(quantize: Quantize): Policy {
  if (typeof quantize !== 'string') return checkPolicy(quantize, 'the policy');
  const format = chosenFormats.find((name) => name === quantize);
  const policy = recipes.get(quantize) ?? (format && all(format));
  if (policy) return policy;
  const near = nearest(quantize, policyNames);
  throw new UserError(`there is no quantisation '${quantize}'`, {
    notes: [
      ...(near === undefined ? [] : [`did you mean '${near}'?`]),
      `there are ${policyNames.join(', ')}, and files of rules (*.json)`,
    ],
  });
}

/** @throws {UserError} that names the rule; `where` is what holds the policy */
export function checkPolicy(value: unknown, where: string): Policy {
  return checkRules(policySchema, value, where, '"format": "q4g32"');
}

/** A list of rules; `example` is what a rule of its kind says of the matrices it is for. */
export function checkRules<R>(schema: z.ZodType<R>, value: unknown, where: string, example: string): R {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError(`${where} is not a list of rules`, {
    notes: [
      ...parsed.error.issues
        .slice(0, 5)
        .map(({ path, message }) =>
          path.length > 0 ? `rule ${path.map(String).join('.')}: ${message}` : message,
        ),
      `a rule is { "match": "*.mlp.*", ${example} }, or has "role": "embedding", "lm_head" or "qkv"; see docs/weights.md`,
    ],
  });
}

/** The first rule for a matrix of that name. */
export function ruleFor<R extends Chosen>(
  policy: readonly R[],
  name: string,
  own: ReadonlySet<Role>,
): R | undefined {
  return policy.find(
    ({ match, role }) =>
      (match === undefined || matches(match, name)) && (role === undefined || own.has(role)),
  );
}

/** Whether a name has the parts of the pattern between its `*` in their order. */
function matches(pattern: string, name: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  const last = rest.pop();
  if (last === undefined) return name === pattern;
  if (!name.startsWith(first)) return false;
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

/** Small integers need good scales; 8 bits are near enough as they fall. */
export const defaultMethod = (format: PackedName): Method => (format.startsWith('q8') ? 'nearest' : 'search');
