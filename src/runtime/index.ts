/** What `import … from 'upgc/runtime'` gives: running compiled plans. Needs nothing of the compiler. */
export { compareBuilds, evaluate } from './evaluate.js';
export type { Comparison, EvaluateOptions, Evaluation } from './evaluate.js';
export type { Execution } from './execution.js';
export { Session } from './session.js';
export type { GeneratedToken, GenerateOptions, OpenOptions, SessionStats } from './session.js';
export { readPlan, type Plan } from './plan.js';
export type { TextStream, TextTokenizer } from './tokenizer.js';
export { renderError, UserError } from '../diagnostic.js';
