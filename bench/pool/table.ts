/** Pool sizes of one problem, in bytes. */
export interface Row {
  readonly problem: string;
  readonly buffers: number;
  /** The most bytes alive at once. */
  readonly lowerBound: number;
  readonly bytes: number;
  /** Whether the planner has proven that no placement needs fewer bytes. */
  readonly optimal: boolean;
  /** Processor time of the planner. */
  readonly ms: number;
  readonly greedyBySize: number;
  readonly bestFit: number;
  readonly firstFit: number;
  readonly noReuse: number;
}

const headings = [
  'problem',
  'buffers',
  'lower bound',
  'upgc',
  'proven',
  'ms',
  'greedy by size',
  'best fit',
  'first fit',
  'no reuse',
] as const;

/** One line of the table. Sizes of other planners are followed by how much they are above the planner's. */
function cells(row: Row): string[] {
  const above = (bytes: number): string => {
    const percent = Math.round((bytes / row.bytes - 1) * 100);
    const shown = bytes.toLocaleString('en-US');
    return percent === 0 ? shown : `${shown} (${percent > 0 ? '+' : '−'}${Math.abs(percent)} %)`;
  };
  return [
    row.problem,
    row.buffers.toLocaleString('en-US'),
    row.lowerBound.toLocaleString('en-US'),
    row.bytes.toLocaleString('en-US'),
    row.optimal ? 'optimal' : '',
    row.ms < 10 ? row.ms.toFixed(1) : row.ms.toFixed(0),
    above(row.greedyBySize),
    above(row.bestFit),
    above(row.firstFit),
    // Percentages in the tens of thousands say nothing.
    row.noReuse.toLocaleString('en-US'),
  ];
}

/** Columns aligned with spaces, for a terminal. */
export function textTable(rows: readonly Row[]): string {
  const lines = [[...headings], ...rows.map(cells)];
  const widths = headings.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return column === 0 ? cell.padEnd(width) : cell.padStart(width);
        })
        .join('  ')
        .concat('\n'),
    )
    .join('');
}

export function markdownTable(rows: readonly Row[]): string {
  const line = (parts: readonly string[]): string => `| ${parts.join(' | ')} |\n`;
  const rule = headings.map((heading) => (heading === 'problem' ? '---' : '---:'));
  return [headings, rule, ...rows.map(cells)].map(line).join('');
}
