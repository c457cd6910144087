import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import { readReport, writeReport } from '../src/report/json.js';
import { orderParts, type PartialReport, uniteParts } from '../src/report/merge.js';
import { openMergedTable } from '../src/report/merge-tables.js';
import { tableFormatOf } from '../src/report/table-format.js';
import { prepareAsserts } from './edge-asserts.js';
import { MERGERS } from './edge-mergers.js';
import { openOutputs } from './edge-outputs.js';
import { attachShared } from './shared-options.js';

interface OwnOptions {
  readonly tableParts?: string[];
  readonly tableOut?: string;
  readonly tableKey: string;
}

function mergerOf(part: PartialReport): (typeof MERGERS)[string] {
  const { schema } = part.report;
  if (Object.hasOwn(MERGERS, schema)) return MERGERS[schema];
  throw new InputError(
    `${part.path}: reports of the kind ${schema} cannot be united; known: ${Object.keys(MERGERS).sort().join(', ')}`,
  );
}

export function configure(command: Command): void {
  command
    .argument('[parts...]', 'partial reports, in any order')
    .option('--table-parts <file...>', 'tables that the shards wrote')
    .option('--table-out <file>', 'where the united table goes')
    .option('--table-key <column>', 'column that orders the rows', 'document');
  const readShared = attachShared(command, ['out', 'format', 'assert', 'baseline', 'force']);
  command.action(async (patterns: string[]) => {
    const shared = await readShared();
    const own = command.opts<OwnOptions>();
    const tablePatterns = own.tableParts ?? [];
    if (patterns.length === 0 && tablePatterns.length === 0)
      throw new InputError('nothing to unite; name partial reports or --table-parts');
    if (patterns.length > 0 !== (shared.out !== undefined))
      throw new InputError('partial reports and --out belong together');
    if (tablePatterns.length > 0 !== (own.tableOut !== undefined))
      throw new InputError('--table-parts and --table-out belong together');
    if (shared.assert.length > 0 && shared.out === undefined)
      throw new InputError('--assert needs partial reports and --out');

    const paths = patterns.length > 0 ? await expandSources(patterns) : [];
    const tablePaths = tablePatterns.length > 0 ? await expandSources(tablePatterns) : [];
    const asserts = await prepareAsserts(shared.assert, shared.baseline);
    const outputs = openOutputs([...paths, ...tablePaths], { force: shared.force });
    const reportFile = outputs.file('--out', shared.out);

    const parts = paths.length > 0 ? orderParts(paths.map((path) => ({ path, report: readReport(path) }))) : [];
    const report = parts.length > 0 ? await uniteParts(parts, await mergerOf(parts[0])()) : undefined;
    if (report && reportFile) writeReport(report, reportFile);

    if (own.tableOut !== undefined) {
      const format = tableFormatOf(own.tableOut, shared.format);
      const merged = await openMergedTable(tablePaths, shared.format, own.tableKey);
      const odd = tablePaths.find((path) => tableFormatOf(path, shared.format) !== format);
      if (odd !== undefined)
        throw new InputError(
          `${odd}: its format is not that of --table-out ${own.tableOut}; name a .${tableFormatOf(odd)} file`,
        );
      const table = outputs.table('--table-out', own.tableOut, merged.columns, format);
      for await (const cells of merged.rows()) table?.write(cells);
    }
    outputs.commit();
    if (report) process.exitCode = asserts.check(report);
  });
}
