/** `28.2 MiB`; exact below a KiB. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit] ?? 'B'}`;
}

/** `14.66 B`, `260,032`. */
export function formatCount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} B`;
  return count.toLocaleString('en-US');
}

/** Tokens per second over a time in ms; 0 when no time passed. */
export function rate(tokens: number, ms: number): number {
  return ms > 0 ? Math.round((tokens / ms) * 1e4) / 10 : 0;
}
