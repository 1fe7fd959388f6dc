export { checkMetal, checkRules, type CheckRule, type Finding } from './check.js';
