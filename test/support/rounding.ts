/** Unit roundoff of f32. */
export const u = 2 ** -24;

/** The same of halves, and the greatest absolute error of one that is subnormal. */
export const halfUnit = 2 ** -11;
export const halfTiny = 2 ** -25;

/** The greatest absolute error of an operation whose result is subnormal, flushed to zero or not. */
export const tiny = 2 ** -126;

/** Relative errors of the CPU device's functions: native/msl/elementary.h states them in ulp, and 1 ulp ≤ 2u. */
export const expError = 1.0 * 2 * u;
export const logError = 1.0 * 2 * u;
export const tanhError = 1.6 * 2 * u;

/** γ_k: the relative error of k roundings. */
export const gamma = (k: number): number => (k * u) / (1 - k * u);
