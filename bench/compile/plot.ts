export interface Point {
  readonly x: number;
  readonly y: number;
}

const width = 640;
const height = 360;
const margin = 56;

/** A multiple of 1, 2 or 5 times a power of ten that cuts `most` into at most six steps. */
function stepOf(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return ([1, 2, 5, 10].find((factor) => most / (factor * power) <= 6) ?? 10) * power;
}

/** A line plot from the origin as SVG, with the straight line through the origin and the last point for comparison. */
export function plot(points: readonly Point[], xLabel: string, yLabel: string): string {
  const mostX = Math.max(...points.map(({ x }) => x));
  const mostY = Math.max(...points.map(({ y }) => y)) * 1.05;
  const atX = (x: number): string => (margin + (x / mostX) * (width - 2 * margin)).toFixed(1);
  const atY = (y: number): string => (height - margin - (y / mostY) * (height - 2 * margin)).toFixed(1);
  const ticks = (most: number): number[] => {
    const step = stepOf(most);
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
  };
  const last = points.at(-1) ?? { x: 0, y: 0 };
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...ticks(mostX).map(
      (x) => `<text x="${atX(x)}" y="${height - margin + 18}" text-anchor="middle">${x}</text>`,
    ),
    ...ticks(mostY).flatMap((y) => [
      `<line x1="${margin}" x2="${width - margin}" y1="${atY(y)}" y2="${atY(y)}" stroke="#ddd"/>`,
      `<text x="${margin - 8}" y="${Number(atY(y)) + 4}" text-anchor="end">${y}</text>`,
    ]),
    `<line x1="${atX(0)}" y1="${atY(0)}" x2="${atX(last.x)}" y2="${atY(last.y)}" stroke="#999" stroke-dasharray="4"/>`,
    `<polyline fill="none" stroke="#06c" stroke-width="2" points="${points.map(({ x, y }) => `${atX(x)},${atY(y)}`).join(' ')}"/>`,
    ...points.map(({ x, y }) => `<circle cx="${atX(x)}" cy="${atY(y)}" r="3" fill="#06c"/>`),
    `<text x="${width / 2}" y="${height - 12}" text-anchor="middle">${xLabel}</text>`,
    `<text x="16" y="${height / 2}" text-anchor="middle" transform="rotate(-90 16 ${height / 2})">${yLabel}</text>`,
    '</svg>',
    '',
  ];
  return lines.join('\n');
}
